"""A conversation of the cascade as a test leads it: scripted verbs below it, and one client that says and is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gateway.adapters.cascade import Cascade
from gateway.endpointing import Started, Stopped
from gateway.errors import BadRequest, GatewayError
from gateway.events import Audio, Conversed, Phase, ReplyAudio, ReplyText, Transcript, Turn
from gateway.memory import Asked, Call
from gateway.settings import Settings
from gateway.verbs import (
    Change,
    Converse,
    EngineHealth,
    Live,
    Preset,
    Reference,
    Said,
    Speak,
    State,
    Transcribe,
)
from gateway.wire import wav

RATE = 16_000
T = TypeVar("T")
PERIOD = 40
"""Samples."""


def tone(seconds: float, loud: int = 8000) -> bytes:
    """Speech, for the scripted ears."""
    return (loud * np.sin(2 * np.pi * np.arange(round(seconds * RATE)) / PERIOD)).astype("<i2").tobytes()


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE))


class LoudEars:
    """Hears whatever is loud, in steps of 20 ms; 0.2 s of silence end it. Begins 0.1 s before."""

    STEP = 320

    def __init__(self, _settings: Settings, sample_rate: int) -> None:
        assert sample_rate == RATE
        self._rest = b""
        self._now = self._quiet = 0
        self._speaking = False

    async def feed(self, pcm: bytes) -> list[Started | Stopped]:
        self._rest += pcm
        found: list[Started | Stopped] = []
        while len(self._rest) >= 2 * self.STEP:
            frame, self._rest = self._rest[: 2 * self.STEP], self._rest[2 * self.STEP :]
            loud = np.abs(np.frombuffer(frame, "<i2").astype(int)).max() > 1000
            if loud and not self._speaking:
                found.append(Started(max(0.0, self._now / RATE - 0.1)))
                self._speaking = True
            self._now += self.STEP
            self._quiet = 0 if loud else self._quiet + self.STEP
            if self._speaking and self._quiet >= 0.2 * RATE:
                found.append(Stopped((self._now - self._quiet) / RATE))
                self._speaking = False
        return found

    def end(self) -> list[Stopped]:
        speaking, self._speaking = self._speaking, False
        return [Stopped(self._now / RATE)] if speaking else []


@dataclass
class Ear:
    """The verb `transcribe`: says "heard N" of its Nth segment, or what it is told to."""

    live: bool = True
    texts: list[str] = field(default_factory=list)
    """For each segment in turn."""
    errors: list[GatewayError] = field(default_factory=list)
    breaks: list[GatewayError] = field(default_factory=list)
    """For each segment in turn, once its first piece is there."""
    partials: bool = True
    slow: float = 0.0
    """Seconds from the end of a segment to its text."""
    hold: asyncio.Event | None = None
    jobs: list[Transcribe] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list, repr=False)
    """The audio of each segment."""
    paths: list[Path] = field(default_factory=list)
    open: int = 0
    most: int = 0
    state: EngineHealth = field(default_factory=lambda: EngineHealth(State.READY, "ear"))

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        if isinstance(job.audio, Live) and not self.live:
            raise BadRequest("whole recordings only", code="live_unsupported")
        if self.errors:
            raise self.errors.pop(0)
        self.jobs.append(job)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield self._events(job)
        finally:
            self.open -= 1

    async def _events(self, job: Transcribe) -> AsyncIterator[Transcript]:
        number = len(self.heard)
        self.heard.append(b"")
        if isinstance(job.audio, Live):
            async for piece in job.audio.pieces:
                assert piece.sample_rate == RATE
                self.heard[number] += piece.pcm
                if self.partials:
                    yield Transcript(f"partial {number + 1}", "", final=False)
                if self.breaks:
                    raise self.breaks.pop(0)
        else:
            content = job.audio.path.read_bytes()
            self.paths.append(job.audio.path)
            head = wav.read_header(content[:100], len(content))
            self.heard[number] = content[head.start :]
            if self.breaks:
                raise self.breaks.pop(0)
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(self.slow)
        text = self.texts[number] if number < len(self.texts) else f"heard {number + 1}"
        yield Transcript(text, "")

    def health(self) -> EngineHealth:
        return self.state


@dataclass
class Mouth:
    """The verb `speak`: three pieces of 100 ms for each sentence, whose samples count the sentences."""

    errors: dict[str, GatewayError] = field(default_factory=dict)
    """By the beginning of a sentence."""
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    """What a sentence waits for before its first piece."""
    late: dict[str, asyncio.Event] = field(default_factory=dict)
    """What it waits for after its first piece."""
    pieces: int = 3
    piece: bytes = b""
    """PCM of 24 kHz in place of its count."""
    jobs: list[Speak] = field(default_factory=list)
    open: int = 0
    most: int = 0
    left: int = 0
    """Sentences that were left before their end."""
    state: EngineHealth = field(default_factory=lambda: EngineHealth(State.READY, "mouth"))

    @property
    def said(self) -> list[str]:
        return [job.text for job in self.jobs]

    @asynccontextmanager
    async def session(self, job: Speak) -> AsyncIterator[AsyncIterator[Audio]]:
        self.jobs.append(job)
        self.open += 1
        self.most = max(self.most, self.open)
        number = len(self.jobs)
        whole = [False]
        try:
            yield self._audio(job, number, whole)
        finally:
            self.open -= 1
            self.left += not whole[0]

    async def _audio(self, job: Speak, number: int, whole: list[bool]) -> AsyncIterator[Audio]:
        if (held := _for(job.text, self.hold)) is not None:
            await held.wait()
        if (error := _for(job.text, self.errors)) is not None:
            raise error
        for piece in range(self.pieces):
            yield Audio(self.piece or number.to_bytes(2, "little") * 2400, 24_000)
            if not piece and (late := _for(job.text, self.late)) is not None:
                await late.wait()
        whole[0] = True

    def health(self) -> EngineHealth:
        return self.state


def _for(text: str, known: dict[str, T]) -> T | None:
    return next((value for begin, value in known.items() if text.startswith(begin)), None)


@dataclass
class Mind:
    """Replies: what it is told to, else it gives the question back."""

    replies: list[Sequence[str | Call | GatewayError | Callable[[], Awaitable[None]]]] = field(default_factory=list)
    """Pieces of each reply in turn; a function is awaited, an error raised."""
    asked: list[Asked] = field(default_factory=list)
    open: int = 0

    @asynccontextmanager
    async def reply(self, asked: Asked) -> AsyncIterator[AsyncIterator[str | Call]]:
        self.asked.append(asked)
        self.open += 1
        try:
            number = len(self.asked) - 1
            default = [f"You said {one.text}." for one in asked.messages[-1:]]
            yield self._pieces(self.replies[number] if number < len(self.replies) else default)
        finally:
            self.open -= 1

    async def _pieces(self, pieces: Sequence[Any]) -> AsyncIterator[str | Call]:
        for piece in pieces:
            if isinstance(piece, GatewayError):
                raise piece
            if isinstance(piece, str | Call):
                yield piece
            else:
                await piece()


class Client:
    """What a client says, and what it is told."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[Said | None] = asyncio.Queue()
        self.events: list[Conversed] = []
        self.news = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.failed: GatewayError | None = None
        self.over = False

    def say(self, *items: Said | bytes) -> None:
        """Bytes: audio of RATE, in pieces of 20 ms."""
        for item in items:
            if isinstance(item, bytes):
                for at in range(0, len(item), 640):
                    self._said.put_nowait(Audio(item[at : at + 640], RATE))
            else:
                self._said.put_nowait(item)

    def end(self) -> None:
        self._said.put_nowait(None)

    async def said(self) -> AsyncIterator[Said]:
        while (item := await self._said.get()) is not None:
            yield item

    async def read(self, events: AsyncIterator[Conversed]) -> None:
        try:
            while True:
                await self.reading.wait()
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
                self.events.append(event)
                self.news.set()
        except GatewayError as exc:
            self.failed = exc
        finally:
            self.over = True
            self.news.set()

    async def until(self, true: Callable[[], object], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                self.news.clear()
                await self.news.wait()

    async def ended(self, number: int = 1) -> Turn:
        """The end of a turn."""
        await self.until(lambda: self._end(number))
        found = self._end(number)
        assert found is not None
        return found

    def _end(self, number: int) -> Turn | None:
        ends = [one for one in self.turns(number) if one.phase not in (Phase.QUEUED, Phase.WORKING)]
        assert len(ends) <= 1, "a turn ends once"
        return ends[0] if ends else None

    def turns(self, number: int = 1) -> list[Turn]:
        return [event for event in self.events if isinstance(event, Turn) and event.number == number]

    def phases(self, number: int = 1) -> list[Phase]:
        return [one.phase for one in self.turns(number)]

    def text(self, number: int = 1) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ReplyText) and event.turn == number)

    def sentences(self, number: int = 1) -> list[int]:
        """The numbers of the sentences whose audio came, piece by piece."""
        found = [event.audio for event in self.events if isinstance(event, ReplyAudio) and event.turn == number]
        return [int.from_bytes(audio.pcm[:2], "little") for audio in found if isinstance(audio, Audio)]

    def heard(self, final: bool = True) -> list[Transcript]:
        return [event for event in self.events if isinstance(event, Transcript) and event.final is final]


