"""A stream of audio on its way into segments: where each begins, and where it ends.

Rule 1: nothing that somebody says is lost: a segment begins before speech was noticed, and ends behind it.
Rule 2: no sample is in two segments.
"""

from collections.abc import Sequence
from typing import Protocol

from gateway.endpointing import Started, Stopped
from gateway.segments import FAINTEST, Segment, loudest, samples

_LOOK_BACK = 1.0
"""Seconds kept of silence besides the padding: it takes that long at most to be sure that somebody speaks."""
_UNNOTICED = 10.0
"""Seconds kept where no speech was noticed at all: what is asked for by hand may be in them."""
_TAIL = 0.2
"""Seconds of the silence behind a segment that belong to it."""
_SHORTEST = 0.2
"""Seconds; what is shorter is no speech that was missed."""


class Ears(Protocol):
    """gateway/endpointing.py Endpointer, of RATE."""

    async def feed(self, pcm: bytes) -> Sequence[Started | Stopped]: ...

    def end(self) -> Sequence[Stopped]: ...


class Cutter:
    """One stream's audio in, its segments out."""

    def __init__(self, ears: Ears | None, *, padding: float, longest: float) -> None:
        """ears: None cuts by hand only; padding: seconds that speech may begin before it is noticed."""
        self._ears, self._longest = ears, longest
        self._look_back = samples(padding + _LOOK_BACK)
        self._tape = bytearray()
        self._tape_from = 0
        """Sample that the tape begins with, counted in the stream."""
        self._taken = 0
        """Sample up to which segments have been given what was said."""
        self._noticed = False
        """Whether any speech was, since the last cut by hand."""
        self._begun: list[Segment] = []
        self.segment: Segment | None = None
        """The one that still grows."""

    @property
    def now(self) -> int:
        """Samples that were fed."""
        return self._tape_from + len(self._tape) // 2

    async def feed(self, pcm: bytes) -> list[Segment]:
        """The segments that begin with what these bytes, whole samples, make certain. Some of them may have ended."""
        self._tape += pcm
        if self._ears is None:
            self._open(self._taken)
        else:
            self._note(await self._ears.feed(pcm))
        if self.segment is not None:
            self._give(self.now)
        self._forget()
        return self._told()

    def cut(self, *, missed: bool) -> list[Segment]:
        """What is being said ends here. missed: also where no speech was noticed since the last cut; then the segment
        that begins with it, if there is any sound."""
        if self._ears is not None:
            self._note(self._ears.end())
        self._close(self.now)
        if missed and not self._noticed and self._missed():
            self._open(self._tape_from)
            self._close(self.now)
        self._noticed = False
        return self._told()

    def drop(self) -> None:
        """What is being said is none."""
        if self._ears is not None:
            self._ears.end()
        self.segment, self._noticed, self._taken = None, False, self.now

    # Private

    def _told(self) -> list[Segment]:
        begun, self._begun = self._begun, []
        return begun

    def _note(self, moments: Sequence[Started | Stopped]) -> None:
        for moment in moments:
            if isinstance(moment, Started):
                self._open(samples(moment.at))
            else:
                self._close(min(self.now, samples(moment.at + _TAIL)))

    def _open(self, at: int) -> None:
        """A segment begins at that sample; what an earlier one was given is not given again."""
        self._noticed = True
        if self.segment is None:
            self._taken = max(self._taken, self._tape_from, at)
            self.segment = self._begin()

    def _begin(self) -> Segment:
        segment = Segment(self._taken, self._longest)
        self._begun.append(segment)
        return segment

    def _close(self, at: int) -> None:
        if self.segment is not None:
            self._give(at)
            self.segment.close(at)
            self._taken = self.segment.end
            self.segment = None

    def _give(self, until: int) -> None:
        assert self.segment is not None
        if until <= self._taken:
            return
        begin = 2 * (self._taken - self._tape_from)
        rest = bytes(self._tape[begin : begin + 2 * (until - self._taken)])
        while rest := self.segment.add(rest):
            self._taken = self.segment.end
            self.segment = self._begin()
        self._taken = until

    def _forget(self) -> None:
        keep = self._look_back if self._noticed else max(self._look_back, samples(_UNNOTICED))
        surplus = len(self._tape) // 2 - keep
        if surplus > 0:
            del self._tape[: 2 * surplus]
            self._tape_from += surplus

    def _missed(self) -> bool:
        rest = self._tape[2 * max(0, self._taken - self._tape_from) :]
        return len(rest) // 2 >= samples(_SHORTEST) and loudest(bytes(rest)) >= FAINTEST
