"""Recognition of audio while it arrives, whether or not the engine can.

Engines that hear live audio are given it, and say themselves where utterances begin and end. Others are given each
utterance as a recording (gateway/utterances.py).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from gateway.errors import BadRequest
from gateway.events import Audio, Transcript
from gateway.recogniser import Recogniser
from gateway.segments import RATE
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.utterances import Failed, Final, Utterances
from gateway.verbs import Live, Transcribe, Verb

HELD_SECONDS = 10.0
"""What a microphone holds before its speaker has to wait."""
IDLE_SECONDS = 10.0
"""After so long without a single sample the engine is left; the next sample asks for it again."""
LONGEST = 30.0
"""Seconds of an utterance that such an engine hears at once."""
_PIECE = 2 * 9_600
"""Bytes given on at once, at most."""


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


async def _utterance_by_utterance(
    transcribe: Verb[Transcribe, Transcript],
    settings: Settings,
    scratch: Path,
    pieces: AsyncIterator[Audio],
    language: str,
    heard: Heard,
) -> None:
    recogniser = Recogniser(transcribe, scratch, hears_live=False)
    utterances = Utterances(
        transcribe,
        settings,
        scratch,
        sample_rate=RATE,
        language=language,
        longest=LONGEST,
        recogniser=recogniser,
    )

    async def feed() -> None:
        async for piece in pieces:
            await utterances.feed(piece.pcm)
        await utterances.end()

    number = 0
    async with utterances.at_work(), task_group() as tasks:
        tasks.create_task(feed())
        async for event in utterances.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Final) and event.transcript.text:
                await heard(replace(event.transcript, utterance=number))
                number += 1
