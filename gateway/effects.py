"""Speech made louder or quieter, higher or lower, and given at another rate, while it comes; its duration stays.

Rule 1: what is too loud is pressed together softly above KNEE; no sample ever wraps around, and below KNEE nothing is
bent.
Rule 2: higher means that it is taken for sound of a higher rate, and slowed down again by as much at the same pitch.
Rule 3: each sentence is whole in itself: all of it is out at its end, and as long as it was, to the sample.
"""

import numpy as np

from gateway.encoding import Encoder, Encoders
from gateway.errors import EngineBroke
from gateway.events import Audio
from gateway.tempo import FASTEST, SLOWEST

KNEE = 0.8
"""Of full scale."""
_FULL = 32767.0
_TAIL = 0.1
"""Seconds of silence that push the last of a sentence through what holds it back."""


class Effects:
    """One voice, sentence after sentence. One task at a time may use it; `close` frees it."""

    def __init__(self, encoders: Encoders, sample_rate: int, *, gain: float = 1.0, pitch: float = 1.0) -> None:
        """sample_rate: Hz of all that comes out; gain: 1 leaves it as loud as it is; pitch: from 0.5, an octave lower,
        to 2, one higher."""
        self.sample_rate = sample_rate
        self._encoders, self._gain, self._pitch = encoders, gain, pitch
        self._shift: Encoder | None = None
        self._fed = 0
        """Samples of this sentence, of `_source` Hz."""
        self._source = 0
        self._made = 0
        """Samples of it that are out."""

    async def feed(self, audio: Audio) -> bytes:
        """What `audio` makes certain; it may be empty. Raises EngineBroke where its rate is not the sentence's."""
        if self._shift is None:
            self._source = audio.sample_rate
            seeming = round(audio.sample_rate * self._pitch)
            slower = min(max(audio.sample_rate / seeming, SLOWEST), FASTEST)
            self._shift = self._encoders.open("pcm", seeming, self.sample_rate, slower)
        elif audio.sample_rate != self._source:
            raise EngineBroke(f"the engine changed its sample rate from {self._source} to {audio.sample_rate} Hz")
        self._fed += len(audio.pcm) // 2
        return self._out(await self._shift.feed(audio.pcm))

    async def end(self) -> bytes:
        """The rest of the sentence; the next one may follow."""
        if self._shift is None:
            return b""
        rest = b""
        if self._pitch != 1.0:
            rest = await self._shift.feed(bytes(2 * round(_TAIL * self._source)))
        rest = self._out(rest + await self._shift.end(), last=True)
        await self.close()
        return rest

    async def close(self) -> None:
        if self._shift is not None:
            await self._shift.close()
        self._shift, self._fed, self._made = None, 0, 0

    # Private

    def _out(self, pcm: bytes, last: bool = False) -> bytes:
        """Of what came out so far, as much as there was."""
        left = round(self._fed * self.sample_rate / self._source) - self._made
        pcm = pcm[: 2 * left]
        if last:
            pcm = pcm.ljust(2 * left, b"\0")
        self._made += len(pcm) // 2
        return amplified(pcm, self._gain)


def amplified(pcm: bytes, gain: float) -> bytes:
    """Mono s16le, `gain` times as loud as far as there is room. A second of it takes some 0.3 ms."""
    if gain == 1.0 or not pcm:
        return pcm
    loud = np.frombuffer(pcm, "<i2") * np.float32(gain / _FULL)
    if gain > 1.0:
        over = np.abs(loud) > KNEE
        beyond = np.tanh((np.abs(loud[over]) - KNEE) / (1 - KNEE)) * (1 - KNEE)
        loud[over] = np.copysign(KNEE + beyond, loud[over])
    bent: bytes = np.rint(loud * _FULL).astype("<i2").tobytes()
    return bent
