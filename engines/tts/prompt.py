"""Reference audio as it arrives: read, bounded, refused with a reason."""

import struct
from dataclasses import dataclass

import numpy as np

from engines.tts.job import Malformed, Prompt, Samples

SHORTEST, LONGEST = 1.0, 30.0
"""Seconds. Of less no voice can be made; upstream refuses more than 30 as well."""
_RATES = (8_000, 192_000)
_SILENT = 0.002
"""Full scale is 1: about -54 dB, for the loudest twentieth of a second."""
_INTEGERS, _FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE
"""Format tags. An extensible header has the tag that counts further on."""


@dataclass(frozen=True, slots=True)
class _Format:
    kind: int
    channels: int
    rate: int
    """Hz."""
    bits: int
    """Of a sample."""

    @property
    def frame(self) -> int:
        """Bytes."""
        return self.channels * self.bits // 8


def read(data: bytes) -> Prompt:
    """The reference audio in a WAV file of whole numbers or floats. Raises Malformed."""
    try:
        found, frames = _chunks(data)
    except ValueError as exc:
        raise Malformed(f"prompt_wav is not a readable PCM WAV file: {exc}") from exc
    rate = found.rate
    if len(frames) > LONGEST * rate * found.frame:
        raise Malformed(f"prompt_wav lasts more than {LONGEST:.0f} s")
    samples = _samples(found, frames)
    if len(samples) < SHORTEST * rate:
        raise Malformed(f"prompt_wav lasts {len(samples) / rate:.2f} s; at least {SHORTEST} s are needed")
    if not np.isfinite(samples).all():
        raise Malformed("prompt_wav holds samples that are no numbers")
    if _loudest(samples, rate) < _SILENT:
        raise Malformed("prompt_wav is silent")
    return Prompt(data, samples, rate)


def _chunks(data: bytes) -> tuple[_Format, bytes]:
    """The format, and the whole frames that are really there: a length in a header is a claim. Raises ValueError."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("it does not begin as one")
    found: _Format | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt ":
            found = _format(data[at : at + size])
        elif name == b"data":
            if found is None:
                raise ValueError("its samples come before their format")
            frames = data[at : at + size]
            return found, frames[: len(frames) // found.frame * found.frame]
        at += size + size % 2
    raise ValueError("it ends too early")


def _format(chunk: bytes) -> _Format:
    """Raises ValueError."""
    if len(chunk) < 16:
        raise ValueError("it ends too early")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)
    if (kind, bits) not in {(_INTEGERS, 16), (_INTEGERS, 24), (_INTEGERS, 32), (_FLOATS, 32), (_FLOATS, 64)}:
        raise ValueError(f"{bits} bits of format {kind}")
    if channels not in (1, 2) or not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"{channels} channels at {rate} Hz")
    return _Format(kind, channels, rate, bits)


def _samples(found: _Format, frames: bytes) -> Samples:
    """Mono."""
    if found.kind == _FLOATS:
        sound = np.frombuffer(frames, f"<f{found.bits // 8}").astype(np.float64).clip(-1, 1)
    else:
        width = found.bits // 8
        parts = np.frombuffer(frames, np.uint8).reshape(-1, width)
        wide = np.zeros((len(parts), 4), np.uint8)
        wide[:, 4 - width :] = parts
        sound = wide.view("<i4").reshape(-1) / 2**31
    return np.asarray(sound.reshape(-1, found.channels).mean(axis=1), np.float32)


def _loudest(samples: Samples, rate: int) -> float:
    window = rate // 20
    blocks = samples[: len(samples) // window * window].reshape(-1, window)
    return float(np.sqrt((blocks**2).mean(axis=1)).max())
