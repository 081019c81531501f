"""Sound for tests to send, and what tests hear in what comes back."""

import subprocess
from functools import cache

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def tone(rate: int, seconds: float, hertz: float = 440.0, loudness: float = 0.5) -> bytes:
    """Mono s16le."""
    t = np.arange(round(rate * seconds)) / rate
    return pcm(np.sin(2 * np.pi * hertz * t) * loudness)


def pcm(samples: Floats) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def samples(data: bytes) -> Floats:
    return np.frombuffer(data, "<i2") / 32768


def decoded(data: bytes, rate: int, *given: str) -> Floats:
    """What ffmpeg hears in a file, at `rate` Hz. given: flags for what has no header."""
    command = [_ffmpeg(), "-v", "error", *given, "-i", "-", "-ac", "1", "-ar", str(rate), "-f", "s16le", "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert not done.stderr, done.stderr
    return samples(done.stdout)


def described(data: bytes, *given: str) -> str:
    """ffmpeg's line about a file's sound: `Audio: mp3 (mp3float), 24000 Hz, mono, …`."""
    done = subprocess.run([_ffmpeg(), "-hide_banner", *given, "-i", "-"], input=data, capture_output=True)
    return next(line.split(": ", 1)[1] for line in done.stderr.decode().splitlines() if " Audio: " in line)


def hertz(sound: Floats, rate: int) -> float:
    """The loudest pitch in it, from the whole of it."""
    size = 1 << (len(sound) - 1).bit_length() + 3
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size))
    top = int(spectrum.argmax())
    before, at, after = np.log(spectrum[top - 1 : top + 2])
    return float((top + (before - after) / (2 * (before - 2 * at + after))) * rate / size)


def cents(found: float, asked: float) -> float:
    return float(1200 * abs(np.log2(found / asked)))


def lag(sound: Floats, original: Floats) -> int:
    """How many samples later than in `original` it all comes."""
    size = 1 << (len(sound) + len(original)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(original, size).conj())
    found = int(likeness.argmax())
    return found if found < size // 2 else found - size


@cache
def _ffmpeg() -> str:
    return str(imageio_ffmpeg.get_ffmpeg_exe())
