"""A stretch of speech, and what it holds while it grows: of what is recognised at once, it is the unit.

A segment is bounded. One that would be longer is cut where it is quietest, and the next goes on from there.
"""

import asyncio

import numpy as np

from gateway.events import Audio

RATE = 16_000
"""Hz of all that is recognised; mono s16le."""
_SEARCHED = 8.0
"""Seconds at the end of the longest segment in which the quietest place is looked for; half of a short one."""
_WINDOW = 0.1
"""Seconds over which loudness is measured for a cut."""
FAINTEST = 100
"""The loudest sample of what nobody hears (−50 dBFS)."""


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
        self.audible = self.audible or loudest(pcm) >= FAINTEST
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
