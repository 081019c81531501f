"""Raw PCM of any rate, cut anywhere, as samples at the rate of the models."""

import numpy as np
import soxr

from engines.asr.live.tape import RATE, Samples


class Resampler:
    """One stream's."""

    def __init__(self, rate: int) -> None:
        """rate: Hz of the mono s16le that will come."""
        self._soxr = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32")
        self._odd = b""
        """Half a sample that waits for its other half."""

    def add(self, pcm: bytes) -> Samples:
        """What these bytes add; as many samples later as the filter is long."""
        pcm = self._odd + pcm if self._odd else pcm
        whole = len(pcm) & ~1
        self._odd = pcm[whole:]
        samples = np.frombuffer(pcm, "<i2", whole // 2).astype(np.float32) / np.float32(32768)
        return self._resampled(samples, last=False)

    def finish(self) -> Samples:
        """What was still in the filter. Half a sample is dropped."""
        return self._resampled(np.zeros(0, np.float32), last=True)

    # Private

    def _resampled(self, samples: Samples, last: bool) -> Samples:
        if self._soxr is None:
            return samples
        return np.asarray(self._soxr.resample_chunk(samples, last=last), np.float32)
