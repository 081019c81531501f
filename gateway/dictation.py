"""Recognition of audio while it arrives, whether or not the engine can.

Engines that hear live audio are given it. Others are given each utterance as a recording once it has ended, or after
LONGEST seconds of it; where one begins and ends is gateway/endpointing.py's to say.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway import cleanup
from gateway.endpointing import Endpointer, Started
from gateway.errors import BadRequest
from gateway.events import Audio, Transcript
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import Live, Recording, Transcribe, Verb
from gateway.wire import wav

RATE = 16_000
"""Hz of everything here; mono s16le."""
HELD_SECONDS = 10.0
"""What a microphone holds before its speaker has to wait."""
IDLE_SECONDS = 10.0
"""After so long without a single sample the engine is left; the next sample asks for it again."""
LONGEST, SEARCHED = 30.0, 5.0
"""Seconds of an utterance that an engine hears at once, and of its end in which the quietest place is cut."""
_KEPT = 5.0
"""Seconds of silence before an utterance that it may still reach back into."""
_WAITING = 2
"""Utterances that may wait for the engine; then the speaker does."""
_PIECE = 2 * 9_600
"""Bytes given on at once, at most."""
_WINDOW = 320
"""Samples over which loudness is measured."""


class Microphone:
    """Between a client that sends and an engine that hears: holds at most HELD_SECONDS and one message more."""

    def __init__(self, idle: float = IDLE_SECONDS) -> None:
        self._idle = idle
        self.ended = False
        self._held = bytearray()
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()

    async def put(self, pcm: bytes) -> None:
        """Any number of bytes; half a sample waits for its other half. Waits while too much is held."""
        while len(self._held) >= 2 * RATE * HELD_SECONDS:
            self._emptied.clear()
            await self._emptied.wait()
        self._held += pcm
        self._filled.set()

    def end(self) -> None:
        self.ended = True
        self._filled.set()

    async def spoken(self) -> bool:
        """Waits for the next sample; False where none will come."""
        while len(self._held) < 2:
            if self.ended:
                return False
            self._filled.clear()
            await self._filled.wait()
        return True

    async def pieces(self) -> AsyncGenerator[Audio]:
        """What was put, up to the end or the first idle time."""
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    if not await self.spoken():
                        return
            except TimeoutError:
                return
            pcm = bytes(self._held[: min(_PIECE, len(self._held) & ~1)])
            del self._held[: len(pcm)]
            self._emptied.set()
            yield Audio(pcm, RATE)


Heard = Callable[[Transcript], Awaitable[None]]


async def dictate(
    transcribe: Verb[Transcribe, Transcript],
    settings: Settings,
    scratch: Path,
    pieces: AsyncIterator[Audio],
    language: str,
    heard: Heard,
) -> None:
    """Tells `heard` every Transcript of what `pieces` say, partials among them where the engine has such.

    Raises what the session does: EngineBusy, EngineBroke, …
    """
    try:
        async with transcribe.session(Transcribe(Live(pieces, RATE), language, partials=True)) as events:
            async for event in events:
                await heard(event)
            return
    except BadRequest as exc:
        if exc.code != "live_unsupported":
            raise
    await _utterance_by_utterance(transcribe, settings, scratch, pieces, language, heard)


# Private


@dataclass(frozen=True, slots=True)
class _Utterance:
    pcm: bytes
    start: float
    """Seconds from the start of the audio."""


async def _utterance_by_utterance(
    transcribe: Verb[Transcribe, Transcript],
    settings: Settings,
    scratch: Path,
    pieces: AsyncIterator[Audio],
    language: str,
    heard: Heard,
) -> None:
    waiting: asyncio.Queue[_Utterance | None] = asyncio.Queue(_WAITING)

    async def cut() -> None:
        cutter = _Cutter(settings)
        async for piece in pieces:
            for utterance in await cutter.feed(piece.pcm):
                await waiting.put(utterance)
        for utterance in cutter.end():
            await waiting.put(utterance)
        await waiting.put(None)

    number = 0
    async with cleanup.workspace(scratch) as folder, task_group() as tasks:
        tasks.create_task(cut())
        while (utterance := await waiting.get()) is not None:
            recording = await asyncio.to_thread(_recording, folder / "utterance.wav", utterance.pcm)
            async with transcribe.session(Transcribe(recording, language)) as events:
                found = [event async for event in events if event.final and event.text]
            if found:
                text, end = " ".join(one.text for one in found), utterance.start + recording.seconds
                await heard(Transcript(text, found[0].language, utterance=number, start=utterance.start, end=end))
                number += 1


def _recording(path: Path, pcm: bytes) -> Recording:
    """Blocks."""
    path.write_bytes(wav.header(RATE, len(pcm) // 2) + pcm)
    return Recording(path, RATE, len(pcm) // 2)


class _Cutter:
    """Audio in, utterances out."""

    def __init__(self, settings: Settings) -> None:
        self._ears = Endpointer(settings, RATE)
        self._padding = settings.endpoint_padding
        self._held = bytearray()
        self._first = 0
        """Number of the first sample held."""
        self._speaking = False

    async def feed(self, pcm: bytes) -> list[_Utterance]:
        self._held += pcm
        found = []
        for edge in await self._ears.feed(pcm):
            if isinstance(edge, Started):
                self._drop(_sample(edge.at))
                self._speaking = True
            else:
                found.append(self._take(_sample(edge.at + self._padding)))
                self._speaking = False
        if not self._speaking:
            self._drop(self._first + len(self._held) // 2 - _sample(_KEPT))
        while self._speaking and len(self._held) // 2 > _sample(LONGEST):
            found.append(self._take(self._first + _quietest(self._held)))
        return found

    def end(self) -> list[_Utterance]:
        return [self._take(self._first + len(self._held) // 2)] if self._ears.end() and self._held else []

    # Private

    def _drop(self, before: int) -> None:
        """What comes before that sample."""
        count = min(max(0, before - self._first), len(self._held) // 2)
        del self._held[: 2 * count]
        self._first += count

    def _take(self, before: int) -> _Utterance:
        start, count = self._first / RATE, max(0, before - self._first)
        pcm = bytes(self._held[: 2 * count])
        self._drop(before)
        return _Utterance(pcm, start)


def _sample(seconds: float) -> int:
    return round(seconds * RATE)


def _quietest(pcm: Any) -> int:
    """Sample in the last SEARCHED of the first LONGEST seconds where a cut hurts least."""
    start = _sample(LONGEST - SEARCHED)
    samples = np.frombuffer(bytes(pcm[2 * start : 2 * _sample(LONGEST)]), "<i2").astype(np.float32)
    windows = samples[: len(samples) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    return start + int(np.argmin((windows**2).mean(axis=1))) * _WINDOW + _WINDOW // 2
