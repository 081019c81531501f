"""What a client has sent and nobody has worked through yet: a bounded number of seconds.

A client that sends faster than we work is slowed down: its frames are not read. A client that speaks live cannot be
slowed down, so where audio waits longer than it lasts, we are too slow for it, and say so instead of falling behind
for ever. Both are one number: audio that fills the intake and is worked through in real time waits just that long.
"""

import asyncio
from collections import deque

PIECE = 32 * 1024
"""Bytes of audio that are worked through at once; longer frames are put in pieces."""
_LEAST = 64
"""Bytes that a frame counts as, so that frames without content are bounded too."""


class TooSlow(Exception):
    """The text is for the client."""


class Intake:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._frames: deque[tuple[float, str | bytes]] = deque()
        self._size = 0
        self._changed = asyncio.Condition()
        self.rate = 16_000
        """Hz of the audio that arrives."""

    def __repr__(self) -> str:
        return f"<{len(self._frames)} frames, {self._size} of {self._most} bytes>"

    async def put(self, frame: str | bytes) -> None:
        """Waits for room. One frame is always taken, however long. Raises TooSlow where nothing makes room."""
        async with self._changed:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._changed.wait_for(lambda: not self._frames or self._size + _cost(frame) <= self._most)
            except TimeoutError:
                raise self._too_slow() from None
            self._frames.append((asyncio.get_running_loop().time(), frame))
            self._size += _cost(frame)
            self._changed.notify_all()

    async def get(self) -> str | bytes:
        """The next frame; frames of audio that wait for each other come as one. Raises TooSlow where it has waited
        too long."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._frames))
            since, frame = self._pop()
            while isinstance(frame, bytes) and len(frame) < PIECE and self._frames:
                if not isinstance(self._frames[0][1], bytes):
                    break
                frame += self._pop()[1]  # type: ignore[operator]  # just looked at
            self._changed.notify_all()
        if asyncio.get_running_loop().time() - since > self._seconds:
            raise self._too_slow()
        return frame

    # Private

    def _too_slow(self) -> TooSlow:
        return TooSlow(f"recognition is more than {self._seconds:g} s behind; try again later")

    def _pop(self) -> tuple[float, str | bytes]:
        since, frame = self._frames.popleft()
        self._size -= _cost(frame)
        return since, frame

    @property
    def _most(self) -> int:
        return int(self._seconds * self.rate * 2)


def _cost(frame: str | bytes) -> int:
    return max(len(frame), _LEAST)
