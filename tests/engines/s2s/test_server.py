"""The conversation server as its clients meet it, in front of the scripted backend."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest

from gateway.wire import engine_health, opus, turns
from gateway.wire import fun_audio_chat as wire
from tests.engines.s2s.talking import Client, Server, pitch, serving, session, talking, tone


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s2s"), "--waiting", "2", "--silence", "1.5", "--connections", "12") as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    await server.ready()
    async with talking(server) as client:
        yield client


def spoken(client: Client) -> list[float]:
    """Seconds, of each turn that the engine heard."""
    return [float(found) for found in re.findall(r"you spoke for ([\d.]+) s", client.text)]


async def test_a_turn_is_answered_in_text_and_sound(client: Client) -> None:
    assert isinstance(client.got[0][1], wire.Handshake)
    await client.say(tone(1.0, 500))
    await client.pause()
    done = await client.done()
    assert done.status == "completed"
    kinds = [type(one) for _, one in client.got]
    assert kinds.index(wire.Text) < kinds.index(wire.Audio)
    assert [one.text for _, one in client.got if isinstance(one, wire.Text)][0] == wire.PROCESSING
    assert "at 500 Hz" in client.text
    assert pitch(client.pcm()) == pytest.approx(500, abs=5)
    assert done.audio_seconds == pytest.approx(len(client.pcm()) / 2 / opus.RATE, abs=0.05)
    assert set(done.timings) == {"queued", "first_token", "first_audio"}
    assert isinstance(client.got[-1][1], wire.Metadata), "nothing comes behind the end of a reply"


async def test_every_sample_of_a_burst_arrives(client: Client) -> None:
    await client.say(tone(5.0))
    await client.pause()
    await client.until(lambda: spoken(client))
    assert spoken(client)[0] == pytest.approx(5.0, abs=0.09)  # the packer adds up to two pages of silence


async def test_every_sample_of_the_reply_arrives(client: Client) -> None:
    await client.script(say=2.0)
    done = await client.ask()
    assert done.status == "completed"
    loud = np.abs(np.frombuffer(client.pcm(), "<i2").astype(float)) > 1000
    assert np.flatnonzero(loud)[-1] / opus.RATE == pytest.approx(2.0, abs=0.03)
    assert loud.sum() > 0.8 * 2.0 * opus.RATE


async def test_the_stream_is_one_for_all_turns_in_pages_of_40_ms(client: Client) -> None:
    for _ in range(2):
        await client.ask()
    first, *others = client.pages()
    assert first.count(b"OggS") == 3 and b"OpusHead" in first and b"OpusTags" in first
    assert all(page.count(b"OggS") == 1 and opus.seconds(page) == pytest.approx(0.04) for page in others)
    numbers = [int.from_bytes(page[18:22], "little") for page in others]
    assert numbers == list(range(3, len(numbers) + 3))


async def test_sound_is_paced_and_text_is_not(client: Client) -> None:
    await client.script(say=2.0)
    await client.ask(0.2)
    sounds = [at for at, one in client.got if isinstance(one, wire.Audio)]
    words = [at for at, one in client.got if isinstance(one, wire.Text)]
    assert sounds[-1] - sounds[0] == pytest.approx(2.0 + 0.04 - 1.0, abs=0.25)
    assert words[-1] - words[0] < 1.0


async def test_an_interruption_stops_the_sound_at_once_and_keeps_what_is_said(client: Client) -> None:
    await client.script(say=20, pause=0.05)
    await client.say(tone(0.4))
    await client.pause()
    await client.until(lambda: len(client.pages()) > 5)
    began = time.monotonic()
    await client.start()
    await client.say(tone(1.0, 700))
    done = await client.done()
    assert done.status == "cancelled"
    assert max(at for at, one in client.got if isinstance(one, wire.Audio)) - began < 0.1
    await client.script(say=0.4)
    await client.pause()
    assert (await client.done(2)).status == "completed"
    assert spoken(client)[1] == pytest.approx(1.0, abs=0.09)
    assert "at 700 Hz" in client.text


async def test_an_interruption_frees_the_model(client: Client, server: Server) -> None:
    await client.script(say=60, pause=0.2)
    await client.say(tone(0.4))
    await client.pause()
    await client.until(lambda: client.text)
    await client.start()
    began = time.monotonic()
    async with talking(server) as other:
        await other.say(tone(0.2))
        await other.pause()
        await other.until(lambda: other.text)
    assert time.monotonic() - began < 0.6


async def test_leaving_frees_the_model(client: Client, server: Server) -> None:
    async with talking(server) as leaver:
        await leaver.script(say=60, pause=0.2)
        await leaver.say(tone(0.4))
        await leaver.pause()
        await leaver.until(lambda: leaver.text)
    began = time.monotonic()
    assert (await client.ask()).status == "completed"
    assert time.monotonic() - began < 2.0


async def test_an_interruption_and_leaving_at_once_do_not_cost_a_worker(client: Client, server: Server) -> None:
    """It is asked to stop twice; one that is killed has to load its model again."""
    worker = server.worker("worker").pid
    for _ in range(5):
        async with talking(server) as leaver:
            await leaver.script(say=60, pause=0.1)
            await leaver.say(tone(0.2))
            await leaver.pause()
            await leaver.until(lambda leaver=leaver: leaver.text)
            await leaver.start()
    assert (await client.ask()).status == "completed"
    assert server.worker("worker").pid == worker


async def test_a_voice_that_the_engine_does_not_have_is_refused(client: Client) -> None:
    await client.wish(voice="Nobody")
    assert (await client.error()).message == "there is no such voice; there are 中文女, 中文男"
    assert (await client.ask()).status == "completed"


async def test_two_at_once_never_hear_each_other(client: Client, server: Server) -> None:
    async with talking(server) as other:
        await asyncio.gather(*(one.script(say=2.0) for one in (client, other)))
        await asyncio.gather(client.ask(0.5, 400), other.ask(0.5, 900))
        for one, hertz in ((client, 400), (other, 900)):
            assert pitch(one.pcm()) == pytest.approx(hertz, abs=5)
            assert len(one.pcm()) / 2 / opus.RATE == pytest.approx(2.04, abs=0.1)
            assert f"at {hertz} Hz" in one.text and len(spoken(one)) == 1


async def test_who_waits_is_told_the_place_again_whenever_it_changes(client: Client, server: Server) -> None:
    async with talking(server) as second, talking(server) as third, talking(server) as fourth:
        for one in (client, second, third):
            await one.script(say=60, pause=0.2)
            await one.say(tone(0.2))
            await one.pause()
            await one.until(lambda one=one: one.text or queued(one))
        assert [one.position for one in queued(second)] == [1]
        assert [one.position for one in queued(third)] == [2]
        assert all(one.seconds > 0 for one in queued(second) + queued(third))
        await fourth.say(tone(0.2))
        await fourth.pause()
        assert (await fourth.done()).status == "failed"
        refusal = fourth.errors()[0]
        assert (refusal.code, refusal.turn, refusal.retry_after) == ("engine_busy", 1, 1)
        assert any(isinstance(one, wire.Error) for _, one in fourth.got)
        await second.start()
        await third.until(lambda: [one.position for one in queued(third)] == [2, 1])
        await client.start()
        await third.until(lambda: third.text)


def queued(client: Client) -> list[turns.Queued]:
    return [one for one in client.events() if isinstance(one, turns.Queued)]


async def test_nothing_recorded_is_an_error_and_no_turn(client: Client) -> None:
    await client.pause()
    assert (await client.error()).code == "nothing_recorded"
    await client.ask()
    await client.pause()
    assert (await client.error(2)).code == "nothing_recorded"
    assert len(client.ended()) == 1


async def test_what_comes_while_paused_is_not_recorded(client: Client) -> None:
    await client.script(say=0.4)
    await client.say(tone(0.4))
    await client.pause()
    await client.say(tone(3.0))
    await client.done()
    await client.start()
    await client.say(tone(1.0))
    await client.pause()
    await client.done(2)
    assert spoken(client) == [pytest.approx(0.4, abs=0.09), pytest.approx(1.0, abs=0.09)]


async def test_the_end_of_a_turn_has_two_names(client: Client) -> None:
    await client.say(tone(0.4))
    await client.send(wire.Control(wire.Action.END_TURN))
    assert (await client.done()).status == "completed"


async def test_a_written_turn_is_answered(client: Client) -> None:
    await client.send(wire.Text("good morning"))
    assert (await client.done()).status == "completed"
    assert "you wrote good morning" in client.text
    assert client.pages()


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\x09",
        b"\x03",
        b"\x03\x09",
        b"\x04{",
        b"\x04[]",
        b"\x02\xff",
        b'\x04{"voice": 3}',
        b'\x04{"voice": "x"}',
        b'\x04{"system_prompt": "\\ud800"}',
    ]
    + [b"\x01" + bytes(40), b"\x01\xfc\xff\xfe" * 20, b"\x01OggS" + bytes(90), "a text frame"],
    ids=repr,
)
async def test_what_nobody_understands_is_said_and_the_session_goes_on(client: Client, wrong: bytes | str) -> None:
    await client.socket.send(wrong)
    if wrong == b"\x01OggS" + bytes(90):  # a page without a packet: silence
        await client.pause()
    assert (await client.error()).code in ("bad_request", "nothing_recorded")
    assert [one for _, one in client.got if isinstance(one, wire.Error)]
    assert (await client.ask()).status == "completed"


async def test_messages_that_say_nothing_are_passed_over(client: Client) -> None:
    await client.send(wire.Handshake(), wire.Ping(), wire.Error("x"), wire.ColoredText(1, "x"))
    await client.send(wire.Control(wire.Action.RESTART), wire.metadata({"unknown": 1}))
    assert (await client.ask()).status == "completed"
    assert not client.errors()


async def test_a_client_that_nobody_understands_is_left(client: Client) -> None:
    for _ in range(100):
        await client.socket.send(b"\x09")
    await client.until(lambda: client.closed)
    assert client.closed and client.closed[0] == 1008


async def test_a_flood_of_messages_keeps_nobody_waiting(client: Client, server: Server) -> None:
    """Thousands of them arrive at once, and none of them waits for anything."""
    async with talking(server) as flood:
        writer = asyncio.create_task(_flood(flood))
        began = time.monotonic()
        assert (await client.ask(0.2)).status == "completed"
        assert time.monotonic() - began < 1.5
        await writer


async def _flood(client: Client) -> None:
    for _ in range(5000):
        await client.start()


async def test_a_message_that_is_too_long_ends_the_connection(client: Client) -> None:
    await client.socket.send(b"\x01" + bytes(wire.MOST_BYTES))
    await client.until(lambda: client.closed)
    assert client.closed and client.closed[0] == 1009


async def test_a_reply_that_fails_is_said_and_the_next_one_works(client: Client) -> None:
    await client.script(say=5, fail=1.0)
    assert (await client.ask()).status == "failed"
    assert (client.errors()[0].code, client.errors()[0].turn) == ("engine_error", 1)
    assert "as it was told to" in client.errors()[0].message
    await client.wish(system_prompt="")
    assert (await client.ask()).status == "completed"


async def test_a_model_that_dies_is_said_and_replaced(client: Client, server: Server) -> None:
    await client.script(say=5, die=1.0)
    assert (await client.ask()).status == "failed"
    assert client.errors()[0].code == "engine_broke"
    await client.wish(system_prompt="")
    await server.ready()
    assert (await client.ask()).status == "completed"


async def test_a_model_that_says_nothing_is_killed_and_replaced(client: Client, server: Server) -> None:
    await client.script(say=5, hang=0.0)
    old = server.worker("worker").pid
    began = time.monotonic()
    assert (await client.ask()).status == "failed"
    assert 1.4 < time.monotonic() - began < 3.0
    assert client.errors()[0].code == "engine_timeout"
    await server.ready()
    assert server.worker("worker").pid != old and not psutil.pid_exists(old)
    await client.wish(system_prompt="")
    assert (await client.ask()).status == "completed"


async def test_a_vocoder_that_dies_is_said_and_replaced(client: Client, server: Server) -> None:
    await client.script(say=30, pause=0.1)
    await client.say(tone(0.4))
    await client.pause()
    await client.until(lambda: client.pages())
    server.worker("vocoder_worker").kill()
    assert (await client.done()).status == "failed"
    assert client.errors()[0].code == "engine_broke"
    await client.wish(system_prompt="")
    await server.ready()
    assert (await client.ask()).status == "completed"


async def test_while_a_worker_is_replaced_turns_are_refused_at_once(client: Client, server: Server) -> None:
    server.worker("worker").send_signal(signal.SIGKILL)
    async with asyncio.timeout(2):
        while server.health().status_code == 200:
            await asyncio.sleep(0.01)
    assert engine_health.decode(503, server.health().content).state == "loading"
    done = await client.ask()
    assert done.status in ("failed", "completed")
    if done.status == "failed":
        assert client.errors()[0].code == "engine_loading"
    await server.ready()


async def test_turns_remember_those_before(client: Client) -> None:
    for _ in range(3):
        await client.ask(0.2)
    assert re.findall(r"(\d+): you", client.text) == ["1", "2", "3"]


async def test_eight_turns_are_remembered_and_no_more(client: Client) -> None:
    for turn in range(10):
        await client.send(wire.Text(f"turn {turn}"), wire.metadata({"speech": False}))
        await client.done(turn + 1)
    assert re.findall(r"(\d+): you", client.text) == ["1", "2", "3", "4", "5", "6", "7", "8", "8", "8"]


async def test_a_conversation_is_taken_up_again_by_its_token(server: Server) -> None:
    async with talking(server) as client:
        assert not session(client).resumed
        await client.script(say=0.2)
        await client.ask(0.2)
        token = session(client).resume
    async with talking(server, resume=token) as client:
        assert session(client).resumed and session(client).resume != token
        await client.ask(3.0)
        assert "2: you" in client.text
        assert client.ended()[0].audio_seconds < 1, "what was wished for still holds"
    async with talking(server, resume="nobody's") as client:
        assert not session(client).resumed


async def test_a_wish_holds_from_the_next_turn_on(client: Client) -> None:
    await client.wish(speech=False)
    assert (await client.ask()).status == "completed"
    assert client.text and not client.pages()
    await client.wish(speech=True)
    await client.ask()
    assert client.pages()


async def test_both_voices_can_be_had(client: Client) -> None:
    def loudness(hertz: float, pcm: bytes) -> float:
        spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2")[:24000]))
        return float(spectrum[round(hertz) - 5 : round(hertz) + 6].max())

    await client.script(say=1.2)
    await client.wish(voice="中文男")
    await client.ask(0.5, 600)
    pcm = client.pcm()
    assert loudness(1200, pcm) > 0.4 * loudness(600, pcm)
    await client.wish(voice="中文女")
    await client.ask(0.5, 600)
    pcm = client.pcm()[-2 * 24000 :]
    assert loudness(1200, pcm) < 0.05 * loudness(600, pcm)
    await client.wish(voice="nobody")
    assert "中文女, 中文男" in (await client.error()).message


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


async def test_tools_are_called_and_their_results_are_a_turn_of_their_own(client: Client) -> None:
    await client.wish(tools=[TOOL], speech=False)
    await client.ask()
    (call,) = (one for one in client.events() if isinstance(one, turns.ToolCall))
    assert (call.turn, call.name, call.arguments) == (1, "weather", "{}")
    await client.wish(tool_results=[{"id": "somebody's", "output": "rain"}])
    assert (await client.error()).code == "bad_request"
    await client.wish(tool_results=[{"id": call.id, "output": "sunny"}])
    assert (await client.done(2)).status == "completed"
    assert "2: the results are sunny" in client.text
    await client.wish(tool_results=[{"id": call.id, "output": "sunny"}])
    assert (await client.error(2)).code == "bad_request", "each is taken once"


async def test_a_result_that_comes_before_the_end_of_its_reply_waits_for_it(client: Client) -> None:
    await client.wish(tools=[TOOL])
    await client.script(say=1.4)
    await client.say(tone(0.2))
    await client.pause()
    await client.until(lambda: any(isinstance(one, turns.ToolCall) for one in client.events()))
    assert not client.ended()
    await client.wish(tool_results=[{"id": "call-1", "output": "sunny"}])
    await client.done(2)
    order = [(type(one), one.turn) for one in client.events() if isinstance(one, turns.ReplyDone | turns.ReplyStarted)]
    assert order == [
        (turns.ReplyStarted, 1),
        (turns.ReplyDone, 1),
        (turns.ReplyStarted, 2),
        (turns.ReplyDone, 2),
    ]


async def test_too_many_connections_are_told_so(server: Server) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(12):
            await stack.enter_async_context(talking(server))
        refused = await stack.enter_async_context(talking(server))
        await refused.until(lambda: refused.closed)
        assert [type(one) for _, one in refused.got] == [wire.Handshake, wire.Error, wire.Metadata]
        assert refused.closed and refused.closed[0] == 1013 and "12 conversations" in refused.closed[1]


async def test_no_words_are_logged(client: Client, server: Server) -> None:
    secret = "marmalade-7"
    await client.send(wire.Text(secret))
    await client.done()
    assert secret in client.text
    assert secret not in server.log.read_text()


async def test_nothing_is_left_of_those_who_have_gone(server: Server) -> None:
    await server.ready()
    process = psutil.Process(server.process.pid)
    for time_around in range(2):
        for _ in range(10):
            async with talking(server) as client:
                await client.script(say=30, pause=0.02)
                await client.say(tone(0.2))
                await client.pause()
                await client.until(lambda client=client: client.text)
        await asyncio.sleep(0.3)
        if time_around == 0:
            before = process.num_fds(), process.num_threads()
    assert (process.num_fds(), process.num_threads()) == before
    assert len(server.workers()) == 2


async def test_it_ends_when_it_is_told_to_and_tells_its_clients(tmp_path: Path) -> None:
    with serving(tmp_path, "--say", "30", "--pause", "0.1") as server:
        workers = server.workers()
        async with talking(server) as client:
            await client.say(tone(0.2))
            await client.pause()
            await client.until(lambda: client.text)
            server.process.send_signal(signal.SIGTERM)
            await client.until(lambda: client.closed)
            assert client.closed and client.closed[0] == 1012
        assert server.process.wait(5) in (0, -signal.SIGTERM)
    psutil.wait_procs(workers, 2)
    assert not [one for one in workers if one.is_running()]
    assert "Traceback" not in server.log.read_text()


def test_a_model_that_makes_no_sound_is_never_ready(tmp_path: Path) -> None:
    with serving(tmp_path, "--fail", "0", ready=False) as server:
        until = time.monotonic() + 5
        while (report := engine_health.decode(503, server.health().content)).state == "loading":
            assert time.monotonic() < until
            time.sleep(0.02)
        assert report.state == "failed"
        assert "first turn failed" in report.reason
