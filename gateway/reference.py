"""What is kept of a recording as the reference for a voice: its cleanest speech, cut at pauses, evenly loud.

Speech is what rises above the noise around it and does not hold still: the noise is looked for nearby, since a
recording may be noisy in one place and clean in another. Nothing depends on how loud the recording is.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gateway.errors import AudioRejected
from gateway.settings import Settings
from gateway.verbs import Recording
from gateway.wire import wav

VERSION = "1"
"""Changes when the same upload would give another result."""

Samples: TypeAlias = NDArray[np.int16]
Floats: TypeAlias = NDArray[np.float32]
Flags: TypeAlias = NDArray[np.bool_]

RATE = 16000
FRAME = 320
SECOND = RATE // FRAME
"""Frames in a second; below, times are in frames of 20 ms and levels in dB of full scale."""
BAND = slice(5, 80)
"""250 to 4000 Hz: below is hum and rumble, above mostly hiss."""
WINDOW = np.hanning(FRAME).astype(np.float32)
"""Keeps hum below the band from leaking into it."""
SILENCE = -85.0
FAINTEST = -65.0
RISE = 6.0
"""How far speech stands above the noise, in dB."""
DEPTH = 30.0
"""What is this far below the loud parts of speech is not speech, however silent its surroundings."""
STEADY = 1.0
"""A tone, or noise switched on and off, varies less than this many dB. Speech varies by 6 to 8."""
GAP, BURST, TONE = 10, 8, 25
MARGIN = SECOND // 5
TARGET = 32768 * 10 ** (-20 / 20)
PEAK = float(int(32768 * 10 ** (-1 / 20)))
MAX_GAIN = 10 ** (40 / 20)


async def keep_best(recording: Recording, settings: Settings) -> bytes:
    """The part to keep, as mono s16le PCM at 16 kHz. Raises AudioRejected (audio_silent, audio_too_short)."""
    return await asyncio.to_thread(_keep_best, recording, settings)


def _keep_best(recording: Recording, settings: Settings) -> bytes:
    with recording.path.open("rb") as file:
        start = wav.read_header(file.read(4096), recording.path.stat().st_size).start
    pcm = np.fromfile(recording.path, "<i2", recording.frames, offset=start)
    kept = best(pcm, keep=settings.reference_keep_seconds, least=settings.reference_min_speech_seconds)
    return kept.astype("<i2", copy=False).tobytes()


def best(pcm: Samples, *, keep: float, least: float) -> Samples:
    """The cleanest window of 16 kHz `pcm`: 1 to `keep` seconds, at least `least` seconds of them speech."""
    if len(pcm) < RATE:
        raise AudioRejected("the recording is shorter than a second", code="audio_too_short")
    sound = _measure(pcm)
    noise = _noise(sound.level)
    speech = _speech(sound.level, noise)
    spoken = int(speech.sum())
    if spoken < SECOND // 5:
        raise AudioRejected("no speech was found in the recording", code="audio_silent")
    if spoken < least * SECOND:
        found = f"only {spoken // 5 / 10} seconds of speech were found"
        raise AudioRejected(f"{found}; at least {least:g} are needed", code="audio_too_short")
    window = _window(sound, noise, speech, most=max(int(keep * SECOND), SECOND), least=least * SECOND)
    if window is None:
        raise AudioRejected("the speech in the recording is too scattered", code="audio_too_short")
    start, end = window
    return _level(pcm[start * FRAME : end * FRAME], _loudness(sound.power[start:end][speech[start:end]]))


@dataclass(frozen=True, slots=True)
class _Sound:
    """One row for each frame."""

    power: Floats
    """Mean square, without DC."""
    level: Floats
    """What is in the band of speech, smoothed over 100 ms."""
    clipped: Flags


def _measure(pcm: Samples) -> _Sound:
    count = len(pcm) // FRAME
    power, band = np.empty(count, np.float32), np.empty(count, np.float32)
    clipped = np.empty(count, np.bool_)
    for start in range(0, count, 10 * SECOND):  # ten seconds at a time stay in the processor's cache
        rows = slice(start, min(start + 10 * SECOND, count))
        frames = pcm[start * FRAME : rows.stop * FRAME].reshape(-1, FRAME).astype(np.float32)
        clipped[rows] = (np.abs(frames) > 32700).sum(1) > 1
        frames -= frames.mean(1, keepdims=True)
        power[rows] = np.einsum("ij,ij->i", frames, frames) / FRAME
        spectrum = np.fft.rfft(frames * WINDOW)[:, BAND]
        band[rows] = (spectrum.real**2 + spectrum.imag**2).sum(1)
    smooth = np.convolve(band, np.full(5, 0.2, np.float32), "same") * (2 / (32768 * WINDOW.sum()) ** 2)
    return _Sound(power, np.maximum(10 * np.log10(smooth + 1e-12), SILENCE).astype(np.float32), clipped)


def _noise(level: Floats) -> Floats:
    """The level of the noise around each frame: the quietest of four seconds before it or after it.

    Of the two the louder one, or a second of noise next to a clean part would be taken for speech.
    """
    seconds = len(level) // SECOND
    quiet = np.partition(level[: seconds * SECOND].reshape(seconds, SECOND), 5, axis=1)[:, 5]
    noise = np.full(seconds, quiet.min())
    if seconds >= 4:
        around = sliding_window_view(quiet, 4).min(1)
        noise[3:] = np.maximum(noise[3:], around)
        noise[:-3] = np.maximum(noise[:-3], around)
    return noise[np.minimum(np.arange(len(level)) // SECOND, seconds - 1)]


def _speech(level: Floats, noise: Floats) -> Flags:
    risen = level > noise + RISE
    if not risen.any():
        return risen
    loud = np.percentile(level[risen], 90)
    if loud < FAINTEST:
        return np.zeros_like(risen)
    speech: Flags = risen & (level > loud - DEPTH)
    for start, end in _runs(speech):
        if end - start >= TONE and level[start + 2 : end - 2].std() < STEADY:
            speech[start:end] = False
    for start, end in _runs(~speech):
        if end - start <= GAP and start > 0 and end < len(speech):
            speech[start:end] = True
    for start, end in _runs(speech):
        if end - start < BURST:
            speech[start:end] = False
    return speech


def _runs(flags: Flags) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _window(sound: _Sound, noise: Floats, speech: Flags, *, most: int, least: float) -> tuple[int, int] | None:
    """The best pair of places to cut, trimmed to the speech between them. None: nowhere is there enough of it."""
    cuts = _cuts(sound.level)
    inside = np.append(speech, False)[cuts] & (cuts > 0)
    between = partial(_between, cuts)
    spoken = between(speech)
    length = np.maximum(cuts[None, :] - cuts[:, None], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        heard, hiss = between(_power(sound.level) * speech) / spoken, between(_power(noise)) / length
        score = (
            np.minimum(10 * np.log10(heard / hiss), 40)  # signal to noise, in dB; the rest is weighed against it
            + 5 * spoken / length
            + 20 * np.log10(spoken)
            - 100 * between(sound.clipped & speech) / spoken
            - 3.0 * inside[:, None]
            - 3.0 * inside[None, :]
        )
    score[(spoken < max(least, 1)) | (length > max(most - 2 * MARGIN, SECOND))] = -np.inf
    first, last = np.unravel_index(int(score.argmax()), score.shape)
    if score[first, last] == -np.inf:
        return None
    return _trimmed(speech, int(cuts[first]), int(cuts[last]), most)


def _cuts(level: Floats) -> NDArray[np.intp]:
    """Where a window may begin or end: the quietest frame of each second, and both ends."""
    seconds = len(level) // SECOND
    quietest = level[: seconds * SECOND].reshape(seconds, SECOND).argmin(1) + np.arange(seconds) * SECOND
    return np.unique(np.concatenate(([0], quietest, [len(level)])))


def _between(cuts: NDArray[np.intp], values: NDArray[np.generic]) -> NDArray[np.float64]:
    """The sum of `values` from each cut to each other one."""
    sums = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))[cuts]
    difference: NDArray[np.float64] = sums[None, :] - sums[:, None]
    return difference


def _power(level: Floats) -> NDArray[np.float64]:
    power: NDArray[np.float64] = 10 ** (level.astype(np.float64) / 10)
    return power


def _trimmed(speech: Flags, start: int, end: int, most: int) -> tuple[int, int]:
    """From a fifth of a second before the first speech to as much after the last, but not into other speech."""
    spoken = np.flatnonzero(speech[start:end]) + start
    before, after = np.flatnonzero(speech[: spoken[0]]), np.flatnonzero(speech[spoken[-1] + 1 :])
    lowest = int(before[-1]) + 1 if before.size else 0
    highest = int(spoken[-1]) + 1 + int(after[0]) if after.size else len(speech)
    start, end = max(int(spoken[0]) - MARGIN, lowest), min(int(spoken[-1]) + 1 + MARGIN, highest)
    if end - start < SECOND:  # possible only where less than a second of speech is enough
        start = max(0, min(start, len(speech) - SECOND))
        end = start + SECOND
    return start, min(end, start + most)


def _loudness(power: Floats) -> float:
    """RMS of the speech. A bang on the microphone counts no more than the loudest syllables."""
    return float(np.sqrt(np.minimum(power, np.percentile(power, 95)).mean()))


def _level(pcm: Samples, loudness: float) -> Samples:
    """Without DC, at the target loudness, with rare peaks rounded off below full scale and soft ends."""
    sound = pcm.astype(np.float32)
    sound -= sound.mean()
    sound *= min(TARGET / loudness, MAX_GAIN)
    knee = 0.7 * PEAK
    high = np.abs(sound) > knee
    over = (np.abs(sound[high]) - knee) / (PEAK - knee)
    sound[high] = np.sign(sound[high]) * (knee + (PEAK - knee) * np.tanh(over))
    fade = np.linspace(0, 1, FRAME // 2, dtype=np.float32)
    sound[: len(fade)] *= fade
    sound[-len(fade) :] *= fade[::-1]
    return np.rint(sound).astype(np.int16)
