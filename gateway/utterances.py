"""A stream of audio, cut where its speaker pauses, and each utterance recognised while it is being said.

Rule 1: silence costs nothing at the recogniser.
Rule 2: an utterance that fails is a Failed, and the stream goes on.
Rule 3: what is held is bounded: `feed` waits where the recogniser, or the reader of `events`, is too far behind.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from gateway.cutter import Cutter, Ears
from gateway.endpointing import Endpointer
from gateway.events import Transcript
from gateway.heard import Began as Began
from gateway.heard import Ended as Ended
from gateway.heard import Failed as Failed
from gateway.heard import Final as Final
from gateway.heard import Heard as Heard
from gateway.heard import Partial as Partial
from gateway.heard import Untold
from gateway.recogniser import Recogniser
from gateway.recognition import Bell, Outcome, Recognition, Utterance
from gateway.resample import Resampler
from gateway.segments import RATE, Segment
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
        self._untold = Untold(self._changed)
        self._fed = 0.0
        """Loop time of the last sample."""
        self._waits = False
        """Whether it is we who keep the speaker waiting."""
        self.begun = 0
        """Utterances so far."""
        self._ended = False
        """No more audio."""

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
            self._recognition.leave()
            self._untold.end()

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
            self._untold.drop(dropped.number)
            self._recognition.drop(dropped)

    async def end(self) -> None:
        """No more audio. What is left is recognised, then `events` ends."""
        if not self._ended:
            await self._cut(missed=False)
            self._ended = True
            self._recognition.end()

    def events(self) -> AsyncGenerator[Heard]:
        """In order for each utterance: Began, Ended, Final or Failed, with Partials in between; of those that were not
        taken in time the latest. The next utterance may begin before the last is final; see `events_in_turn`."""
        return self._untold.take()

    def events_in_turn(self) -> AsyncGenerator[Heard]:
        """The same, one utterance after the other: nothing of the next before the last is final or has failed."""
        return self._untold.take_in_turn(self._known)

    # Private: what is said

    async def _room(self) -> None:
        while self._latest is None and not self._untold.over and self._too_much:
            self._waits = True
            try:
                await self._changed.wait()
            finally:
                self._waits, self._fed = False, asyncio.get_running_loop().time()

    @property
    def _too_much(self) -> bool:
        return len(self._untold) >= MOST_UNTOLD or self._recognition.behind > MOST_BEHIND

    async def _hear(self, pcm: bytes) -> None:
        if pcm and not self._untold.over:
            self._fed = asyncio.get_running_loop().time()
            self._note(await self._cutter.feed(pcm))

    async def _cut(self, *, missed: bool) -> bool:
        await self._hear(self._resampler.feed(b"", last=True))
        return self._cut_now(missed=missed)

    def _cut_now(self, *, missed: bool) -> bool:
        was, begun = self._current, [] if self._untold.over else self._cutter.cut(missed=missed)
        self._note(begun)
        return was is not None or bool(begun)

    def _note(self, begun: Sequence[Segment]) -> None:
        self._note_end()
        for segment in begun:
            self._current = self._recognition.add(self.begun, segment)
            self._untold.tell(Began(self.begun, segment.start / RATE))
            self.begun += 1
            self._note_end()
        if self._latest is not None:
            self._recognition.keep(self._latest)
        self._changed.ring()

    def _note_end(self) -> None:
        if self._current is not None and self._current.segment.ended:
            self._untold.tell(Ended(self._current.number, self._current.segment.end / RATE))
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
        self._untold.end()

    def _tell_partial(self, utterance: Utterance, text: str) -> None:
        self._untold.tell(Partial(utterance.number, text, utterance.segment.read))

    def _tell_outcome(self, utterance: Utterance, outcome: Outcome) -> None:
        if isinstance(outcome, Transcript):
            self._untold.tell(Final(utterance.number, outcome))
        else:
            self._untold.tell(Failed(utterance.number, outcome))

    def _known(self, number: int) -> bool:
        return self._untold.about(number) or any(one.number == number for one in self._recognition.unfinished)
