"""Conversation with Fun-Audio-Chat's server: upstream's with its faults, and ours as a process."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gateway.adapters import fun_audio_chat as ours_module
from gateway.adapters import fun_audio_chat_stock_line as stock_line
from gateway.adapters.connections import Client
from gateway.adapters.fun_audio_chat import FunAudioChat
from gateway.adapters.fun_audio_chat_line import pages_of
from gateway.errors import EngineBroke, EngineBusy, EngineError, EngineUnavailable, EngineUnreachable
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Resumable, ToolCall, Turn
from gateway.settings import Settings
from gateway.verbs import Begin, Cancel, Change, Converse, End, Said, State, ToolResult, Write
from gateway.wire import engine_health, opus, turns
from gateway.wire import fun_audio_chat as wire
from tests.adapters.conftest import Line, answer, peer
from tests.adapters.stock_fun_audio_chat import SYSTEM_PROMPT, Behaviour, Stock, loudest, stock, tone
from tests.engines.s2s.talking import serving

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
PAGE = 0.04


def pages(hz: float, seconds: float, packer: opus.Packer | None = None) -> list[Opus]:
    packer = packer or opus.Packer()
    return [Opus(page) for item in packer.feed(tone(hz, seconds)) for page in pages_of(item)]


@dataclass
class Talk:
    """One conversation as its client sees it."""

    adapter: FunAudioChat
    opus: bool = True
    wishes: Change = Change(persona="", language="", speech=True, tools=())
    resume: str = ""
    events: list[Conversed] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self._said: asyncio.Queue[Said | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._unpacker = opus.Unpacker()
        self.pcm: dict[int, bytes] = {}
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _items(self) -> AsyncIterator[Said]:
        while (one := await self._said.get()) is not None:
            yield one

    async def _run(self) -> None:
        try:
            job = Converse(self._items(), self.opus, self.resume, self.wishes)
            async with self.adapter.session(job) as events:
                async for event in events:
                    self._note(event)
        except EngineError as exc:
            self.error = exc
        finally:
            self._changed.set()

    def _note(self, event: Conversed) -> None:
        if isinstance(event, ReplyAudio):
            sound = event.audio
            if isinstance(sound, Opus):
                assert self.opus and opus.is_page(sound.page), "whole pages, one at a time"
                pcm = self._unpacker.feed(sound.page)
            else:
                assert not self.opus and sound.sample_rate == opus.RATE
                pcm = sound.pcm
            self.pcm[event.turn] = self.pcm.get(event.turn, b"") + pcm
        self.events.append(event)
        self._changed.set()

    def say(self, *said: Said | None) -> None:
        """None is the end."""
        for one in said:
            self._said.put_nowait(one)

    async def close(self) -> None:
        """Says nothing more, and hears the rest."""
        self._said.put_nowait(None)
        async with asyncio.timeout(5):
            await self.task

    async def until(self, *, turn: int = 0, phase: Phase | None = None, heard: float = 0.0) -> None:
        """The turn is in that phase, or that many seconds of it have been heard."""
        async with asyncio.timeout(5):
            while not self._is(turn, phase, heard):
                assert not self.task.done(), f"the session has ended: {self.error!r} {self.told}"
                self._changed.clear()
                await self._changed.wait()

    def _is(self, turn: int, phase: Phase | None, heard: float) -> bool:
        if phase is not None:
            return (turn, phase) in self.told
        return len(self.pcm.get(turn, b"")) / 2 / opus.RATE > heard

    @property
    def told(self) -> list[tuple[int, Phase]]:
        return [(one.number, one.phase) for one in self.events if isinstance(one, Turn)]

    def failure(self, turn: int) -> Turn:
        (found,) = (one for one in self.events if isinstance(one, Turn) and (one.number, one.phase) == (turn, "failed"))
        return found

    def text(self, turn: int) -> str:
        return "".join(one.text for one in self.events if isinstance(one, ReplyText) and one.turn == turn)

    def seconds(self, turn: int) -> float:
        return round(len(self.pcm.get(turn, b"")) / 2 / opus.RATE, 2)

    def hz(self, turn: int) -> int:
        return round(loudest(self.pcm.get(turn, b"")) / 10) * 10


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double is quick, so less silence tells that its reply is over."""
    monkeypatch.setattr(stock_line, "_SILENCE", 0.1)
    monkeypatch.setattr(stock_line, "_TEXT_SILENCE", 0.08)


