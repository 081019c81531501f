"""PCM said faster or slower at the same pitch, piece by piece, with FFmpeg's atempo filter."""

from typing import Any

import av
import numpy as np
from av.filter import Graph

SLOWEST, FASTEST = 0.5, 2.0
"""Beyond these the filter leaves sound out."""
_LEAST = 0.1
"""Seconds. Less is filled up with silence: of 40 ms the filter would give nothing."""


class Tempo:
    """One stream of mono s16le. Blocks: it is for a thread to run."""

    def __init__(self, sample_rate: int, speed: float) -> None:
        """sample_rate: Hz; speed: from SLOWEST to FASTEST, 2.0 halves the duration."""
        if not SLOWEST <= speed <= FASTEST:
            raise ValueError(f"a speed of {speed:g} is not one of {SLOWEST:g} to {FASTEST:g}")
        self._rate, self._samples = sample_rate, 0
        self._graph = Graph()
        source = self._graph.add_abuffer(format="s16", layout="mono", sample_rate=sample_rate)
        change, sink = self._graph.add("atempo", f"{speed:.6f}"), self._graph.add("abuffersink")
        source.link_to(change)
        change.link_to(sink)
        self._graph.configure()

    def feed(self, pcm: bytes, last: bool = False) -> bytes:
        """What `pcm`, whole samples, makes certain; it may be empty. Nothing may be fed after the last."""
        if last:
            pcm += bytes(2 * max(0, int(_LEAST * self._rate) - self._samples - len(pcm) // 2))
        if pcm:
            frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None, :], format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._samples
            self._samples += frame.samples
            self._graph.push(frame)
        if last:
            self._graph.push(None)
        return b"".join(self._made())

    # Private

    def _made(self) -> Any:
        while True:
            try:
                frame: Any = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield frame.to_ndarray().tobytes()
