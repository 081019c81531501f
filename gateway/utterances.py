"""A stream of audio, cut where its speaker pauses, and each utterance recognised while it is being said.

Rule 1: silence costs nothing at the recogniser.
Rule 2: an utterance that fails is a Failed, and the stream goes on.
Rule 3: what is held is bounded: `feed` waits where the recogniser, or the reader of `events`, is too far behind.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gateway.endpointing import Endpointer
from gateway.errors import GatewayError
from gateway.events import Transcript
from gateway.recogniser import Recogniser
from gateway.recognition import Bell, Outcome, Recognition, Utterance
from gateway.resample import Resampler
from gateway.segments import RATE, Cutter, Ears, Segment
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import Transcribe, Verb

MOST_BEHIND = 10.0
"""Seconds that the recogniser could have taken and has not; then `feed` waits."""
MOST_UNTOLD = 64
"""Events that nobody has taken; then `feed` waits."""
IDLE = 10.0
"""Seconds without a sample after which no recogniser is held any more: what is being said ends, or where only `commit`
ends it, is recognised as a recording then."""
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
        recogniser: Recogniser | None = None,
        ears: Ears | None = None,
        latest: float | None = None,
    ) -> None:
        """sample_rate: Hz of what will be fed; silence, threshold, padding: of the endpointer, None for the settings';
        manual: only `commit` ends an utterance; longest: seconds after which one is cut; recogniser: one that knows the
        engine already; ears: in place of the endpointer; latest: seconds that are kept for a recogniser that is too
        slow, Failed (code LEFT_OUT) what was before them, and `feed` never waits. The others: see Transcribe."""
        ears = ears or Endpointer(settings, RATE, silence=silence, threshold=threshold, padding=padding)
        kept = settings.endpoint_padding if padding is None else padding
        self._cutter = Cutter(None if manual else ears, padding=kept, longest=longest)
        self._manual, self._latest = manual, latest
        self._changed = Bell()
        ask = partial(
            Transcribe,
            language=language,
            hotwords=tuple(hotwords),
            partials=partials,
            itn=itn,
            punctuation=punctuation,
            words=words,
        )
        self._recognition = Recognition(
            recogniser or Recogniser(transcribe, scratch),
            ask,
            self._changed,
            silent=manual,
            heard=self._tell_partial,
            found=self._tell_outcome,
        )
        self._resampler = Resampler(sample_rate, RATE)
        self._block = 2 * max(1, round(_BLOCK * sample_rate))
        self._half = b""
        self._current: Utterance | None = None
        """The one that is being said."""
        self._untold: deque[Heard] = deque()
        self._fed = 0.0
        """Loop time of the last sample."""
        self._waits = False
        """Whether it is we who keep the speaker waiting."""
        self.begun = 0
        """Utterances so far."""
        self._ended = self._over = False
        """No more audio; no more events."""

    def __repr__(self) -> str:
        unfinished = len(self._recognition.unfinished)
        return f"<utterances: {self.begun} begun, {unfinished} unfinished, {len(self._untold)} untold>"

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
            self._finish()

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
        return await self._cut(missed=True)

    def clear(self) -> None:
        """Drops what is being said: nothing more is told of it."""
        self._resampler.feed(b"", last=True)
        self._half = b""
        self._cutter.drop()
        if (dropped := self._current) is not None:
            self._current = None
            self._untold = deque(event for event in self._untold if event.number != dropped.number)
            self._recognition.drop(dropped)

    async def end(self) -> None:
        """No more audio. What is left is recognised, then `events` ends."""
        if not self._ended:
            await self._cut(missed=False)
            self._ended = True
            self._recognition.end()

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
        while self._latest is None and not self._over and self._too_much:
            self._waits = True
            try:
                await self._changed.wait()
            finally:
                self._waits, self._fed = False, asyncio.get_running_loop().time()

    @property
    def _too_much(self) -> bool:
        return len(self._untold) >= MOST_UNTOLD or self._recognition.behind > MOST_BEHIND

    async def _hear(self, pcm: bytes) -> None:
        if pcm and not self._over:
            self._fed = asyncio.get_running_loop().time()
            self._note(await self._cutter.feed(pcm))

    async def _cut(self, *, missed: bool) -> bool:
        await self._hear(self._resampler.feed(b"", last=True))
        return self._cut_now(missed=missed)

    def _cut_now(self, *, missed: bool) -> bool:
        was, begun = self._current, [] if self._over else self._cutter.cut(missed=missed)
        self._note(begun)
        return was is not None or bool(begun)

    def _note(self, begun: Sequence[Segment]) -> None:
        self._note_end()
        for segment in begun:
            self._current = self._recognition.add(self.begun, segment)
            self._tell(Began(self.begun, segment.start / RATE))
            self.begun += 1
            self._note_end()
        if self._latest is not None:
            self._recognition.keep(self._latest)
        self._changed.ring()

    def _note_end(self) -> None:
        if self._current is not None and self._current.segment.ended:
            self._tell(Ended(self._current.number, self._current.segment.end / RATE))
            self._current = None

    async def _watch(self) -> None:
        """Frees the recogniser of a client that has stopped sending in the middle of a word."""
        loop = asyncio.get_running_loop()
        while True:
            left = self._fed + IDLE - loop.time()
            if left <= 0 and self._current is not None and not self._waits:
                if self._manual:
                    self._current.rest()
                else:
                    self._cut_now(missed=False)
            await asyncio.sleep(max(left, IDLE / 10))

    # Private: what is told

    async def _work(self) -> None:
        await self._recognition.work()
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._changed.ring()

    def _tell(self, event: Heard) -> None:
        self._untold.append(event)
        self._changed.ring()

    def _tell_partial(self, utterance: Utterance, text: str) -> None:
        """In place of one that nobody has taken yet."""
        event = Partial(utterance.number, text, utterance.segment.read)
        for at, untold in enumerate(self._untold):
            if isinstance(untold, Partial) and untold.number == event.number:
                self._untold[at] = event
                return
        self._tell(event)

    def _tell_outcome(self, utterance: Utterance, outcome: Outcome) -> None:
        if isinstance(outcome, Transcript):
            self._tell(Final(utterance.number, outcome))
        else:
            self._tell(Failed(utterance.number, outcome))

    def _known(self, number: int) -> bool:
        """Whether there is, or may be, something to tell of it."""
        return any(one.number == number for one in (*self._recognition.unfinished, *self._untold))