@pytest.fixture
async def server() -> AsyncIterator[Stock]:
    async with stock() as server:
        yield server


def made(server: Stock | str, http: Client, **settings: Any) -> FunAudioChat:
    url = server if isinstance(server, str) else server.url
    return FunAudioChat(url, http, Settings.model_validate(settings))


@asynccontextmanager
async def talk(adapter: FunAudioChat, **given: Any) -> AsyncIterator[Talk]:
    talk = Talk(adapter, **given)
    try:
        yield talk
    finally:
        talk.task.cancel()
        with suppress(asyncio.CancelledError):
            await talk.task


# Upstream's server


@pytest.mark.parametrize("packed", [True, False])
async def test_a_burst_and_an_end_at_once_lose_nothing(server: Stock, http: Client, packed: bool) -> None:
    async with talk(made(server, http), opus=packed) as client:
        said: list[Said] = [*pages(440, 5)] if packed else [Audio(tone(440, 5, 16000), 16000)]
        client.say(*said, End())
        await client.until(turn=1, phase=Phase.DONE)
        assert client.told == [(1, Phase.WORKING), (1, Phase.DONE)]
        assert 5.0 <= server.heard[0].seconds <= 5.1 and round(server.heard[0].hz, -1) == 440
        assert client.seconds(1) == 0.8 and client.hz(1) == 440
        assert client.text(1) == "Well, yes."


async def test_each_turn_hears_what_was_said_in_it_and_no_more(server: Stock, http: Client) -> None:
    async with talk(made(server, http)) as client:
        packer = opus.Packer()
        client.say(*pages(300, 1, packer), Begin(), *pages(440, 2, packer), End())
        await client.until(turn=1, phase=Phase.DONE)
        client.say(*pages(600, 1, packer), End())  # without Begin: it goes on where the last turn ended
        await client.until(turn=2, phase=Phase.DONE)
        client.say(Begin(), *pages(800, 3, packer), End())
        await client.close()
    assert [(round(one.hz, -1), round(one.seconds, 2), one.turns) for one in server.heard] == [
        (440, 2.0, 1),
        (600, 1.0, 2),
        (800, 3.0, 3),
    ]
    assert [client.hz(turn) for turn in (1, 2, 3)] == [440, 600, 800]
    assert server.connections == 1, "what was said before is remembered by the connection"


async def test_what_is_said_in_real_time_is_there_when_the_turn_ends(server: Stock, http: Client) -> None:
    loop = asyncio.get_running_loop()
    async with talk(made(server, http)) as client:
        for page in pages(440, 0.6):
            client.say(page)
            await asyncio.sleep(PAGE)
        asked = loop.time()
        client.say(End())
        await client.until(turn=1, phase=Phase.WORKING)
        assert loop.time() - asked < 0.1
        assert round(server.heard[0].seconds, 2) == 0.6


