"""flite's recorded English voices: understood far better than espeak's English, by people and by recognisers.

Measured with pocketsphinx over 15 everyday sentences: `rms` makes 0 % word errors, but its pitch model ignores every
setting. `awb` makes 0 to 9 % at any pitch from 84 to 248 Hz, so it carries every pitch that is not rms's own; the
female voice `slt` makes 14 % at its own pitch, so it is not used.
"""

import unicodedata
from collections.abc import Callable

import numpy as np
import soxr
from numpy.typing import NDArray

from engines.tts.backends.flite import Flite
from engines.tts.backends.manner import Manner
from engines.tts.prosody import Prosody

_STRETCH = 1.2
"""Times as long as the voices were recorded: what recognises best."""
_LOWEST_SHIFT, _HIGHEST_SHIFT = 0.5, 3.0
_AWB = Prosody(f0=128.0, rate=5.15)
"""Of awb's own accord at _STRETCH: a constant, since the voice is one recording, the same on every machine."""
_RESPONSE = 0.65
"""Between 0.6 and 1.6 times that pace, its syllable nuclei are counted to grow with this power of it."""
_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": ", ", "—": ", "})


class EnglishVoices:
    """The constructor raises OSError where flite or one of the two voices is not on this machine."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._plain, self._pitched = Flite("rms"), Flite("awb")

    def say(self, text: str, manner: Manner, stopped: Callable[[], bool]) -> NDArray[np.int16]:
        voice, shift = self._plain, 1.0
        if manner.f0 or manner.rate:
            voice = self._pitched
            shift = min(max((manner.f0 or _AWB.f0) / _AWB.f0, _LOWEST_SHIFT), _HIGHEST_SHIFT)
        stretch = _STRETCH / manner.pace(_AWB.rate, _RESPONSE)
        said = voice.say(_ascii(text), stretch, shift, stopped)
        return np.asarray(soxr.resample(said, voice.sample_rate, self._sample_rate), np.int16)


def _ascii(text: str) -> str:
    """flite reads bytes, and takes those of an accented letter for several strange ones."""
    return unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()