@dataclass
class World:
    """A cascade, and what is below it."""

    cascade: Cascade
    ear: Ear
    mouth: Mouth
    mind: Mind
    scratch: Path

    @asynccontextmanager
    async def talk(self, resume: str = "", **wishes: Any) -> AsyncIterator[Client]:
        """One conversation."""
        client = Client()
        job = Converse(client.said(), resume=resume, wishes=Change("", None, "", True, ()))
        if wishes:
            client.say(Change(**wishes))
        async with self.cascade.session(job) as events, asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(client.read(events))
            try:
                yield client
            finally:
                reading.cancel()

    def idle(self) -> bool:
        """Whether nothing of any turn is left at any engine."""
        at_work = self.ear.open, self.mouth.open, self.mind.open, self.cascade.gate.running, self.cascade.gate.waiting
        return not any(at_work) and not list(self.scratch.iterdir())


def world(scratch: Path, **settings: Any) -> World:
    ear, mouth, mind = Ear(), Mouth(), Mind()
    scratch.mkdir(exist_ok=True)
    chosen = Settings.model_validate({"data_dir": scratch} | settings)
    cascade = Cascade(chosen, ear, mouth, mind, scratch, LoudEars)
    return World(cascade, ear, mouth, mind, scratch)


VOICES: tuple[Preset | Reference, ...] = (Preset("英文女"), Reference(tone(2), RATE, "digest-1"))