async def test_an_interruption_ends_the_reply_and_loses_nothing_said_meanwhile(server: Stock, http: Client) -> None:
    server.behaviour = Behaviour(steps=30)
    async with talk(made(server, http)) as client:
        client.say(*pages(440, 1), End())
        await client.until(turn=1, heard=0.3)
        client.say(Begin())
        await client.until(turn=1, phase=Phase.CANCELLED)
        heard = client.seconds(1)
        server.behaviour = Behaviour()
        client.say(*pages(900, 2), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert client.told == [
        (1, Phase.WORKING),
        (1, Phase.CANCELLED),
        (2, Phase.QUEUED),
        (2, Phase.WORKING),
        (2, Phase.DONE),
    ]
    assert client.seconds(1) == heard < 6.0 and client.hz(1) == 440
    assert client.seconds(2) == 0.8 and client.hz(2) == 900
    assert round(server.heard[1].seconds, 2) == 2.0 and round(server.heard[1].hz, -1) == 900
    assert server.heard[1].turns == 2 and server.most_generating == 1


async def test_a_cancelled_reply_leaves_what_is_being_said(server: Stock, http: Client) -> None:
    async with talk(made(server, http)) as client:
        client.say(*pages(440, 1), End())
        await client.until(turn=1, heard=0.3)
        client.say(*pages(900, 1), Cancel(), *pages(900, 1), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert (1, Phase.CANCELLED) in client.told
    assert round(server.heard[1].seconds, 2) == 2.0


async def test_a_turn_that_waits_can_be_taken_back(server: Stock, http: Client) -> None:
    server.behaviour = Behaviour(steps=30)
    adapter = made(server, http)
    async with talk(adapter) as first, talk(adapter) as second:
        first.say(*pages(440, 1), End())
        await first.until(turn=1, phase=Phase.WORKING)
        second.say(*pages(900, 1), End())
        await second.until(turn=1, phase=Phase.QUEUED)
        second.say(Cancel())
        await second.until(turn=1, phase=Phase.CANCELLED)
        await first.until(turn=1, phase=Phase.DONE)
    assert len(server.heard) == 1


async def test_users_at_once_take_turns_and_never_hear_each_other(server: Stock, http: Client) -> None:
    adapter = made(server, http)
    async with talk(adapter) as one, talk(adapter) as two, talk(adapter, opus=False) as three:
        clients = {440: one, 700: two, 1000: three}
        for number in (1, 2):
            for hz, client in clients.items():
                client.say(Begin(), *pages(hz, 1), End())
            for client in clients.values():
                await client.until(turn=number, phase=Phase.DONE)
    for hz, client in clients.items():
        assert [(client.hz(turn), client.seconds(turn)) for turn in (1, 2)] == [(hz, 0.8), (hz, 0.8)]
    assert any(phase is Phase.QUEUED for _, phase in three.told)
    assert server.most_generating == 1
    assert server.most_open == 1, "each connection more would take some of the speech"


async def test_a_full_queue_refuses_the_turn_and_keeps_the_conversation(server: Stock, http: Client) -> None:
    adapter = made(server, http, converse_queue=0)
    async with talk(adapter) as one, talk(adapter) as two:
        one.say(*pages(440, 1), End())
        await one.until(turn=1, phase=Phase.WORKING)
        two.say(*pages(700, 1), End())
        await two.until(turn=1, phase=Phase.FAILED)
        assert two.failure(1).code == "engine_busy"
        await one.until(turn=1, phase=Phase.DONE)
        two.say(*pages(700, 1), End())
        await two.until(turn=2, phase=Phase.DONE)


async def test_a_reply_that_somebody_left_is_waited_for(server: Stock, http: Client) -> None:
    server.behaviour = Behaviour(steps=30)
    adapter = made(server, http)
    async with talk(adapter) as gone:
        gone.say(*pages(440, 1), End())
        await gone.until(turn=1, heard=0.1)
    server.behaviour = Behaviour()
    async with talk(adapter) as client:
        client.say(*pages(900, 1), End())
        await client.until(turn=1, phase=Phase.DONE)
        assert (1, Phase.QUEUED) in client.told
    assert client.hz(1) == 900 and client.seconds(1) == 0.8
    assert server.most_generating == 1


async def test_whoever_leaves_in_silence_leaves_no_connection(server: Stock, http: Client) -> None:
    adapter = made(server, http)
    async with talk(adapter) as client:
        client.say(*pages(440, 0.5), End())
        await client.until(turn=1, phase=Phase.DONE)
    async with asyncio.timeout(1):
        while server.open:
            await asyncio.sleep(0.01)


async def test_an_error_fails_its_turn_and_not_the_next(server: Stock, http: Client) -> None:
    server.behaviour = Behaviour(refuses="out of memory")
    async with talk(made(server, http)) as client:
        client.say(*pages(440, 1), End())
        await client.until(turn=1, phase=Phase.FAILED)
        assert "out of memory" in client.failure(1).reason
        server.behaviour = Behaviour()
        client.say(Begin(), *pages(600, 1), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert client.hz(2) == 600


@pytest.mark.parametrize("behaviour", [Behaviour(fails=True), Behaviour(mute=True)], ids=["no reply", "no vocoder"])
async def test_silence_fails_its_turn_and_two_of_them_the_engine(
    server: Stock, http: Client, behaviour: Behaviour
) -> None:
    server.behaviour = behaviour
    adapter = made(server, http, converse_timeout=0.25)
    async with talk(adapter) as client:
        for turn in (1, 2):
            assert (await adapter.health()).state is State.READY
            client.say(Begin(), *pages(440, 0.4), End())
            await client.until(turn=turn, phase=Phase.FAILED)
            assert client.failure(turn).code == "engine_timeout"
        health = await adapter.health()
        assert health.state is State.FAILED and "no sound" in health.reason
        server.behaviour = Behaviour()
        client.say(Begin(), *pages(600, 0.4), End())
        await client.until(turn=3, phase=Phase.DONE)
    assert client.hz(3) == 600 and client.text(3) == "Well, yes."
    assert (await adapter.health()).state is State.READY


async def test_a_turn_that_is_never_taken_fails(http: Client, server: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is paused while nothing of the recording is there yet, as without waiting for it."""

    async def hasty(_line: object) -> None:
        pass

    monkeypatch.setattr(stock_line.Line, "settle", hasty)
    async with talk(made(server, http, converse_timeout=0.25)) as client:
        client.say(*pages(440, 1), End())
        await client.until(turn=1, phase=Phase.FAILED)
        assert "taken no turn" in client.failure(1).reason
    assert not server.heard, "this is what the waiting is for"


async def test_a_connection_that_is_cut_breaks_the_session(server: Stock, http: Client) -> None:
    server.behaviour = Behaviour(delay=0.2)
    adapter = made(server, http)
    async with talk(adapter) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.WORKING)
        server.cut = True
        client.say(Cancel())
        assert adapter._stock.line is not None
        await adapter._stock.line._socket.send(b"\6")
        async with asyncio.timeout(2):
            await client.task
    assert isinstance(client.error, EngineBroke)
    server.cut = False
    async with talk(adapter) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)


async def test_what_the_server_would_die_of_never_gets_there(server: Stock, http: Client) -> None:
    """And a turn of nothing but that is one in which nothing was said."""
    async with talk(made(server, http)) as client:
        page = pages(440, 0.04)[-1].page
        for rubbish in (b"", b"OggS", b"RIFFxxxx", b"OggS\0" + b"x" * 60, page[:-1], page + b"x"):
            client.say(Opus(rubbish))
        client.say(End())
        await client.until(turn=1, phase=Phase.FAILED)
        assert client.failure(1).code == "nothing_recorded"
        client.say(Opus(b"\xff" * 50), *pages(440, 1), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert round(server.heard[0].seconds, 2) == 1.0
    assert server.connections == 1


async def test_a_turn_in_which_nothing_was_said_is_not_asked(server: Stock, http: Client) -> None:
    """The encoder always has something left."""
    async with talk(made(server, http), opus=False) as client:
        client.say(Audio(tone(440, 0.4, 16000), 16000), Begin(), End())
        client.say(Audio(tone(440, 0.4, 16000), 16000), End(), End())
        await client.until(turn=3, phase=Phase.FAILED)
        await client.until(turn=2, phase=Phase.DONE)
    assert [client.failure(turn).code for turn in (1, 3)] == ["nothing_recorded"] * 2
    assert len(server.heard) == 1


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_said_in_whatever_order_each_turn_ends_once(server: Stock, http: Client, seed: int) -> None:
    chance, ends = random.Random(seed), {Phase.DONE, Phase.CANCELLED, Phase.FAILED}
    server.behaviour = Behaviour(steps=4)
    adapter = made(server, http)

    async def chat(hz: int) -> None:
        said = pages(hz, 0.2)
        async with talk(adapter) as client:
            asked = 0
            for _ in range(12):
                one = chance.choice(["say", "say", "say", End(), End(), Begin(), Cancel(), Write("x"), "wait"])
                asked += isinstance(one, End | Write)
                client.say(*said if isinstance(one, str) else [one])
                await asyncio.sleep(0.1 if one == "wait" else 0)
            client.say(None)
            async with asyncio.timeout(10):
                await client.task
            assert client.error is None
            assert [number for number, phase in sorted(client.told) if phase in ends] == list(range(1, asked + 1))
            assert all(client.hz(turn) == hz for turn in client.pcm)

    await asyncio.gather(*(chat(hz) for hz in (300, 500, 700)))
    assert server.most_generating <= 1
    assert (adapter._stock.gate.running, adapter._stock.gate.waiting) == (0, 0)


async def test_written_turns_are_refused(server: Stock, http: Client) -> None:
    async with talk(made(server, http)) as client:
        client.say(Write("Good morning"), *pages(440, 0.4), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert client.failure(1).code == "text_unsupported"


async def test_the_persona_is_told_before_the_first_turn_with_what_makes_the_model_speak(
    server: Stock, http: Client
) -> None:
    async with talk(made(server, http), wishes=Change(persona="You are a pirate.")) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
        client.say(Change(persona="You are a monk."), Begin(), *pages(440, 0.4), End())
        await client.until(turn=2, phase=Phase.DONE)
    prompts = [one.system_prompt for one in server.heard]
    assert prompts[0] == prompts[1] and prompts[0].endswith("You are a pirate.") and "speech tokens" in prompts[0]


async def test_without_a_persona_the_servers_own_stays(server: Stock, http: Client) -> None:
    async with talk(made(server, http)) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
    assert server.heard[0].system_prompt == SYSTEM_PROMPT


async def test_replies_can_be_wanted_as_text_only(server: Stock, http: Client) -> None:
    async with talk(made(server, http), wishes=Change(speech=False)) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
    assert not client.pcm and client.text(1) == "Well, yes."


async def test_of_a_very_long_turn_the_latest_is_heard(server: Stock, http: Client) -> None:
    async with talk(made(server, http, converse_turn_seconds=2)) as client:
        packer = opus.Packer()
        for hz in (300, 400, 500):
            client.say(*pages(hz, 1.2, packer))
            await asyncio.sleep(0.05)
        client.say(End())
        await client.until(turn=1, phase=Phase.DONE)
    assert 1.9 <= server.heard[0].seconds <= 2.0 and round(server.heard[0].hz, -1) == 500


@pytest.mark.parametrize(
    ("texts", "whole", "shown"),
    [
        (("Yes", ".", "\n", "No", "."), "Yes.\nNo.", "Yes.No."),
        (("A ", "\ufffd", "\ufffd", "!"), "A 好!", "A 好!"),
        (("A ", "\ufffd"), "Something else", "A "),
        (("One", " two"), "One two three<|audio_eos|>", "One two three"),
        (("Same",), "", "Same"),
    ],
)
async def test_the_repetition_of_the_text_adds_only_what_is_missing(
    server: Stock, http: Client, texts: tuple[str, ...], whole: str, shown: str
) -> None:
    server.behaviour = Behaviour(texts=texts, whole=whole)
    async with talk(made(server, http)) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
    assert client.text(1) == shown


async def test_a_slow_reply_is_not_taken_for_one_that_is_over(server: Stock, http: Client) -> None:
    """Its pauses are longer than the silence that ends a quick one."""
    server.behaviour = Behaviour(steps=8, step=0.1)
    async with talk(made(server, http)) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
    assert client.seconds(1) == 1.6


async def test_a_stock_server_is_ready_when_it_shakes_hands_and_is_asked_only_once(server: Stock, http: Client) -> None:
    adapter = made(server, http)
    for _ in range(3):
        assert (await adapter.health()).state is State.READY
    assert server.connections == 1, "each costs a reply that runs some of its sound"


async def test_an_engine_that_is_not_there_is_down(http: Client) -> None:
    adapter = made("http://127.0.0.1:9", http)
    assert (await adapter.health()).state is State.DOWN
    async with talk(adapter) as client:
        await client.task
    assert isinstance(client.error, EngineUnreachable)


async def test_another_server_at_the_address_is_none(http: Client) -> None:
    async def behave(line: Line) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                await line.request()
                await line.send(answer(b"no such thing", 404))

    async with peer(behave) as other:
        health = await made(other.url, http).health()
    assert health.state is State.FAILED and "opens no conversation" in health.reason


# Ours


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("s2s")) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("packed", [True, False])
async def test_our_engine_hears_all_and_is_heard(ours: str, http: Client, packed: bool) -> None:
    async with talk(made(ours, http), opus=packed) as client:
        for turn, hz in ((1, 440), (2, 700)):
            said: list[Said] = [*pages(hz, 1)] if packed else [Audio(tone(hz, 1, 16000), 16000)]
            client.say(Begin(), *said, End())
            await client.until(turn=turn, phase=Phase.DONE)
            assert client.hz(turn) == hz and client.seconds(turn) >= 1.0
            assert client.text(turn) and "[" not in client.text(turn)
        await client.close()
    assert client.told == [(turn, phase) for turn in (1, 2) for phase in (Phase.WORKING, Phase.DONE)]


async def test_what_is_said_in_a_reply_is_the_next_turn(ours: str, http: Client) -> None:
    async with talk(made(ours, http), wishes=Change(persona='{"pause": 0.05}')) as client:
        client.say(*pages(440, 1), End(), *pages(700, 1))
        await client.until(turn=1, phase=Phase.DONE)
        client.say(End())
        await client.until(turn=2, phase=Phase.DONE)
    assert [client.hz(turn) for turn in (1, 2)] == [440, 700]


async def test_our_engine_stops_when_interrupted(ours: str, http: Client) -> None:
    loop = asyncio.get_running_loop()
    async with talk(made(ours, http), wishes=Change(persona='{"say": 30, "pause": 0.05}')) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, heard=0.2)
        since = loop.time()
        client.say(Begin(), Change(persona='{"say": 1}'), *pages(900, 0.4), End())
        await client.until(turn=1, phase=Phase.CANCELLED)
        await client.until(turn=2, heard=0.0)
        assert loop.time() - since < 2.0, "the next turn waits for nothing"
        await client.until(turn=2, phase=Phase.DONE)
    at = next(n for n, one in enumerate(client.events) if isinstance(one, Turn) and one.phase is Phase.CANCELLED)
    assert not any(isinstance(one, ReplyAudio | ReplyText) and one.turn == 1 for one in client.events[at:])
    assert client.hz(1) == 440 and client.hz(2) == 900


async def test_a_cancelled_reply_of_ours_leaves_what_is_being_said(ours: str, http: Client) -> None:
    async with talk(made(ours, http), wishes=Change(persona='{"say": 30, "pause": 0.05}')) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, heard=0.2)
        client.say(*pages(900, 0.4), Cancel(), Change(persona=""), *pages(900, 0.4), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert (1, Phase.CANCELLED) in client.told
    assert client.hz(2) == 900 and 0.7 < client.seconds(2) < 1.1, "it answers for as long as it heard"


async def test_our_engine_tells_places_in_its_queue(ours: str, http: Client) -> None:
    adapter = made(ours, http)
    async with talk(adapter, wishes=Change(persona='{"say": 1, "pause": 0.1}')) as one, talk(adapter) as two:
        one.say(*pages(440, 0.4), End())
        await one.until(turn=1, phase=Phase.WORKING)
        two.say(*pages(700, 0.4), End())
        await two.until(turn=1, phase=Phase.QUEUED)
        await two.until(turn=1, phase=Phase.DONE)
        await one.until(turn=1, phase=Phase.DONE)
    assert one.hz(1) == 440 and two.hz(1) == 700


async def test_our_engine_answers_what_is_written(ours: str, http: Client) -> None:
    async with talk(made(ours, http)) as client:
        client.say(Write("Good morning"))
        await client.until(turn=1, phase=Phase.DONE)
        assert client.text(1)


async def test_our_engine_gets_the_results_of_its_tools(ours: str, http: Client) -> None:
    tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
    async with talk(made(ours, http), wishes=Change(tools=(tool,))) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
        (call,) = (one for one in client.events if isinstance(one, ToolCall))
        assert call.name == "clock" and call.turn == 1
        client.say(ToolResult(call.id, "noon"))
        await client.until(turn=2, phase=Phase.DONE)


async def test_a_conversation_with_ours_is_taken_up_again(ours: str, http: Client) -> None:
    adapter = made(ours, http)
    tokens = []
    for token, resumed in (("", False), ("first", True), ("nonsense?&#", False)):
        async with talk(adapter, resume=tokens[0] if token == "first" else token) as client:
            client.say(*pages(440, 0.4), End())
            await client.until(turn=1, phase=Phase.DONE)
            (told,) = (one for one in client.events if isinstance(one, Resumable))
            assert told.resumed is resumed
            tokens.append(told.token)


async def test_a_failure_of_ours_fails_its_turn(ours: str, http: Client) -> None:
    async with talk(made(ours, http), wishes=Change(persona='{"fail": 0}')) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.FAILED)
        assert client.failure(1).code and client.failure(1).reason
        client.say(Begin(), End())
        await client.until(turn=2, phase=Phase.FAILED)
        assert client.failure(2).code == "nothing_recorded"
        client.say(Change(persona=""), Begin(), *pages(440, 0.4), End())
        await client.until(turn=3, phase=Phase.DONE)


async def test_what_is_too_long_for_ours_fails_its_turn_and_no_other(ours: str, http: Client) -> None:
    async with talk(made(ours, http)) as client:
        client.say(Write("x" * (turns.LONGEST_PROMPT + 1)))
        await client.until(turn=1, phase=Phase.FAILED)
        assert client.failure(1).code == "too_large"
        client.say(Write("hello"))
        await client.until(turn=2, phase=Phase.DONE)


async def test_pages_of_any_size_are_kept_for_the_next_turn_within_bounds(
    ours: str, http: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours_module, "_MOST_RECORDED_BYTES", 1000)
    async with talk(made(ours, http), wishes=Change(persona='{"say": 2, "pause": 0.05}')) as client:
        client.say(*pages(440, 0.4), End())
        await client.until(turn=1, phase=Phase.WORKING)
        client.say(*pages(880, 2.0), End())
        await client.until(turn=2, phase=Phase.DONE)
        heard = float(client.text(2).partition("spoke for ")[2].partition(" s")[0])
        assert 0.1 < heard < 1


async def test_our_engine_says_how_it_is(ours: str, http: Client) -> None:
    health = await made(ours, http).health()
    assert (health.state, health.model) == (State.READY, "scripted")


Behave = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def like_ours(behave: Behave) -> AsyncIterator[str]:
    """A server with our /health, that does on each connection what it is told."""

    def health(_socket: ServerConnection, request: Request) -> Response | None:
        body = engine_health.encode(engine_health.Report("ready", "told"))[1]
        headers = Headers({"content-length": str(len(body))})
        return Response(200, "OK", headers, body) if request.path == "/health" else None

    async def connected(socket: ServerConnection) -> None:
        await socket.send(wire.encode(wire.Handshake()))
        with suppress(ConnectionClosed):
            await behave(socket)

    async with serve(connected, "127.0.0.1", 0, process_request=health, compression=None) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def tell(socket: ServerConnection, *said: turns.Event | wire.Message) -> None:
    for one in said:
        message = one if isinstance(one, wire.Message) else wire.metadata(turns.fields_of(one))
        await socket.send(wire.encode(message))


@pytest.mark.parametrize(
    ("code", "error"), [(1013, EngineBusy), (1012, EngineUnavailable), (1011, EngineBroke), (None, EngineBroke)]
)
async def test_a_refusal_by_ours_is_an_error_of_its_kind(
    http: Client, code: int | None, error: type[EngineError]
) -> None:
    async def behave(socket: ServerConnection) -> None:
        await tell(socket, wire.Error("all are taken"), turns.Failed("engine_busy", "all are taken"))
        if code is None:
            socket.transport.abort()
        else:
            await socket.close(code)

    async with like_ours(behave) as url, talk(made(url, http)) as client:
        async with asyncio.timeout(2):
            await client.task
    assert type(client.error) is error
    assert code is None or "all are taken" in str(client.error)


async def test_an_engine_of_ours_that_dies_in_a_reply_breaks_the_session(http: Client) -> None:
    async def behave(socket: ServerConnection) -> None:
        await tell(socket, turns.Session("x"))
        while await socket.recv() != wire.encode(wire.Control(wire.Action.PAUSE)):
            pass
        await tell(socket, turns.ReplyStarted(1), wire.Text("Well"))
        socket.transport.abort()

    async with like_ours(behave) as url, talk(made(url, http)) as client:
        client.say(*pages(440, 0.2), End())
        async with asyncio.timeout(2):
            await client.task
    assert isinstance(client.error, EngineBroke)
    assert client.told == [(1, Phase.WORKING)] and client.text(1) == "Well"


async def test_headers_that_come_with_an_unwanted_reply_are_kept_for_the_next(http: Client) -> None:
    head, tags, *sound = [page.page for page in pages(440, 0.2)]
    start, pause = (wire.encode(wire.Control(action)) for action in (wire.Action.START, wire.Action.PAUSE))

    async def behave(socket: ServerConnection) -> None:
        await tell(socket, turns.Session("x"))
        while await socket.recv() != start:
            pass
        await tell(socket, turns.ReplyStarted(1), wire.Audio(head + tags + sound[0]), wire.Text("no"))
        await tell(socket, turns.ReplyDone(1, "cancelled"))
        while await socket.recv() != pause:
            pass
        await tell(socket, turns.ReplyStarted(2), *map(wire.Audio, sound[1:]), turns.ReplyDone(2, "completed"))
        await socket.wait_closed()

    async with like_ours(behave) as url, talk(made(url, http)) as client:
        client.say(*pages(440, 0.2), End(), Begin(), *pages(440, 0.2), End())
        await client.until(turn=2, phase=Phase.DONE)
    assert client.told == [(1, Phase.CANCELLED), (2, Phase.WORKING), (2, Phase.DONE)]
    assert [one.audio for one in client.events if isinstance(one, ReplyAudio)] == [
        Opus(page) for page in (head, tags, *sound[1:])
    ]


@pytest.mark.parametrize("rubbish", [b"\1not Ogg", b"\4not JSON", b"\1OggS\0"], ids=["audio", "metadata", "half"])
async def test_what_is_not_of_the_protocol_breaks_the_session_or_is_nothing(http: Client, rubbish: bytes) -> None:
    async def behave(socket: ServerConnection) -> None:
        await tell(socket, turns.Session("x"))
        await socket.send(rubbish)
        await socket.send("text")
        await socket.send(b"")
        await tell(socket, wire.Ping(), turns.ReplyDone(7, "completed"), turns.ReplyDone(-1, "completed"))
        await socket.close(1000)

    async with like_ours(behave) as url, talk(made(url, http)) as client:
        async with asyncio.timeout(2):
            await client.task
    assert isinstance(client.error, EngineBroke) and not client.events


async def test_conversations_left_at_any_moment_leave_nothing(server: Stock, http: Client, ours: str) -> None:
    stock_adapter, our_adapter = made(server, http), made(ours, http)
    await stock_adapter.health()
    for moment in range(6):
        for adapter in (stock_adapter, our_adapter):
            async with talk(adapter) as client:
                client.say(*pages(440, 0.4), End())
                await asyncio.sleep(moment * 0.02)
    assert stock_adapter._stock.gate.running == 0 and stock_adapter._stock.gate.waiting == 0
    async with talk(stock_adapter) as client:
        client.say(*pages(700, 0.4), End())
        await client.until(turn=1, phase=Phase.DONE)
        assert client.hz(1) == 700
    assert server.most_generating == 1
