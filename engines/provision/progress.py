"""How far a phase is, told seldom enough to cost nothing."""

import time
from collections.abc import Callable
from typing import TypeAlias

from gateway.wire.engine_health import Progress

Tell: TypeAlias = Callable[[Progress], None]

_INTERVAL = 0.2
"""Seconds between two tellings of one phase."""


class Meter:
    """One phase. Never goes back: a file that has to be fetched again is no step away from the end."""

    def __init__(self, tell: Tell, phase: str, total: int = 0) -> None:
        """total: bytes, 0 where nobody knows."""
        self._tell, self._phase, self._total = tell, phase, total
        self._bytes = 0
        self._told = float("-inf")
        self.at(0)

    def at(self, count: int) -> None:
        """count: bytes since the phase began."""
        self._bytes = max(self._bytes, count)
        now = time.monotonic()
        if now - self._told >= _INTERVAL or (self._total and self._bytes >= self._total):
            self._told = now
            self._tell(Progress(self._phase, self._bytes, self._total))

    def after(self, done: int) -> Callable[[int], None]:
        """Told the bytes of one part, where `done` bytes came before it."""
        return lambda count: self.at(done + count)
