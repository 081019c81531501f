"""Messages between the connection that reads them and the task that takes them: bounded, and none lost."""

from collections import deque
from collections.abc import AsyncIterator

from gateway.recognition import Bell

MOST_HELD = 320_000
"""Bytes that wait to be taken; then who sends them does."""


class Mailbox:
    """Messages between the connection that reads them and the task that takes them; bounded."""

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = Bell()

    async def put(self, data: bytes) -> None:
        """Waits while too much is held. What comes after the end is dropped."""
        while self._size >= MOST_HELD and not self._ended:
            await self._changed.wait()
        if not self._ended:
            self._held.append(data)
            self._size += len(data)
            self._changed.ring()

    def end(self, *, drop: bool = False) -> None:
        """drop: what nobody has taken is not wanted either."""
        self._ended = True
        if drop:
            self._held.clear()
        self._changed.ring()

    async def messages(self) -> AsyncIterator[bytes]:
        while True:
            while self._held:
                data = self._held.popleft()
                self._size -= len(data)
                self._changed.ring()
                yield data
            if self._ended:
                return
            await self._changed.wait()
