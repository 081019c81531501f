"""Who may use an engine now, who may wait, and who is refused. The `repr` is the specification; tests read it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.errors import EngineBusy

Moved = Callable[[int, float], None]
"""Told one's place in the queue, from 1, and about how many seconds the wait is from there."""

_USUAL_SECONDS = 5.0
"""What a visit is taken to last before the first one has ended."""
_NEWEST_WEIGHT = 0.2


@dataclass(eq=False, slots=True)
class _Place:
    """Of one who waits."""

    moved: Moved | None
    turn: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    told: int = 0


class Gate:
    """At most `slots` at a time inside, at most `queue` waiting in order of arrival, the next one is refused."""

    def __init__(self, name: str, slots: int, queue: int, *, patience: float | None = None) -> None:
        """patience: seconds that a request waits at most; None waits as long as its client does."""
        self.name, self.slots, self.queue, self._patience = name, slots, queue, patience
        self.running = 0
        self._waiting: deque[_Place] = deque()
        self._usual = _USUAL_SECONDS
        self._learned = False

    def __repr__(self) -> str:
        return f"<{self.name}: {self.running}/{self.slots} running, {self.waiting}/{self.queue} waiting>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def enter(self, moved: Moved | None = None) -> AsyncIterator[None]:
        """Scope of one slot. How long such scopes last is what estimates are made of."""
        await self.acquire(moved)
        since = time.monotonic()
        try:
            yield
        finally:
            self._learn(time.monotonic() - since)
            self.release()

    async def acquire(self, moved: Moved | None = None) -> None:
        """Takes a slot, waiting for it in the queue. Raises EngineBusy when the queue is full, or does not move.

        moved: told the place in the queue, and each new one; not at all where nobody has to wait.
        """
        if self.running < self.slots and not self._waiting:
            self.running += 1
        elif len(self._waiting) >= self.queue:
            raise EngineBusy(f"too many requests: {self.running} are served and {self.waiting} wait; try again later")
        else:
            try:
                async with asyncio.timeout(self._patience):
                    await self._wait(moved)
            except TimeoutError:
                raise EngineBusy(f"none of {self.slots} places came free in {self._patience:g} s") from None

    def release(self) -> None:
        self.running -= 1
        self._admit()

    def resize(self, slots: int) -> None:
        """More slots let waiters in at once; fewer take effect as requests end."""
        self.slots = slots
        self._admit()

    # Private

    async def _wait(self, moved: Moved | None) -> None:
        place = _Place(moved)
        self._waiting.append(place)
        self._tell()
        try:
            await place.turn
        except asyncio.CancelledError:
            if place.turn.done() and not place.turn.cancelled():  # cancelled in the moment of being let in
                self.release()
            elif place in self._waiting:
                self._waiting.remove(place)
                self._tell()
            raise

    def _admit(self) -> None:
        while self._waiting and self.running < self.slots:
            place = self._waiting.popleft()
            if not place.turn.done():  # else cancelled this very moment: the slot is the next one's
                self.running += 1
                place.turn.set_result(None)
        self._tell()

    def _tell(self) -> None:
        for number, place in enumerate(self._waiting, 1):
            if place.moved is not None and place.told != number:
                place.told = number
                place.moved(number, round(number * self._usual / max(self.slots, 1), 1))

    def _learn(self, seconds: float) -> None:
        """A moving average; the first visit says more than what was assumed."""
        weight = _NEWEST_WEIGHT if self._learned else 1.0
        self._usual += weight * (seconds - self._usual)
        self._learned = True
