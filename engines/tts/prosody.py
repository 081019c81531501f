"""How high and how fast a voice speaks, measured.

Rule 1: median F0 is taken over voiced frames only, between 60 and 400 Hz.
Rule 2: the rate is syllable nuclei per second of speech, pauses left out: peaks of intensity in voiced sound with a
dip on either side, after de Jong and Wempe (2009). The same measure is used on a reference and on our own voices, so
whatever it misses, it misses on both.
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

RATE = 8_000
"""Hz at which everything here is measured: enough for F0 and for loudness."""
HOP = 80
LOWEST, HIGHEST = 60.0, 400.0

_WINDOW = 400
_VOICED = 0.5
_NEAR_BEST = 0.9
_SPEECH_DB, _DIP_DB = 25.0, 2.0
_LONGEST_LAG, _SHORTEST_LAG = int(RATE / LOWEST), int(RATE / HIGHEST)


@dataclass(frozen=True, slots=True)
class Prosody:
    f0: float
    """Median, Hz; 0 where nothing is voiced."""
    rate: float
    """Syllable nuclei per second of speech; 0 where there are none."""


def measure(samples: Samples, sample_rate: int) -> Prosody:
    """What a voice in mono `samples` (-1..1) does."""
    sound = np.asarray(soxr.resample(samples, sample_rate, RATE), np.float32)
    if len(sound) < 2 * _WINDOW:
        return Prosody(0.0, 0.0)
    pitch = _pitch(sound)
    loudness = _loudness(sound, len(pitch))
    loud = loudness > np.percentile(loudness, 95) - _SPEECH_DB
    voiced = (pitch > 0) & loud
    return Prosody(float(np.median(pitch[voiced])) if voiced.any() else 0.0, _rate(loudness, loud, voiced))


def _pitch(sound: Samples) -> Samples:
    """F0 of every frame, Hz; 0 where it has none."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::HOP]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(_WINDOW)
    likeness = _autocorrelation(frames) / _autocorrelation(np.hanning(_WINDOW)[None])
    likeness /= np.maximum(likeness[:, :1], 1e-9)
    inner = likeness[:, _SHORTEST_LAG : _LONGEST_LAG + 1]
    peak = (inner >= likeness[:, _SHORTEST_LAG - 1 : _LONGEST_LAG]) & (
        inner >= likeness[:, _SHORTEST_LAG + 1 : _LONGEST_LAG + 2]
    )
    heights = np.where(peak, inner, 0.0)
    best = heights.max(axis=1, keepdims=True)
    # The shortest lag that is nearly as good as the best one: longer ones are its multiples, an octave too low.
    lag = np.argmax(heights >= _NEAR_BEST * best, axis=1) + _SHORTEST_LAG
    rows = np.arange(len(frames))
    before, at, after = (likeness[rows, lag + shift] for shift in (-1, 0, 1))
    bend = before - 2 * at + after
    exact = lag + np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
    return np.where(best[:, 0] >= _VOICED, RATE / exact, 0.0).astype(np.float32)


def _autocorrelation(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(frames, 2 * _WINDOW)
    found: NDArray[np.float64] = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, : _LONGEST_LAG + 2]
    return found


def _loudness(sound: Samples, frames: int) -> NDArray[np.float64]:
    """dB of every frame, smoothed over 50 ms."""
    power = np.convolve(sound.astype(np.float64) ** 2, np.hanning(_WINDOW) / (_WINDOW / 2), "valid")[::HOP][:frames]
    return 10 * np.log10(np.maximum(power, 1e-9))


def _rate(loudness: NDArray[np.float64], loud: NDArray[np.bool_], voiced: NDArray[np.bool_]) -> float:
    speech = float(loud.sum()) * HOP / RATE
    return _nuclei(loudness, voiced) / speech if speech else 0.0


def _nuclei(loudness: NDArray[np.float64], voiced: NDArray[np.bool_]) -> int:
    """Peaks in voiced sound that stand at least _DIP_DB above the dips beside them."""
    count, top, bottom, rising, top_voiced = 0, -np.inf, loudness[0], True, False
    for value, has_pitch in zip(loudness, voiced, strict=True):
        if rising:
            if value > top:
                top, top_voiced = value, bool(has_pitch)
            elif value < top - _DIP_DB:
                count += top_voiced
                rising, bottom = False, value
        elif value < bottom:
            bottom = value
        elif value > bottom + _DIP_DB:
            rising, top, top_voiced = True, value, bool(has_pitch)
    return count + int(rising and top_voiced)
