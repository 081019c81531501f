"""A stream of audio, cut where its speaker pauses, and each utterance recognised while it is being said.

Rule 1: silence costs nothing at the recogniser.
Rule 2: while an utterance is still being finished the next one is heard already, and no third.
Rule 3: an utterance that fails is a Failed, and the stream goes on.
Rule 4: what is held is bounded: `feed` waits where the recogniser, or the reader of `events`, is too far behind.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog

from gateway import cleanup
from gateway.endpointing import Endpointer
from gateway.errors import GatewayError
from gateway.events import Transcript
from gateway.recogniser import Recogniser
from gateway.resample import Resampler
from gateway.segments import RATE, Cutter, Segment
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import Live, Transcribe, Verb

log = structlog.get_logger(__name__)

MOST_BEHIND = 10.0
"""Seconds that the recogniser could have taken and has not; then `feed` waits."""
MOST_UNTOLD = 64
"""Events that nobody has taken; then `feed` waits."""
IDLE = 10.0
"""Seconds without a sample after which no recogniser is held any more: what is being said ends, or where only `commit`
ends it, is recognised as a recording then."""
_AT_ONCE = 2
"""Utterances of a stream at the recogniser: one that is being finished, one that is being said."""
_BLOCK = 0.6
"""Seconds that are cut at a time."""


@dataclass(frozen=True, slots=True)
class Began:
    number: int
    """Counts from 0. One that was cleared leaves a gap."""
    at: float
    """Seconds from the first sample of the stream, here and below."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What is said so far, as it seems; the next one of its number replaces it."""

    number: int
    text: str = field(repr=False)
    at: float
    """Up to where the recogniser was given the stream."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Its text is still to come."""

    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Final:
    number: int
    transcript: Transcript = field(repr=False)
    """Text empty where no words were said; `utterance` is the number, start and end are always known."""


@dataclass(frozen=True, slots=True)
class Failed:
    number: int
    error: GatewayError


Heard = Began | Partial | Ended | Final | Failed


@dataclass(eq=False, slots=True)
class _Utterance:
    number: int
    segment: Segment
    live: bool = True
    """Whether it is heard while it is said; else once it is whole."""
    taken: bool = False
    """Whether the recogniser has all of it."""
    deadline: asyncio.Timeout | None = None
    """Of its live session."""
    task: asyncio.Task[None] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def behind(self) -> float:
        """Seconds of it that the recogniser could have taken."""
        if self.taken or (not self.live and not self.segment.ended):
            return 0.0
        return self.segment.unread if self.live else self.segment.seconds


