"""WS /api/chat as stock clients of Fun-Audio-Chat meet it: real sockets, real Opus, an engine of the test's own."""

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soxr
from websockets.exceptions import InvalidStatus

from engines.scripted import ScriptedEngine
from gateway.dialogue import Dialogue
from gateway.errors import EngineBroke, EngineBusy
from gateway.events import Audio, Conversed, Phase, ReplyAudio, ReplyText, ToolCall, Turn
from gateway.playout import LEAD
from gateway.surfaces import funaudio_chat
from gateway.verbs import Change, Preset, ToolResult, Write
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus
from tests.conftest import Gateway, running
from tests.engines.asr.sound import say
from tests.surfaces.talker import Heard, Stock, Talker, dial, echo, pages_of, pitch, speaks, stock, talks, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")
BROWSER = "/api/simplex?text_temperature=0.7&text_topk=25&audio_seed=12&pad_mult=0&worker_auth_id=x&email="


@pytest.fixture(params=[False, True], ids=["pcm", "packed"])
def packed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def turn(client: Stock, pcm: bytes, number: int = 1) -> dict[str, Any]:
    """A whole turn of a stock client."""
    if number > 1:
        await client.start()
    await client.speak(pcm)
    await client.pause()
    return await client.event("reply_done", 20, turn=number)


