"""Who may use an engine now, who may wait, and who is refused. The `repr` is the specification; tests read it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import EngineBusy


class Gate:
    """At most `slots` at a time inside, at most `queue` waiting in order of arrival, the next one is refused."""

    def __init__(self, name: str, slots: int, queue: int, *, patience: float | None = None) -> None:
        """patience: seconds that a request waits at most; None waits as long as its client does."""
        self.name, self.slots, self.queue, self._patience = name, slots, queue, patience
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<{self.name}: {self.running}/{self.slots} running, {self.waiting}/{self.queue} waiting>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Scope of one slot."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()

    async def acquire(self) -> None:
        """Takes a slot, waiting for it in the queue. Raises EngineBusy when the queue is full, or does not move."""
        if self.running < self.slots and not self._waiting:
            self.running += 1
        elif len(self._waiting) >= self.queue:
            raise EngineBusy(f"too many requests: {self!r}")
        else:
            try:
                async with asyncio.timeout(self._patience):
                    await self._wait()
            except TimeoutError:
                raise EngineBusy(f"no slot within {self._patience:g} s: {self!r}") from None

    def release(self) -> None:
        self.running -= 1
        self._admit()

    def resize(self, slots: int) -> None:
        """More slots let waiters in at once; fewer take effect as requests end."""
        self.slots = slots
        self._admit()

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # cancelled in the moment of being let in
                self.release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _admit(self) -> None:
        while self._waiting and self.running < self.slots:
            turn = self._waiting.popleft()
            if not turn.done():  # else cancelled this very moment: the slot is the next one's
                self.running += 1
                turn.set_result(None)