class Utterances:
    """One stream. feed, commit, clear and end are for one task, `events` for another; both within `at_work`."""

    def __init__(
        self,
        transcribe: Verb[Transcribe, Transcript],
        settings: Settings,
        scratch: Path,
        *,
        sample_rate: int,
        language: str = "",
        hotwords: Sequence[str] = (),
        itn: bool = True,
        punctuation: bool = True,
        words: bool = False,
        partials: bool = True,
        silence: float | None = None,
        threshold: float | None = None,
        padding: float | None = None,
        manual: bool = False,
        longest: float = 60.0,
    ) -> None:
        """sample_rate: Hz of what will be fed; silence, threshold, padding: of the endpointer, None for the settings';
        manual: only `commit` ends an utterance; longest: seconds after which one is cut. The others: see Transcribe."""
        ears = Endpointer(settings, RATE, silence=silence, threshold=threshold, padding=padding)
        kept = settings.endpoint_padding if padding is None else padding
        self._cutter = Cutter(None if manual else ears, padding=kept, longest=longest)
        self._manual = manual
        self._recogniser = Recogniser(transcribe, partial(cleanup.workspace, scratch))
        self._wishes = partial(
            Transcribe,
            language=language,
            hotwords=tuple(hotwords),
            partials=partials,
            itn=itn,
            punctuation=punctuation,
            words=words,
        )
        self._resampler = Resampler(sample_rate, RATE)
        self._block = 2 * max(1, round(_BLOCK * sample_rate))
        self._half = b""
        self._count = 0
        self._current: _Utterance | None = None
        """The one that is being said."""
        self._unfinished: list[_Utterance] = []
        """In order; those without a task wait for a place at the recogniser."""
        self._untold: deque[Heard] = deque()
        self._changed = _Bell()
        self._fed = 0.0
        """Loop time of the last sample."""
        self._waits = False
        """Whether it is we who keep the speaker waiting."""
        self._ended = self._over = False
        """No more audio; no more events."""

    def __repr__(self) -> str:
        return f"<utterances: {self._count} begun, {len(self._unfinished)} unfinished, {len(self._untold)} untold>"

    @property
    def now(self) -> float:
        """Seconds of audio that were fed and looked at."""
        return self._cutter.now / RATE

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Scope in which utterances are recognised; leaving it early leaves the recogniser at once."""
        try:
            async with task_group() as tasks:
                working = [tasks.create_task(self._work()), tasks.create_task(self._watch())]
                try:
                    yield
                finally:
                    for task in working:
                        task.cancel()
        finally:
            self._over = True
            self._changed.ring()

    async def feed(self, pcm: bytes) -> None:
        """Mono s16le, any number of bytes; half a sample waits for its other half. Waits while too much is held."""
        pcm = self._half + pcm
        whole = len(pcm) & ~1
        self._half = pcm[whole:]
        for at in range(0, whole, self._block):
            await self._room()
            await self._hear(self._resampler.feed(pcm[at : min(whole, at + self._block)]))

    async def commit(self) -> bool:
        """What is being said ends here. False where there was nothing."""
        await self._hear(self._resampler.feed(b"", last=True))
        return self._cut(missed=True)

    def clear(self) -> None:
        """Drops what is being said: nothing more is told of it."""
        self._resampler.feed(b"", last=True)
        self._half = b""
        self._cutter.drop()
        if (dropped := self._current) is not None:
            self._current = None
            self._untold = deque(event for event in self._untold if event.number != dropped.number)
            dropped.segment.close()
            dropped.taken = True
            if dropped.task is not None:
                dropped.task.cancel()
            else:
                self._finish(dropped)

    async def end(self) -> None:
        """No more audio. What is left is recognised, then `events` ends."""
        if not self._ended:
            await self._hear(self._resampler.feed(b"", last=True))
            self._cut(missed=False)
            self._ended = True
            self._changed.ring()

    async def events(self) -> AsyncGenerator[Heard]:
        """In order for each utterance: Began, Ended, Final or Failed, with Partials in between; of those that were not
        taken in time the latest. The next utterance may begin before the last is final; see `events_in_turn`."""
        while True:
            while self._untold:
                event = self._untold.popleft()
                self._changed.ring()
                yield event
            if self._over:
                return
            await self._changed.wait()

    async def events_in_turn(self) -> AsyncGenerator[Heard]:
        """The same, one utterance after the other: nothing of the next before the last is final or has failed."""
        held: dict[int, list[Heard]] = {}
        current: int | None = None
        async for event in self.events():
            if current is not None and event.number != current and not self._known(current):
                current = None  # it was cleared
            of_it = held.setdefault(event.number, [])
            if of_it and isinstance(event, Partial) and isinstance(of_it[-1], Partial):
                of_it.pop()
            of_it.append(event)
            while held and current in (None, min(held)):
                current = min(held)
                for one in held.pop(current):
                    yield one
                    if isinstance(one, Final | Failed):
                        current = None

    # Private: what is said

    async def _room(self) -> None:
        while not self._over and (
            len(self._untold) >= MOST_UNTOLD or sum(one.behind for one in self._unfinished) > MOST_BEHIND
        ):
            self._waits = True
            try:
                await self._changed.wait()
            finally:
                self._waits, self._fed = False, asyncio.get_running_loop().time()

    async def _hear(self, pcm: bytes) -> None:
        if pcm:
            self._fed = asyncio.get_running_loop().time()
            self._note(await self._cutter.feed(pcm))

    def _cut(self, *, missed: bool) -> bool:
        was, begun = self._current, self._cutter.cut(missed=missed)
        self._note(begun)
        return was is not None or bool(begun)

    def _note(self, begun: Sequence[Segment]) -> None:
        self._note_end()
        for segment in begun:
            utterance = _Utterance(self._count, segment, self._recogniser.hears_live)
            self._count += 1
            self._current = utterance
            self._unfinished.append(utterance)
            self._tell(Began(utterance.number, segment.start / RATE))
            self._note_end()
        self._changed.ring()

    def _note_end(self) -> None:
        if self._current is not None and self._current.segment.ended:
            self._tell(Ended(self._current.number, self._current.segment.end / RATE))
            self._current = None

    def _tell(self, event: Heard) -> None:
        self._untold.append(event)
        self._changed.ring()

    async def _watch(self) -> None:
        """Frees the recogniser of a client that has stopped sending in the middle of a word."""
        loop = asyncio.get_running_loop()
        while True:
            left = self._fed + IDLE - loop.time()
            if left <= 0 and self._current is not None and not self._waits:
                if not self._manual:
                    self._cut(missed=False)
                elif self._current.deadline is not None:
                    self._current.deadline.reschedule(loop.time())
            await asyncio.sleep(max(left, IDLE / 10))

    # Private: what is recognised

    async def _work(self) -> None:
        before: _Utterance | None = None
        async with task_group() as tasks:
            while (utterance := await self._next()) is not None:
                utterance.task = tasks.create_task(self._recognise(utterance, before))
                utterance.task.add_done_callback(partial(self._left, utterance))
                before = utterance
        self._over = True
        self._changed.ring()

    def _left(self, utterance: _Utterance, _: asyncio.Task[None]) -> None:
        self._finish(utterance)

    async def _next(self) -> _Utterance | None:
        """The next for which there is a place. None where no more will come."""
        while True:
            running = sum(one.task is not None for one in self._unfinished)
            if running < (1 if self._recogniser.crowded else _AT_ONCE):
                if running < len(self._unfinished):
                    return self._unfinished[running]
                if self._ended:
                    return None
            await self._changed.wait()

    async def _recognise(self, utterance: _Utterance, before: _Utterance | None) -> None:
        segment, number = utterance.segment, utterance.number
        outcome: Final | Failed
        try:
            found = await self._found(utterance, before)
            start = segment.start / RATE if found.start is None else found.start
            end = segment.end / RATE if found.end is None else found.end
            outcome = Final(number, replace(found, utterance=number, start=start, end=end))
        except GatewayError as exc:
            outcome = Failed(number, exc)
        except Exception:
            log.exception("recognition failed")
            outcome = Failed(number, GatewayError())
        utterance.taken = True
        self._changed.ring()
        await segment.whole()  # it may have failed in the middle: its end is told first
        self._tell(outcome)

    async def _found(self, utterance: _Utterance, before: _Utterance | None) -> Transcript:
        segment, job = utterance.segment, self._wishes(Live(utterance.segment, RATE))
        if self._manual:
            utterance.live = False
            if not await segment.heard():
                return Transcript("", "")
            utterance.live = self._recogniser.hears_live
        found = await self._live(utterance, job)
        utterance.live = False
        self._changed.ring()
        if found is None:
            if before is not None:
                await before.done.wait()  # one after the other: there may be one place for us
            await segment.whole()
            utterance.taken = True
            self._changed.ring()
            found = await self._recogniser.whole(segment, job)
        return found

    async def _live(self, utterance: _Utterance, job: Transcribe) -> Transcript | None:
        """None where it has to be recognised as a recording."""

        def tell(text: str) -> None:
            self._tell_partial(Partial(utterance.number, text, utterance.segment.read))

        try:
            async with asyncio.timeout(None) as utterance.deadline:
                return await self._recogniser.live(utterance.segment, job, tell)
        except TimeoutError:
            return None
        finally:
            utterance.deadline = None

    def _tell_partial(self, event: Partial) -> None:
        """In place of one that nobody has taken yet."""
        for at, untold in enumerate(self._untold):
            if isinstance(untold, Partial) and untold.number == event.number:
                self._untold[at] = event
                return
        self._tell(event)

    def _known(self, number: int) -> bool:
        """Whether there is, or may be, something to tell of it."""
        return any(one.number == number for one in (*self._unfinished, *self._untold))

    def _finish(self, utterance: _Utterance) -> None:
        utterance.done.set()
        self._unfinished.remove(utterance)
        self._changed.ring()


class _Bell:
    """Wakes everybody who waits for it now."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event.clear()

    async def wait(self) -> None:
        await self._event.wait()
