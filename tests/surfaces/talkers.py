"""Engines of a test's own for conversations and live recognition, put in the place of a running gateway's; and a line
to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.errors import BadRequest, GatewayError
from gateway.events import Conversed, Phase, ReplyText, Resumable, Transcript, Turn
from gateway.replicas import Replicas
from gateway.verbs import Cancel, Converse, EngineHealth, Live, State, Transcribe, Write
from tests.conftest import Gateway

STEP = 9_600
"""Samples after which Ears hear the next word."""


@dataclass
class Ears:
    """A recognition engine that hears a word in each 600 ms, whatever the sound: "|" ends an utterance."""

    words: tuple[str, ...] = ("one", "two", "three")
    live: bool = True
    partials: bool = True
    fails: GatewayError | None = None
    """Raised after the first word."""
    refuses: GatewayError | None = None
    stuck: asyncio.Event | None = None
    """Until it is set nothing is heard."""
    heard: list[bytearray] = field(default_factory=list)
    """The audio of each session."""
    languages: list[str] = field(default_factory=list)
    open: int = 0
    url: str = "fake://ears"

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        if self.refuses is not None:
            raise self.refuses
        if isinstance(job.audio, Live) and not self.live:
            raise BadRequest("whole recordings only", code="live_unsupported")
        self.open += 1
        self.languages.append(job.language)
        try:
            yield self._live(job.audio) if isinstance(job.audio, Live) else self._whole(job)
        finally:
            self.open -= 1

    async def health(self) -> EngineHealth:
        return EngineHealth(State.READY, "ears-1", "cpu")

    async def _whole(self, job: Transcribe) -> AsyncIterator[Transcript]:
        assert not isinstance(job.audio, Live)
        data = job.audio.path.read_bytes()
        assert len(data) == 44 + 2 * job.audio.frames
        self.heard.append(bytearray(data[44:]))
        yield Transcript(f"utterance {len(self.heard)}.", "en")

    async def _live(self, audio: Live) -> AsyncIterator[Transcript]:
        index = len(self.heard)
        self.heard.append(bytearray())
        words, said, utterance = list(self.words), "", 0
        if self.stuck is not None:
            await self.stuck.wait()
        async for piece in audio.pieces:
            assert piece.sample_rate == audio.sample_rate == 16_000
            assert piece.pcm and len(piece.pcm) % 2 == 0
            before = len(self.heard[index]) // 2 // STEP
            self.heard[index] += piece.pcm
            for _ in range(len(self.heard[index]) // 2 // STEP - before):
                word = words.pop(0) if words else "more"
                if word == "|":
                    yield Transcript(f"{said}.", "en", utterance=utterance)
                    said, utterance = "", utterance + 1
                    continue
                said = f"{said} {word}".strip()
                if self.partials:
                    yield Transcript(said, "en", final=False, utterance=utterance)
                if self.fails is not None:
                    raise self.fails
        if len(self.heard[index]) // 2 % STEP:
            said = f"{said} {words.pop(0) if words else 'end'}".strip()
        if said:
            yield Transcript(f"{said}.", "en", utterance=utterance)


@dataclass
class Mind:
    """A conversation engine that answers what is written, piece by piece."""

    pieces: tuple[str, ...] = ("You ", "said ", "{}.")
    pause: float = 0.0
    """Seconds before each piece."""
    fails: str = ""
    """Code of the failure after the first piece."""
    breaks: bool = False
    """The session ends in the middle of the next reply."""
    jobs: list[Converse] = field(default_factory=list)
    cancelled: int = 0
    open: int = 0
    packed: bool = False
    url: str = "fake://mind"

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        self.jobs.append(job)
        self.open += 1
        try:
            yield self._talk(job, len(self.jobs))
        finally:
            self.open -= 1

    async def health(self) -> EngineHealth:
        return EngineHealth(State.READY, "mind-1", "cpu")

    async def _talk(self, job: Converse, number: int) -> AsyncIterator[Conversed]:
        yield Resumable(f"token-{number}", resumed=bool(job.resume))
        turn = 0
        async for said in job.said:
            if isinstance(said, Cancel):
                self.cancelled += 1
            if not isinstance(said, Write):
                continue
            turn += 1
            yield Turn(turn, Phase.WORKING)
            for count, piece in enumerate(self.pieces):
                await asyncio.sleep(self.pause)
                yield ReplyText(turn, piece.format(said.text))
                if self.breaks:
                    self.breaks = False
                    return
                if self.fails and not count:
                    break
            if self.fails:
                yield Turn(turn, Phase.FAILED, code=self.fails, reason="it went wrong")
            else:
                yield Turn(turn, Phase.DONE)


async def hears(gateway: Gateway, ears: Ears, slots: int = 8, queue: int = 8) -> Ears:
    """`ears` recognise for this gateway from now on."""
    gateway.state["transcribe"] = await _serving("asr", ears, slots, queue)
    return ears


async def thinks(gateway: Gateway, mind: Mind, slots: int = 8) -> Mind:
    """`mind` converses for this gateway from now on."""
    gateway.state["converse"] = await _serving("s2s", mind, slots, 0)
    return mind


async def _serving(name: str, engine: Any, slots: int, queue: int) -> Replicas[Any, Any]:
    replicas: Replicas[Any, Any] = Replicas(name, "fake", [engine], slots=slots, queue=queue, patience=1.0)
    await replicas.refresh()
    return replicas


@asynccontextmanager
async def dial(gateway: Gateway, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    async with (
        asyncio.timeout(10),
        connect(f"ws://127.0.0.1:{gateway.port}{path}", proxy=None, compression=None, **options) as socket,
    ):
        yield socket


async def rest(socket: ClientConnection) -> list[str]:
    """Everything that comes until the gateway closes."""
    found = []
    try:
        while True:
            found.append(str(await socket.recv()))
    except ConnectionClosed:
        return found