class TestATurn:
    @pytest.mark.parametrize("path", ["/api/chat", BROWSER])
    async def test_it_is_what_a_stock_client_expects(self, gateway: Gateway, packed: bool, path: str) -> None:
        await talks(gateway, Talker(packed=packed))
        async with stock(gateway, path) as client:
            done = await turn(client, tone(0.8))
            assert done["status"] == "completed" and 0.7 < done["audio_seconds"] < 1.0
            assert {"recognition", "first_token", "first_audio"} <= done["timings"].keys()
            assert client.text() == [wire.PROCESSING, "turn 1"]
            kinds = [type(message) for _, message in client.messages]
            assert kinds[0] is wire.Handshake and kinds[-1] is wire.Metadata
            assert abs(pitch(client.pcm()) - 440) < 3
            assert [one["type"] for one in client.events()] == [
                "session",
                "session",
                "reply_started",
                "heard",
                "reply_done",
            ]

    async def test_the_pages_are_those_that_browsers_decode(self, gateway: Gateway) -> None:
        """Whole pages, one a message, 40 ms; headers at 0 and 1 in the first, and once only for all turns."""
        await talks(gateway, Talker(speaks(0.5)))
        async with stock(gateway) as client:
            for number in (1, 2, 3):
                await turn(client, tone(0.2), number)
            cut = [opus.Pages().feed(message) for message in client.audio()]
            assert [len(pages) for pages in cut] == [3] + [1] * (len(cut) - 1)
            pages = [page for message in cut for page in message]
            assert [int.from_bytes(page[18:22], "little") for page in pages] == list(range(len(pages)))
            assert [opus.is_header(page) for page in pages[:3]] == [True, True, False]
            assert {round(opus.seconds(page), 3) for page in pages[2:]} == {0.04}

    async def test_a_burst_and_a_pause_at_once_lose_nothing(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(speaks(0.1), packed=packed))
        pcm = tone(4.96, 300) + tone(0.04, 3000)
        async with stock(gateway) as client:
            await turn(client, pcm)
        heard = talker.heard(1)
        assert len(heard) >= len(pcm)
        assert abs(pitch(heard[len(pcm) - 1200 : len(pcm)]) - 3000) < 60, "the last 20 ms"

    async def test_several_turns_are_told_apart(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(packed=packed))
        async with stock(gateway) as client:
            for number in (1, 2, 3):
                done = await turn(client, tone(0.3, 300 * number), number)
                assert done["turn"] == number
                assert abs(pitch(talker.heard(number)) - 300 * number) < 5

    async def test_what_is_said_while_paused_is_not_heard(self, gateway: Gateway) -> None:
        """The microphone of upstream's page goes on all the time."""
        talker = await talks(gateway, Talker(speaks(0.1)))
        async with stock(gateway) as client:
            await turn(client, tone(0.2, 300))
            await client.speak(tone(0.5, 900))
            await turn(client, tone(0.2, 600), 2)
        assert abs(pitch(talker.heard(2)) - 600) < 5
        assert len(talker.heard(2)) / 48000 < 0.3

    async def test_a_reply_of_any_rate_is_heard_as_it_is(self, gateway: Gateway) -> None:
        for rate in (16000, 22050, 48000):
            await talks(gateway, Talker(speaks(0.6, 500, rate, piece=0.07)))
            async with stock(gateway) as client:
                done = await turn(client, tone(0.1))
                assert abs(pitch(client.pcm()) - 500) < 4
                assert 0.6 <= done["audio_seconds"] <= 0.72

    async def test_the_last_sample_of_a_reply_is_sent(self, gateway: Gateway) -> None:
        click = bytes(2 * 22050 // 3) + np.full(30, 20000, "<i2").tobytes()

        async def answer(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
            yield ReplyAudio(turn, Audio(click, 22050))

        await talks(gateway, Talker(answer))
        async with stock(gateway) as client:
            await turn(client, tone(0.1))
            heard = np.abs(np.frombuffer(client.pcm(), "<i2").astype(int))
            assert heard[-3 * opus.FRAME :].max() > 6000

    async def test_two_engine_sessions_in_a_row_are_two_streams(self, gateway: Gateway) -> None:
        """After a failure another engine goes on: its stream begins anew, which browsers take."""
        talker = await talks(gateway, Talker(packed=True))
        async with stock(gateway) as client:
            await turn(client, tone(0.3))
            talker.fails = EngineBroke("gone")
            assert (await turn(client, tone(0.3), 2))["status"] == "failed"
            talker.fails = None
            done = await turn(client, tone(0.3), 3)
            assert done["status"] == "completed" and len(talker.jobs) == 2
            assert talker.jobs[1].resume == "token-1"
            assert abs(pitch(client.pcm()) - 440) < 5


class TestPace:
    async def test_a_reply_is_sent_at_the_pace_of_speech(self, gateway: Gateway, packed: bool) -> None:
        await talks(gateway, Talker(speaks(2.0), packed=packed))
        async with stock(gateway) as client:
            await turn(client, tone(0.1))
            times = [at for at, message in client.messages if isinstance(message, wire.Audio)]
            sent = [opus.FRAME / opus.RATE * index for index in range(len(times))]
            ahead = [so_far - (at - times[0]) for at, so_far in zip(times, sent, strict=True)]
            assert max(ahead) < LEAD + 0.15
            assert times[-1] - times[0] > 0.8
            assert times[10] - times[0] < 0.2, "the first second comes at once"

    async def test_text_does_not_wait_for_its_sound(self, gateway: Gateway) -> None:
        async def answer(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
            for word in ("one ", "two ", "three"):
                yield ReplyText(turn, word)
                yield ReplyAudio(turn, Audio(tone(0.8), 24000))

        await talks(gateway, Talker(answer))
        async with stock(gateway) as client:
            await turn(client, tone(0.1))
            assert client.text() == [wire.PROCESSING, "one ", "two ", "three"]
            times = [at for at, message in client.messages if isinstance(message, wire.Text)]
            assert times[-1] - times[0] < 0.5

    async def test_a_later_turn_waits_for_the_sound_of_an_earlier_one(self, gateway: Gateway) -> None:
        await talks(gateway, Talker(speaks(1.3)))
        async with stock(gateway) as client:
            await client.wish(speech=True)
            for _ in range(2):
                await client.socket.send(b"\2hello")
            await client.event("reply_done", 10, turn=2)
            order = [one["turn"] for one in client.events() if one["type"] in ("reply_started", "reply_done")]
            assert order == [1, 1, 2, 2]


class TestBargeIn:
    async def test_start_stops_the_reply_within_100_ms(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(speaks(30.0, pause=0.01), packed=packed))
        async with stock(gateway) as client:
            await client.speak(tone(0.2))
            await client.pause()
            while len(client.audio()) < 30:
                await client.next()
            begun = asyncio.get_running_loop().time()
            await client.start()
            done = await client.event("reply_done")
            assert done["status"] == "cancelled" and done["turn"] == 1
            assert 0 <= done["timings"]["barge_in"] < 0.1
            with pytest.raises(TimeoutError):
                while True:
                    await client.next(0.4)
            late = [at - begun for at, message in client.messages if isinstance(message, wire.Audio) and at > begun]
            assert max(late, default=0.0) < 0.1
            assert talker.stopped == 1

    async def test_every_sample_said_meanwhile_is_kept(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(speaks(30.0), packed=packed))
        pcm = tone(1.0, 700)
        async with stock(gateway) as client:
            await client.speak(tone(0.2))
            await client.pause()
            while len(client.audio()) < 3:
                await client.next()
            await client.start()
            await client.speak(pcm)
            talker.answer = speaks(0.2, 900)
            await client.pause()
            done = await client.event("reply_done", turn=2)
        assert done["status"] == "completed"
        assert len(talker.heard(2)) >= len(pcm) - 1920
        assert abs(pitch(talker.heard(2)) - 700) < 3

    async def test_the_next_reply_has_nothing_of_the_last(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(speaks(30.0, 400), packed=packed))
        async with stock(gateway) as client:
            await client.speak(tone(0.2))
            await client.pause()
            while len(client.audio()) < 30:
                await client.next()
            await client.start()
            await client.event("reply_done", turn=1)
            before = len(client.pcm())
            talker.answer = speaks(0.8, 1000)
            await client.speak(tone(0.2))
            await client.pause()
            await client.event("reply_done", turn=2)
            heard = client.pcm()[before:]
            spectrum = np.abs(np.fft.rfft(np.frombuffer(heard, "<i2").astype(float)))
            frequency = np.arange(len(spectrum)) * 24000 / (len(heard) // 2)
            old, new = (spectrum[abs(frequency - hertz) < 30].max() for hertz in (400, 1000))
            assert new > 20 * old

    async def test_a_reply_that_the_engine_has_ended_is_cut_too(self, gateway: Gateway) -> None:
        """Its end comes all the same, and says that not all of it was sent."""
        await talks(gateway, Talker(speaks(4.0)))
        async with stock(gateway) as client:
            await client.speak(tone(0.2))
            await client.pause()
            while len(client.audio()) < 10:
                await client.next()
            await asyncio.sleep(0.2)
            await client.start()
            done = await client.event("reply_done")
            assert done["status"] == "cancelled" and done["audio_seconds"] < 2.0
            assert done["timings"]["barge_in"] < 0.1
            assert len(client.events("reply_done")) == 1

    async def test_twenty_in_a_row_leave_everything_in_order(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(speaks(5.0), packed=packed))
        async with stock(gateway) as client:
            for number in range(1, 21):
                await client.start()
                await client.speak(tone(0.06))
                await client.pause()
                await client.event("reply_started", turn=number)
                await asyncio.sleep(0.005 * (number % 4))
            talker.answer = echo
            await client.start()
            await turn(client, tone(0.3, 800), 21)
            assert [one["turn"] for one in client.events("reply_done")] == list(range(1, 22))
        await _idle(gateway, talker)


class TestSeveral:
    async def test_two_users_at_once_never_hear_each_other(self, gateway: Gateway, packed: bool) -> None:
        await talks(gateway, Talker(packed=packed))

        async def user(hertz: float) -> None:
            async with stock(gateway) as client:
                for number in (1, 2):
                    await turn(client, tone(0.6, hertz), number)
                heard = np.frombuffer(client.pcm(), "<i2").astype(float)
                spectrum = np.abs(np.fft.rfft(heard))
                frequency = np.arange(len(spectrum)) * 24000 / len(heard)
                for other in PITCHES:
                    level = spectrum[abs(frequency - other) < 20].max() / spectrum.max()
                    assert level > 0.9 if other == hertz else level < 0.05

        async with asyncio.TaskGroup() as users:
            for hertz in PITCHES:
                users.create_task(user(hertz))

    async def test_one_too_many_is_told_and_closed(self, gateway: Gateway) -> None:
        await talks(gateway, Talker(), slots=1)
        async with stock(gateway) as first:
            await turn(first, tone(0.1))
            async with dial(gateway) as socket:
                second = Stock(socket)
                assert await second.next() == wire.Handshake()
                assert await second.closed() == (1013, "all 1 conversations are taken; try again later")
                assert second.errors() == ["all 1 conversations are taken; try again later"]
                assert [one["code"] for one in second.events("error")] == ["engine_busy"]
                assert second.events("error")[0]["retry_after"] == 5
            assert (await turn(first, tone(0.1), 2))["status"] == "completed"

    async def test_a_place_in_the_queue_is_announced(self, gateway: Gateway) -> None:
        async def answer(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
            yield Turn(turn, Phase.QUEUED, 2, 3.25)
            yield Turn(turn, Phase.QUEUED, 1, 1.5)
            yield Turn(turn, Phase.WORKING)

        await talks(gateway, Talker(answer))
        async with stock(gateway) as client:
            await turn(client, tone(0.1))
            assert client.events("queued") == [
                {"type": "queued", "turn": 1, "position": 2, "seconds": 3.25},
                {"type": "queued", "turn": 1, "position": 1, "seconds": 1.5},
            ]
            assert client.text() == [wire.PROCESSING]


PITCHES = (330.0, 610.0, 970.0, 1430.0)


class TestWishes:
    async def test_they_reach_the_engine(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker())
        tools = [{"type": "function", "function": {"name": "light"}}]
        async with stock(gateway, "/api/chat?language=en") as client:
            await turn(client, tone(0.1))
            await client.wish(system_prompt="Be brief.", text_temperature=1)
            await client.wish(voice="中文男", language="zh")
            await client.wish(voice="default", speech=False, tools=tools)
            await turn(client, tone(0.1), 2)
        assert talker.jobs[0].wishes.language == "en"
        wanted = Change("Be brief.", Preset("中文女"), "zh", False, tuple(tools))
        assert merged(*talker.changes()) == wanted

    async def test_a_voice_may_be_named_in_the_address(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker())
        async with stock(gateway, "/api/chat?voice=%E4%B8%AD%E6%96%87%E7%94%B7") as client:
            await turn(client, tone(0.1))
        assert talker.jobs[0].wishes.voice == Preset("中文男")

    async def test_an_unknown_voice_is_told_with_those_that_there_are(self, gateway: Gateway) -> None:
        await talks(gateway, Talker())
        async with stock(gateway, "/api/chat?voice=nobody") as client:
            assert (await client.event("error"))["code"] == "unknown_voice"
            await client.wish(voice="somebody")
            error = await client.event("error")
            assert "中文女" in error["message"] and "英文女" in error["message"]
            assert (await turn(client, tone(0.1)))["status"] == "completed"

    async def test_tools_are_called_and_answered(self, gateway: Gateway) -> None:
        async def answer(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
            if turn == 1:
                yield ToolCall(turn, "call-1", "light", '{"on": true}')
            else:
                yield ReplyText(turn, "done")

        talker = await talks(gateway, Talker(answer))
        async with stock(gateway) as client:
            await turn(client, tone(0.1))
            assert client.events("tool_call") == [
                {"type": "tool_call", "turn": 1, "id": "call-1", "name": "light", "arguments": '{"on": true}'}
            ]
            await client.wish(tool_results=[{"id": "call-1", "output": "x" * 20_001}])
            assert (await client.event("error"))["code"] == "text_too_long"
            await client.wish(tool_results=[{"id": "other", "output": "x"}, {"id": "call-1", "output": "on"}])
            assert (await client.event("error"))["code"] == "unknown_tool_call"
            await client.event("reply_done", turn=2)
            assert client.text()[-1] == "done"
        assert ToolResult("call-1", "on") in talker.said

    async def test_text_is_a_turn_only_for_clients_that_say_so(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker(speaks(0.1)))
        async with stock(gateway) as client:
            await client.socket.send(b"\2ignored, as upstream does")
            await client.wish(speech=True)
            await client.socket.send("\2你好".encode())
            await client.event("reply_done", turn=1)
            await client.socket.send(b"\2 ")
            assert (await client.event("error"))["code"] == "empty_text"
        assert [one for one in talker.said if isinstance(one, Write)] == [Write("你好")]

    async def test_a_conversation_is_taken_up_again(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker())
        async with stock(gateway) as client:
            await turn(client, tone(0.1))
            token = client.events("session")[-1]["resume"]
        async with stock(gateway, f"/api/chat?resume={token}") as client:
            await turn(client, tone(0.1))
            assert client.events("session")[-1]["resumed"] is True
            assert len({one["id"] for one in client.events("session")}) == 1
        assert talker.jobs[1].resume == token == "token-1"

    @pytest.mark.parametrize("wish", [{"tools": 5}, {"speech": "no"}, {"system_prompt": ["x"]}], ids=str)
    async def test_a_wrong_one_is_told(self, gateway: Gateway, wish: dict[str, Any]) -> None:
        await talks(gateway, Talker())
        async with stock(gateway) as client:
            await client.wish(**wish)
            assert (await client.event("error"))["code"] == "bad_metadata"
            assert (await turn(client, tone(0.1)))["status"] == "completed"


class TestHandsFree:
    async def test_it_is_told_and_can_be_switched(self, gateway: Gateway) -> None:
        await talks(gateway, Talker())
        async with stock(gateway, "/api/chat?hands_free=1") as client:
            assert client.events("session")[0]["hands_free"] is True
            await client.wish(hands_free=False)
            assert (await client.event("session"))["hands_free"] is False
            await client.start()
            assert (await turn(client, tone(0.2)))["status"] == "completed"


class TestHandsFreeForReal:
    async def test_speech_makes_turns_and_interrupts(self, gateway: Gateway, packed: bool) -> None:
        """Real speech, real endpointing: somebody speaks, hears the reply, speaks into it, and is answered again."""
        pcm = soxr.resample(np.frombuffer(say("what is the weather like today"), "<i2"), 16000, 24000)
        spoken = np.asarray(pcm).astype("<i2").tobytes()
        talker = await talks(gateway, Talker(speaks(30.0, pause=0.01), packed=packed))
        async with stock(gateway, "/api/chat?hands_free=1") as client:
            packer = client.packer
            await client.speak(bytes(24_000) + spoken + bytes(2 * 24_000))
            assert (await client.event("speech_started", turn=1))["at"] < 1.0
            stopped = await client.event("speech_stopped", turn=1)
            assert 1.0 < stopped["at"] < 4.0
            while len(client.audio()) < 30:
                await client.next()
            assert packer is client.packer
            begun = asyncio.get_running_loop().time()
            await client.speak(spoken + bytes(2 * 24_000))
            await client.event("speech_started", turn=2)
            done = await client.event("reply_done")
            assert (done["turn"], done["status"]) == (1, "cancelled")
            talker.answer = speaks(0.2, 900)
            await client.event("reply_done", turn=2)
            assert asyncio.get_running_loop().time() - begun < 5
        for number in (1, 2):
            assert len(spoken) * 0.6 < len(talker.heard(number)) < len(spoken) * 1.9
        await _idle(gateway, talker)

    async def test_speech_cuts_a_long_reply_at_once(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even while more of it waits than the playout takes: the next piece, a whole second, waits outside of it."""
        begun: list[float] = []
        begin = Dialogue.begin

        async def noted(dialogue: Dialogue) -> None:
            begun.append(asyncio.get_running_loop().time())
            await begin(dialogue)

        monkeypatch.setattr(Dialogue, "begin", noted)
        pcm = soxr.resample(np.frombuffer(say("what is the weather like today"), "<i2"), 16000, 24000)
        spoken = np.asarray(pcm).astype("<i2").tobytes()
        await talks(gateway, Talker(speaks(40.0, piece=1.0)))
        async with stock(gateway, "/api/chat?hands_free=1") as client:
            await client.speak(bytes(24_000) + spoken + bytes(2 * 24_000))
            while len(client.audio()) < 30:
                await client.next()
            begun.clear()
            await client.speak(spoken + bytes(2 * 24_000))
            done = await client.event("reply_done", turn=1)
            assert done["status"] == "cancelled" and 0 < done["timings"]["barge_in"] < 0.1
            assert begun and client.messages[-1][0] - begun[0] < 0.1
            last = max(at for at, message in client.messages if isinstance(message, wire.Audio))
            assert last - begun[0] < 0.1

    async def test_silence_costs_the_engine_nothing(self, gateway: Gateway) -> None:
        """Minutes of it, sent as fast as it is taken: nothing is asked, nothing kept, and the session goes on."""
        talker = await talks(gateway, Talker())
        page = pages_of(bytes(48_000))[5]
        async with stock(gateway, "/api/chat?hands_free=1") as client:
            await client.speak(bytes(1920 * 2))
            for _ in range(60):
                await client.socket.send(b"\1" + page * 50)
            await client.wish(hands_free=False)
            await client.event("session", 20)
        assert not talker.jobs


class TestTrouble:
    async def test_a_failed_turn_is_told_and_the_session_goes_on(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker(fails=EngineBroke("the engine\nhas died")))
        async with stock(gateway) as client:
            done = await turn(client, tone(0.1))
            assert done["status"] == "failed"
            assert client.errors() == ["the engine has died"], "one line"
            assert client.events("error")[0] | {"message": ""} == {
                "type": "error",
                "code": "engine_broke",
                "message": "",
                "turn": 1,
            }
            talker.fails = None
            assert (await turn(client, tone(0.1), 2))["status"] == "completed"

    async def test_a_pause_with_nothing_recorded_is_told(self, gateway: Gateway) -> None:
        await talks(gateway, Talker())
        async with stock(gateway) as client:
            await client.pause()
            assert (await client.event("error"))["code"] == "nothing_recorded"

    async def test_a_busy_engine_is_told(self, gateway: Gateway) -> None:
        await talks(gateway, Talker(refuses=EngineBusy("every place is taken")))
        async with stock(gateway) as client:
            assert (await turn(client, tone(0.1)))["status"] == "failed"
            assert client.events("error")[0]["code"] == "engine_busy"


PAGE = pages_of(tone(0.1))[3]
BAD = {
    "an unknown type": (b"\x09", "unreadable_message"),
    "an empty message": (b"", "unreadable_message"),
    "JSON as a control message": (b'{"type": "start"}', "unreadable_message"),
    "a control message without action": (b"\3", "unreadable_message"),
    "an unknown action": (b"\3\x09", "unreadable_message"),
    "text that is no UTF-8": (b"\2\xff\xfe", "unreadable_message"),
    "metadata that is no JSON": (b"\4{", "unreadable_message"),
    "metadata of 300 kB": (b"\4" + b" " * 300_000 + b"{}", "too_large"),
    "a raw Opus packet": (b"\1\xfc\xff\xfe" + bytes(50), "audio_undecodable"),
    "a WAV file": (b"\1RIFF\x24\0\0\0WAVEfmt ", "audio_undecodable"),
    "an Ogg page of something else": (b"\1" + PAGE[:26] + b"\1\0", "audio_undecodable"),
    "a page of packets that lie": (b"\1" + PAGE[:26] + b"\1\2\xfb\x3f", "audio_undecodable"),
    "a text frame": ("hello", "text_frame"),
    "JSON in a text frame": ('{"type": "start"}', "text_frame"),
}


class TestBadInput:
    async def test_each_is_told_and_the_session_goes_on(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(packed=packed))
        async with stock(gateway) as client:
            await client.speak(tone(0.3))
            for name, (message, code) in BAD.items():
                await client.socket.send(message)
                error = await client.event("error")
                assert error["code"] == code, name
                assert client.errors()[-1] == error["message"]
                assert re.fullmatch(r"[^\n]{5,200}", error["message"])
            await client.speak(tone(0.3))
            await client.pause()
            assert (await client.event("reply_done"))["status"] == "completed"
            assert client.text().count(wire.PROCESSING) == 1, "no phantom turn"
        assert len(talker.heard(1)) / 48000 > 0.5, "what was good was all heard"

    async def test_what_upstream_passes_over_is_passed_over(self, gateway: Gateway) -> None:
        await talks(gateway, Talker())
        async with stock(gateway) as client:
            for message in (b"\0\0\0", b"\6", b"\5words", b"\7\1red", b"\2text", b"\3\3", b"\1", b'\4{"a":1}'):
                await client.socket.send(message)
            await turn(client, tone(0.1))
            assert not client.errors()

    async def test_a_bad_page_among_good_ones_costs_nothing_else(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(packed=packed))
        pages = pages_of(tone(0.6))
        pages.insert(8, PAGE[:26] + b"\1\0")
        async with stock(gateway) as client:
            await client.socket.send(b"\1" + b"".join(pages))
            assert (await client.event("error"))["code"] == "audio_undecodable"
            await client.pause()
            await client.event("reply_done")
        assert len(talker.heard(1)) / 48000 >= 0.6

    async def test_audio_in_any_cut_is_heard(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(packed=packed))
        stream = b"".join(pages_of(tone(0.5)))
        async with stock(gateway) as client:
            for at in range(0, len(stream), 77):
                await client.socket.send(b"\1" + stream[at : at + 77])
            await client.pause()
            await client.event("reply_done")
        assert len(talker.heard(1)) / 48000 >= 0.5

    async def test_of_a_burst_of_minutes_nothing_is_lost(self, gateway: Gateway) -> None:
        """The engine takes it as it comes, which is slower than a socket brings it."""
        talker = await talks(gateway, Talker(takes=0.001))
        async with stock(gateway) as client:
            await client.speak(tone(100))
            await client.pause()
            await client.event("reply_started", 20)
            assert not client.errors()
            await client.start()
        assert 100 <= len(talker.heard(1)) / 48000 < 100.1

    async def test_too_far_ahead_is_told_once_a_turn(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        """An engine that never opens; what was taken is bounded."""
        monkeypatch.setattr(funaudio_chat, "_HELD_SECONDS", 0.1)
        await talks(gateway, Talker(never_opens=True, packed=True))
        page = pages_of(tone(1.0))[5]
        async with stock(gateway) as client:
            for number in (1, 2):
                for _ in range(20):
                    await client.socket.send(b"\1" + page * 100)
                assert (await client.event("error"))["code"] == "too_far_ahead"
                await client.start()
                await client.wish(hands_free=False)
                await client.event("session")
                assert len(client.events("error")) == number

    async def test_nothing_but_garbage_ends_the_connection(self, gateway: Gateway) -> None:
        await talks(gateway, Talker())
        async with stock(gateway) as client:
            for _ in range(99):
                await client.socket.send(b"\x09")
            await client.speak(tone(0.1))
            for _ in range(100):
                await client.socket.send(b"\x09")
            assert await client.closed() == (1008, "100 messages in a row could not be used")
            assert len(client.errors()) == 199

    async def test_a_huge_message_closes_with_1009_and_harms_nobody(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker())
        async with stock(gateway) as other, stock(gateway) as client:
            await client.speak(tone(0.1))
            await client.socket.send(b"\1" + bytes(gateway.settings.socket_max_bytes))
            assert (await client.closed())[0] == 1009
            assert (await turn(other, tone(0.1)))["status"] == "completed"
        await _idle(gateway, talker)

    async def test_a_client_that_vanishes_in_a_reply_frees_the_engine(self, gateway: Gateway, packed: bool) -> None:
        talker = await talks(gateway, Talker(speaks(30.0), packed=packed))
        async with stock(gateway) as client:
            await client.speak(tone(0.2))
            await client.pause()
            await client.event("reply_started")
            client.socket.transport.abort()
        await _idle(gateway, talker)

    async def test_a_page_that_is_not_welcome_is_refused(self, tmp_path: Any, scripted: ScriptedEngine) -> None:
        async with running(tmp_path, scripted, cors_origins="https://good.example") as gateway:
            with pytest.raises(InvalidStatus):
                await dial(gateway, origin="https://evil.example")
            await talks(gateway, Talker())
            async with stock(gateway, origin="https://good.example") as client:
                assert (await turn(client, tone(0.1)))["status"] == "completed"


class TestIdle:
    async def test_an_idle_client_is_kept(self, tmp_path: Any, scripted: ScriptedEngine) -> None:
        async with running(tmp_path, scripted, socket_ping=0.1) as gateway:
            await talks(gateway, Talker(speaks(0.6)))
            async with stock(gateway) as client:
                for _ in range(3):
                    assert await client.next(0.4) == wire.Ping()
                times = [at for at, _ in client.messages[-3:]]
                assert all(0.08 < later - earlier < 0.3 for earlier, later in pairwise(times))

    async def test_who_reads_nothing_is_closed_and_others_do_not_notice(
        self, tmp_path: Any, scripted: ScriptedEngine
    ) -> None:
        async with running(tmp_path, scripted, client_idle_timeout=0.4, socket_ping=0.05) as gateway:
            talker = await talks(gateway, Talker(_chatter))
            async with stock(gateway) as other:
                async with stock(gateway, max_queue=1) as client:
                    await client.speak(tone(0.1))
                    await client.pause()
                    async with asyncio.timeout(10):
                        while talker.open == 0:
                            await asyncio.sleep(0.01)
                        while talker.open == 1:
                            await asyncio.sleep(0.01)
                    assert await client.closed() == (1013, "you have read nothing for 0.4 s")
                talker.answer = echo
                assert (await turn(other, tone(0.3)))["status"] == "completed"
            await _idle(gateway, talker)

    async def test_a_shutdown_is_said_at_once(self, tmp_path: Any, scripted: ScriptedEngine) -> None:
        async with running(tmp_path, scripted) as gateway:
            talker = await talks(gateway, Talker(speaks(30.0)))
            async with stock(gateway) as client:
                await client.speak(tone(0.1))
                await client.pause()
                await client.event("reply_started")
                gateway.server.should_exit = True
                assert await client.closed(1.0) == (1012, "the gateway is restarting")
            await gateway.serving
            assert talker.open == 0


async def _chatter(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
    """More words than anybody reads."""
    while True:
        yield ReplyText(turn, "blah " * 1000)


def merged(*changes: Change) -> Change:
    """What several amount to; the dialogue may send fewer."""
    found: dict[str, Any] = {}
    for change in changes:
        found |= {name: value for name in FIELDS if (value := getattr(change, name)) is not None}
    return Change(**found)


FIELDS = ("persona", "voice", "language", "speech", "tools")


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as engine:
        yield engine


async def _idle(gateway: Gateway, talker: Talker) -> None:
    """Nothing is left of those who have gone."""
    async with asyncio.timeout(5):
        while talker.open or gateway.server.server_state.tasks or gateway.state["converse"].gate.running:
            await asyncio.sleep(0.01)
