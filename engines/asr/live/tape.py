"""The last part of a stream: samples under their place in it, as long as somebody may still want them."""

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Hz, of everything behind the resampler."""
Samples = NDArray[np.float32]
"""Mono, within -1 and 1."""


def at(milliseconds: int) -> int:
    """Place of a time."""
    return milliseconds * RATE // 1000


def milliseconds(place: int) -> int:
    return place * 1000 // RATE


class Tape:
    def __init__(self) -> None:
        self._pieces: list[Samples] = []
        self.start = self.end = 0
        """Places of the first sample that is kept, and after the last."""

    def add(self, samples: Samples) -> None:
        if len(samples):
            self._pieces.append(samples)
            self.end += len(samples)

    def cut(self, start: int, end: int) -> Samples:
        """What lies between two places, as far as it is kept."""
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate(self._pieces)] if self._pieces else [np.zeros(0, np.float32)]
        whole = self._pieces[0]
        return whole[max(0, start - self.start) : max(0, end - self.start)]

    def forget(self, before: int) -> None:
        """Whole pieces only, so that it costs nothing."""
        while self._pieces and self.start + len(self._pieces[0]) <= before:
            self.start += len(self._pieces.pop(0))
        if self._pieces and before - self.start > 2 * RATE:  # `cut` makes one piece of all
            self._pieces[0] = self._pieces[0][before - self.start :].copy()
            self.start = before
