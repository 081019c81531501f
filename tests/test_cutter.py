"""Where segments begin and end in a stream, whatever its ears say."""

import asyncio
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.cutter import Cutter
from gateway.endpointing import Started, Stopped
from gateway.segments import RATE, Segment

STEP = 800
"""Samples fed at a time, 50 ms; what is heard in each is drawn."""


class Told:
    """Ears that say what they are told to; beginnings reach back by `back` steps."""

    def __init__(self, moments: Sequence[str], back: int) -> None:
        self._moments, self._back = list(moments), back
        self._now, self._speaking, self._last = 0, False, 0.0

    async def feed(self, pcm: bytes) -> list[Started | Stopped]:
        self._now += len(pcm) // 2
        moment = self._moments.pop(0) if self._moments else ""
        if moment == "start" and not self._speaking:
            self._speaking = True
            return [Started(max(self._last, self._now / RATE - self._back * STEP / RATE))]
        if moment == "stop" and self._speaking:
            return [*self.end()]
        return []

    def end(self) -> list[Stopped]:
        was, self._speaking = self._speaking, False
        self._last = max(self._last, (self._now - STEP) / RATE)
        return [Stopped(self._last)] if was else []


@given(
    st.lists(st.sampled_from(("", "", "start", "stop", "cut")), max_size=60),
    st.integers(0, 10),
    st.booleans(),
    st.sampled_from((0.5, 1.0, 30.0)),
)
def test_segments_are_parts_of_the_stream_and_share_no_sample(
    moments: Sequence[str], back: int, manual: bool, longest: float
) -> None:
    sound = np.random.default_rng(1).integers(-9000, 9000, STEP * max(1, len(moments))).astype("<i2").tobytes()

    async def run() -> list[Segment]:
        cutter = Cutter(None if manual else Told(moments, back), padding=0.3, longest=longest)
        found: list[Segment] = []
        for at, moment in enumerate(moments):
            found += await cutter.feed(sound[2 * STEP * at : 2 * STEP * (at + 1)])
            if moment == "cut":
                found += cutter.cut(missed=True)
        return found + cutter.cut(missed=False)

    found = asyncio.run(run())
    assert all(one.ended for one in found)
    for one in found:
        assert asyncio.run(one.whole()) == sound[2 * one.start : 2 * one.end]
        assert one.seconds <= longest
    edges = [edge for one in found for edge in (one.start, one.end)]
    assert edges == sorted(edges)
    if manual:
        assert sum(one.end - one.start for one in found) == len(moments) * STEP, "and by hand nothing is left out"
