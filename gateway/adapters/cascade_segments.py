"""The stretches of speech that the cascade has recognised one by one.

Rule 1: a segment is at most LONGEST seconds. One that would be longer is cut where it is quietest, and the next goes on
from there.
Rule 2: a segment to which nothing was added for IDLE seconds ends: a recogniser has others to hear than a client that
has stopped sending in the middle of a word.
"""

import asyncio

import numpy as np

from gateway.events import Audio

RATE = 16_000
"""Hz of all that is recognised."""
HOLD_AFTER, LONGEST = 20.0, 28.0
"""Seconds of a segment: between the two it is cut."""
IDLE = 10.0
"""Seconds."""
_WINDOW = 0.1
"""Seconds over which loudness is measured for a cut."""


class Segment:
    """A stretch of speech; an iterator of what arrives of it, for the recogniser. It holds LONGEST seconds at most."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        """All that is ready to be taken, and what was taken of it: it may be needed again."""
        self._taken = 0
        self._held = bytearray()
        """Kept until it is known whether the cut is in it."""
        self.ended = False
        self._changed = asyncio.Event()

    @property
    def seconds(self) -> float:
        """Of what was not taken yet."""
        return (len(self._pcm) - self._taken + len(self._held)) / 2 / RATE

    def add(self, pcm: bytes) -> bytes:
        """What goes beyond this segment's end; the next one begins with it."""
        self._held += pcm
        room = samples(HOLD_AFTER) - len(self._pcm) // 2
        if room > 0:
            self._pass_on(2 * room)
        self._changed.set()
        if len(self._held) < 2 * samples(LONGEST - HOLD_AFTER):
            return b""
        at = 2 * _quietest(self._held[: 2 * samples(LONGEST - HOLD_AFTER)])
        rest = bytes(self._held[at:])
        del self._held[at:]
        self.end()
        return rest

    def end(self) -> None:
        self._pass_on(len(self._held))
        self.ended = True
        self._changed.set()

    async def whole(self) -> bytes:
        """All of it, once it has ended."""
        while not self.ended:
            await self._more()
        return bytes(self._pcm)

    def __aiter__(self) -> "Segment":
        return self

    async def __anext__(self) -> Audio:
        while self._taken == len(self._pcm):
            if self.ended:
                raise StopAsyncIteration
            await self._more()
        pcm = bytes(self._pcm[self._taken :])
        self._taken = len(self._pcm)
        return Audio(pcm, RATE)

    async def _more(self) -> None:
        """Waits until it is added to, or has ended."""
        self._changed.clear()
        try:
            async with asyncio.timeout(IDLE):
                await self._changed.wait()
        except TimeoutError:
            self.end()

    def _pass_on(self, size: int) -> None:
        self._pcm += self._held[:size]
        del self._held[:size]
        self._changed.set()


def samples(seconds: float) -> int:
    return round(seconds * RATE)


# Private


def _quietest(pcm: bytearray) -> int:
    """The sample in the middle of its quietest window."""
    size = samples(_WINDOW)
    heard = np.frombuffer(bytes(pcm), "<i2").astype(np.float32)
    windows = heard[: len(heard) // size * size].reshape(-1, size)
    return int(np.square(windows).mean(axis=1).argmin()) * size + size // 2
