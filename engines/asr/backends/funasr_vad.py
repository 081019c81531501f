"""Where in a recording somebody speaks, by FunASR's FSMN-VAD, read piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.asr.backends import Check
from engines.asr.backends.funasr_models import Network
from engines.asr.recording import RATE, Recording

LONGEST = 30
"""Seconds; who never pauses is cut there."""
OPTIONS = {"max_single_segment_time": LONGEST * 1000}
"""What the network is to be loaded with."""
_PAUSE = 800
"""Milliseconds that end an utterance. Without it, in every call, FunASR 1.4 waits for up to two seconds."""
_PIECE = 3
"""Seconds."""
_LEAST = RATE // 10
"""Samples. Fewer than a frame, and FunASR divides by zero; nobody says anything in less."""


@dataclass(frozen=True, slots=True)
class Span:
    """In samples."""

    first: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.first


def find(recording: Recording, network: Network, check: Check) -> Iterator[Span]:
    first = 0
    for begins, ends in _events(recording, network, check):
        first = first if begins < 0 else begins * RATE // 1000
        if ends >= 0:
            span = Span(min(first, recording.samples), min(ends * RATE // 1000, recording.samples))
            if span.length >= _LEAST:
                yield span


def read(recording: Recording, first: int, count: int) -> NDArray[np.float32]:
    """Samples within -1 and 1, which is how FunASR wants them."""
    return np.frombuffer(recording.read(first, count), "<i2").astype(np.float32) / np.float32(32768)


# Private


def _events(recording: Recording, network: Network, check: Check) -> Iterator[tuple[int, int]]:
    """(begin, end) in milliseconds, one of them -1 where it is in another piece."""
    if recording.samples < _LEAST:
        return
    cache: dict[str, Any] = {}
    piece = _PIECE * RATE
    for first in range(0, recording.samples, piece):
        check()
        samples = read(recording, first, piece)
        last = first + piece >= recording.samples
        if last and len(samples) < _LEAST:
            samples = np.pad(samples, (0, _LEAST - len(samples)))
        # FunASR cuts what it gets into pieces of its own: with the last one, they must not come out even
        size = {"chunk_size": _PIECE * 1000 + last}
        pause = {"max_end_silence_time": _PAUSE}
        for result in network.generate(samples, {"cache": cache, "is_final": last, **size, **pause}):
            yield from ((begins, ends) for begins, ends in result["value"])
