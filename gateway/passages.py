"""A whole recording of any length becomes words, passage by passage, in order, while later ones are still recognised.

Rule 1: a recording that is to be heard in large portions and is short is given to the engine as it is; any other in
pieces (gateway/pieces.py), a few at a time, so that neither its length nor its reader can fill the memory.
Rule 2: where times are wanted, an engine that knows when each word was said is given as much at once as it can take;
another one each utterance by itself, because then it is known at least when that was said. What it answers to the first
shows which it is.
Rule 3: a piece that finds the engine busy or gone is tried again: an hour of work is not lost for one such moment.
Only the first one's failure is told at once, while there still is a status to tell it with.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from gateway.errors import EngineError
from gateway.events import Transcript
from gateway.pieces import LONGEST, Manner, Piece, Pieces, cut_out
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import Recording, Transcribe, Verb

_TRIES = 4


class Portion(Enum):
    """How much an engine is given at once."""

    LARGE = auto()
    """As many utterances as there is room for."""
    TIMED = auto()
    """As many, where the engine tells when each word was said; else each by itself."""
    UTTERANCE = auto()
    """Each by itself."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What was recognised in one piece; times are those of the whole recording."""

    piece: Piece
    said: tuple[Transcript, ...]
    """Final ones, none of them empty."""


@asynccontextmanager
async def recognised(
    transcribe: Verb[Transcribe, Transcript],
    settings: Settings,
    folder: Path,
    job: Transcribe,
    *,
    portion: Portion,
    manner: Manner = Manner(),
) -> AsyncIterator[AsyncIterator[Passage]]:
    """Scope of the recognition of `job.audio`, a Recording; leaving it early cancels what is recognised.

    folder: for the pieces. Raises what the session does.
    """
    assert isinstance(job.audio, Recording)
    if portion is Portion.LARGE and job.audio.seconds <= LONGEST:
        async with aclosing(_only(transcribe, job, Piece(0.0, job.audio.seconds, ()))) as passages:
            yield passages
        return
    pieces = Pieces(job.audio, settings, manner, packed=portion is Portion.LARGE)
    async with task_group(failure=0) as tasks:
        line = _Line(transcribe, job, pieces, folder, settings.transcribe_together)
        working = tasks.create_task(line.work(tasks, learning=portion is Portion.TIMED))
        async with aclosing(line.passages()) as passages:
            yield passages
        working.cancel()
        line.leave()


# Private


async def _only(transcribe: Verb[Transcribe, Transcript], job: Transcribe, piece: Piece) -> AsyncGenerator[Passage]:
    yield Passage(piece, await _said(transcribe, job))


class _Line:
    """Pieces that are recognised side by side, and leave in order."""

    def __init__(
        self, transcribe: Verb[Transcribe, Transcript], job: Transcribe, pieces: Pieces, folder: Path, together: int
    ) -> None:
        self._transcribe, self._job, self._pieces, self._folder = transcribe, job, pieces, folder
        self._places = asyncio.Semaphore(together)
        self._order: asyncio.Queue[asyncio.Task[Passage] | None] = asyncio.Queue()
        """No longer than there are places."""
        self._running: set[asyncio.Task[Passage]] = set()

    async def work(self, tasks: asyncio.TaskGroup, *, learning: bool) -> None:
        """learning: whether an answer is awaited that shows whether pieces may be packed."""
        number = 0
        while True:
            await self._places.acquire()
            if (piece := await self._pieces.next()) is None:
                break
            task = tasks.create_task(self._recognise(piece, number))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            self._order.put_nowait(task)
            if learning and (said := (await asyncio.shield(task)).said):
                self._pieces.packed, learning = any(one.words for one in said), False
            number += 1
        self._order.put_nowait(None)

    async def passages(self) -> AsyncGenerator[Passage]:
        while (task := await self._order.get()) is not None:
            yield await task
            self._places.release()

    def leave(self) -> None:
        """Nobody wants the rest."""
        for task in self._running:
            task.cancel()

    # Private

    async def _recognise(self, piece: Piece, number: int) -> Passage:
        path = self._folder / f"piece-{number}.wav"
        assert isinstance(self._job.audio, Recording)
        job = replace(self._job, audio=await asyncio.to_thread(cut_out, self._job.audio, piece, path))
        said = await (self._patiently(job) if number else _said(self._transcribe, job))
        await asyncio.to_thread(path.unlink)
        return Passage(piece, tuple(_later(one, piece.start) for one in said))

    async def _patiently(self, job: Transcribe) -> tuple[Transcript, ...]:
        for _ in range(_TRIES - 1):
            try:
                return await _said(self._transcribe, job)
            except EngineError as exc:
                if exc.retry_after is None:
                    raise
                await asyncio.sleep(exc.retry_after)
        return await _said(self._transcribe, job)


async def _said(transcribe: Verb[Transcribe, Transcript], job: Transcribe) -> tuple[Transcript, ...]:
    async with transcribe.session(job) as events:
        return tuple([event async for event in events if event.final and event.text.strip()])


def _later(said: Transcript, by: float) -> Transcript:
    return replace(
        said,
        start=None if said.start is None else said.start + by,
        end=None if said.end is None else said.end + by,
        words=tuple(replace(word, start=word.start + by, end=word.end + by) for word in said.words),
    )
