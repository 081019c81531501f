"""Who works with the models now, who waits for them and at which place, and who is turned away."""

from asyncio import CancelledError, Future, get_running_loop
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from engines.workers.pool import Busy

Tell = Callable[[int, float], None]
"""(place, from 1; about how many seconds it will take)"""
_FIRST_GUESS = 5.0
_WEIGHT = 0.3
"""Of the last turn in the mean."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    turn: "Future[None]"
    tell: Tell


class Line:
    """Nothing in it awaits anything but one's turn."""

    def __init__(self, places: int, waiting: int) -> None:
        """places: turns at a time. waiting: turns beyond those."""
        self._places, self._waiting = places, waiting
        self._working = 0
        self._waiters: deque[_Waiter] = deque()
        self._mean = _FIRST_GUESS
        """Seconds that a turn takes."""

    def __repr__(self) -> str:
        return f"<{self._working}/{self._places} turns, {len(self._waiters)}/{self._waiting} waiting>"

    @asynccontextmanager
    async def place(self, tell: Tell) -> AsyncIterator[None]:
        """A turn's, in order. tell: called while it waits, and again whenever its place changes. Raises Busy."""
        if self._working >= self._places:
            await self._wait(tell)
        else:
            self._working += 1
        began = get_running_loop().time()
        try:
            yield
        finally:
            self._mean += _WEIGHT * (get_running_loop().time() - began - self._mean)
            self._leave()

    # Private

    async def _wait(self, tell: Tell) -> None:
        if len(self._waiters) >= self._waiting:
            raise Busy(f"{self._working} turns are being answered and {len(self._waiters)} wait already")
        waiter = _Waiter(get_running_loop().create_future(), tell)
        self._waiters.append(waiter)
        self._announce(len(self._waiters))
        try:
            await waiter.turn
        except CancelledError:
            if not waiter.turn.cancelled():  # its turn had come at the same moment
                self._leave()
            elif waiter in self._waiters:
                at = self._waiters.index(waiter)
                self._waiters.remove(waiter)
                self._announce(at + 1)
            raise

    def _leave(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.turn.done():  # one that is cancelled may not have been told so yet
                waiter.turn.set_result(None)
                self._announce(1)
                return
        self._working -= 1

    def _announce(self, first: int) -> None:
        """To those from this place on."""
        for place, waiter in enumerate(self._waiters, 1):
            if place >= first:
                waiter.tell(place, max(0.1, round(place * self._mean / self._places, 1)))
