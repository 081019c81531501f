"""Reference audio as it arrives: read, bounded, refused with a reason."""

import io
import wave

import numpy as np

from engines.tts.job import Malformed, Prompt, Samples

SHORTEST, LONGEST = 1.0, 30.0
"""Seconds. Of less no voice can be made; upstream refuses more than 30 as well."""
_RATES = (8_000, 192_000)
_SILENT = 0.002
"""Full scale is 1: about -54 dB, for the loudest twentieth of a second."""


def read(data: bytes) -> Prompt:
    """The reference audio in a PCM WAV file. Raises Malformed."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            samples, rate = _samples(file), file.getframerate()
    except (wave.Error, EOFError) as exc:
        raise Malformed(f"prompt_wav is not a readable PCM WAV file: {exc or 'it ends too early'}") from exc
    if len(samples) < SHORTEST * rate:
        raise Malformed(f"prompt_wav lasts {len(samples) / rate:.2f} s; at least {SHORTEST} s are needed")
    if _loudest(samples, rate) < _SILENT:
        raise Malformed("prompt_wav is silent")
    return Prompt(data, samples, rate)


def _samples(file: wave.Wave_read) -> Samples:
    channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
    if channels not in (1, 2) or width not in (2, 3, 4) or not _RATES[0] <= rate <= _RATES[1]:
        raise wave.Error(f"{channels} channels of {8 * width} bits at {rate} Hz")
    # The header's length is a claim: no more is read than may be used, and what counts is what is there.
    data = file.readframes(int(LONGEST * rate) + 1)
    frames = len(data) // (channels * width)
    if frames > LONGEST * rate:
        raise Malformed(f"prompt_wav lasts more than {LONGEST:.0f} s")
    parts = np.frombuffer(data, np.uint8, frames * channels * width).reshape(-1, width)
    wide = np.zeros((len(parts), 4), np.uint8)
    wide[:, 4 - width :] = parts
    sound = wide.view("<i4").reshape(frames, channels).mean(axis=1) / 2**31
    return np.asarray(sound, np.float32)


def _loudest(samples: Samples, rate: int) -> float:
    window = rate // 20
    blocks = samples[: len(samples) // window * window].reshape(-1, window)
    return float(np.sqrt((blocks**2).mean(axis=1)).max())
