"""A stream of audio on its way into stretches of speech: where each begins, where it ends, and what it holds.

Rule 1: nothing that somebody says is lost: a segment begins before speech was noticed, and ends behind it.
Rule 2: a segment is bounded. One that would be longer is cut where it is quietest, and the next goes on from there.
Rule 3: no sample is in two segments.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gateway.endpointing import Started, Stopped
from gateway.events import Audio

RATE = 16_000
"""Hz of all that is recognised; mono s16le."""
_SEARCHED = 8.0
"""Seconds at the end of the longest segment in which the quietest place is looked for; half of a short one."""
_WINDOW = 0.1
"""Seconds over which loudness is measured for a cut."""
_LOOK_BACK = 1.0
"""Seconds kept of silence besides the padding: it takes that long at most to be sure that somebody speaks."""
_UNNOTICED = 10.0
"""Seconds kept where no speech was noticed at all: what is asked for by hand may be in them."""
_TAIL = 0.2
"""Seconds of the silence behind a segment that belong to it."""
_SHORTEST, _FAINTEST = 0.2, 100
"""What is below these is no speech that was missed: seconds, and the loudest sample (−50 dBFS)."""


class Ears(Protocol):
    """gateway/endpointing.py Endpointer, of RATE."""

    async def feed(self, pcm: bytes) -> Sequence[Started | Stopped]: ...

    def end(self) -> Sequence[Stopped]: ...


class Segment:
    """A stretch of speech. Recognisers read it while it grows, and again from its beginning where that is needed."""

    def __init__(self, start: int, longest: float) -> None:
        """start: its first sample, counted in the stream; longest: seconds."""
        self.start = start
        self._hold_after = samples(longest - min(_SEARCHED, longest / 2))
        self._longest = samples(longest)
        self._pcm = bytearray()
        """All that is ready to be read."""
        self._held = bytearray()
        """Kept until it is known whether the cut is in it."""
        self._read = 0
        self.ended = self.audible = False
        """audible: whether anything in it is louder than what nobody hears."""
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<segment at {self.start / RATE:.1f} s: {self.seconds:.1f} s{', ended' if self.ended else ''}>"

    @property
    def end(self) -> int:
        """The sample behind its last, counted in the stream; it grows until `ended`."""
        return self.start + (len(self._pcm) + len(self._held)) // 2

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / RATE

    @property
    def read(self) -> float:
        """Seconds from the beginning of the stream up to which it was read."""
        return self.start / RATE + self._read / 2 / RATE

    @property
    def unread(self) -> float:
        """Seconds that could be read and were not yet."""
        return (len(self._pcm) - self._read) / 2 / RATE

    def add(self, pcm: bytes) -> bytes:
        """What goes beyond this segment's end; the next one begins with it."""
        self._held += pcm
        self.audible = self.audible or loudest(pcm) >= _FAINTEST
        room = self._hold_after - len(self._pcm) // 2
        if room > 0:
            self._pass_on(2 * room)
        self._changed.set()
        room = self._longest - self._hold_after
        if len(self._held) < 2 * room:
            return b""
        at = 2 * quietest(bytes(self._held[: 2 * room]))
        rest = bytes(self._held[at:])
        del self._held[at:]
        self.close()
        return rest

    def close(self, at: int | None = None) -> None:
        """Nothing more belongs to it; at: nor what is behind this sample of the stream and was not read yet."""
        self._pass_on(len(self._held))
        if at is not None:
            del self._pcm[max(self._read, 2 * (at - self.start)) :]
        self.ended = True
        self._changed.set()

    async def whole(self) -> bytes:
        """All of it, once it has ended."""
        while not self.ended:
            await self._more()
        return bytes(self._pcm)

    async def heard(self) -> bool:
        """Waits for a sound in it; False where it has ended without."""
        while not self.audible and not self.ended:
            await self._more()
        return self.audible

    def __aiter__(self) -> "Segment":
        """From its beginning, as it grows, to its end. One reader at a time."""
        self._read = 0
        return self

    async def __anext__(self) -> Audio:
        while self._read == len(self._pcm):
            if self.ended:
                raise StopAsyncIteration
            await self._more()
        pcm = bytes(self._pcm[self._read :])
        self._read = len(self._pcm)
        return Audio(pcm, RATE)

    # Private

    async def _more(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _pass_on(self, size: int) -> None:
        self._pcm += self._held[:size]
        del self._held[:size]


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
        return len(rest) // 2 >= samples(_SHORTEST) and loudest(bytes(rest)) >= _FAINTEST


def samples(seconds: float) -> int:
    return round(seconds * RATE)


def loudest(pcm: bytes) -> int:
    """The loudest sample, 0 to 32768."""
    heard = np.frombuffer(pcm, "<i2")
    return max(int(heard.max()), -int(heard.min())) if len(heard) else 0


def quietest(pcm: bytes) -> int:
    """The sample in the middle of its quietest window."""
    size = min(samples(_WINDOW), len(pcm) // 2)
    heard = np.frombuffer(pcm, "<i2").astype(np.float32)
    windows = heard[: len(heard) // size * size].reshape(-1, size)
    return int(np.square(windows).mean(axis=1).argmin()) * size + size // 2
