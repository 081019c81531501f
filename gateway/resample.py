"""PCM of one sample rate → PCM of another, piece by piece, with soxr."""

import numpy as np
import soxr


class Resampler:
    """One stream of mono s16le. Nothing of it is lost: what the filter holds back, some 40 ms, comes with the last."""

    __slots__ = ("_soxr", "source", "target")

    def __init__(self, source: int, target: int) -> None:
        """source, target: Hz."""
        self.source, self.target = source, target
        self._soxr = None if source == target else soxr.ResampleStream(source, target, 1, dtype="float32")

    def __repr__(self) -> str:
        return f"<{self.source} → {self.target} Hz>"

    def feed(self, pcm: bytes, last: bool = False) -> bytes:
        """What `pcm`, whole samples, makes certain; it may be empty. After the last the stream begins anew. 100 ms take
        some 0.05 ms; long pieces are for the caller to cut."""
        if self._soxr is None:
            return pcm
        samples = np.frombuffer(pcm, "<i2").astype(np.float32)
        made = self._soxr.resample_chunk(samples, last=last)
        if last:
            self._soxr.clear()
        resampled: bytes = np.rint(made).clip(-32768, 32767).astype("<i2").tobytes()
        return resampled
