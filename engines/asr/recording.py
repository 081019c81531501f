"""Uploaded audio as recognisers want it: mono s16le at 16 kHz, in a file, read piece by piece.

WAV of PCM or float samples is understood, at any rate and with any channels; whoever sends something else is told so.
"""

import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000
_PIECE = 65_536
"""Frames converted at a time."""
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_PCM_TYPES = {8: "u1", 16: "<i2", 24: "u1", 32: "<i4"}
_FLOAT_TYPES = {32: "<f4", 64: "<f8"}
_TYPES = {_PCM: _PCM_TYPES, _FLOAT: _FLOAT_TYPES}
"""numpy's, by kind and bits; it has none of 24 bits."""


class Unreadable(ValueError):
    """Not audio that this engine reads; the text says what it is instead."""

    status = 400


@dataclass(frozen=True, slots=True)
class Recording:
    file: BinaryIO
    start: int
    """Offset of the first sample, in bytes."""
    samples: int

    def read(self, first: int, count: int) -> bytes:
        """Up to `count` samples from sample `first` on."""
        self.file.seek(self.start + 2 * first)
        return self.file.read(2 * max(0, min(count, self.samples - first)))


@contextmanager
def opened(path: Path, check: Callable[[], None]) -> Iterator[Recording]:
    """The WAV file at `path`; converted into a nameless file first where it is not yet as wanted. Raises Unreadable."""
    with path.open("rb") as source:
        form = _form(source, path.stat().st_size)
        if form.as_wanted:
            yield Recording(source, form.start, form.frames)
            return
        with tempfile.TemporaryFile() as file:
            yield Recording(file, 0, _convert(source, form, file, check))


# Private


@dataclass(frozen=True, slots=True)
class _Form:
    kind: int
    channels: int
    rate: int
    bits: int
    start: int
    frames: int
    """Whole frames that are really there, whatever the header claims."""

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    @property
    def as_wanted(self) -> bool:
        return (self.kind, self.channels, self.rate, self.bits) == (_PCM, 1, RATE, 16)


def _form(file: BinaryIO, size: int) -> _Form:
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise Unreadable("the audio is not a WAV file; send WAV with PCM samples, best mono 16 bit at 16 kHz")
    fmt: tuple[int, int, int, int] | None = None
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            break
        after = file.tell() + length + (length & 1)
        if name == b"fmt ":
            fmt = _fmt(file.read(min(length, 40)))
        file.seek(after)
    else:
        raise Unreadable("the WAV file has no data chunk")
    if fmt is None:
        raise Unreadable("the WAV file does not say what its samples are")
    kind, channels, rate, bits = fmt
    start = file.tell()
    return _Form(kind, channels, rate, bits, start, max(0, min(length, size - start)) // (channels * bits // 8))


def _fmt(chunk: bytes) -> tuple[int, int, int, int]:
    if len(chunk) < 16:
        raise Unreadable("the WAV file's fmt chunk is cut off")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)
    if bits not in _TYPES.get(kind, {}) or not 1 <= channels <= 64 or not 1000 <= rate <= 768_000:
        raise Unreadable(f"WAV of format {kind}, {channels} channels, {bits} bits, {rate} Hz cannot be read; send PCM")
    return kind, channels, rate, bits


def _convert(source: BinaryIO, form: _Form, into: BinaryIO, check: Callable[[], None]) -> int:
    """Samples written."""
    stream = soxr.ResampleStream(form.rate, RATE, 1, dtype="float32")
    source.seek(form.start)
    for first in range(0, form.frames, _PIECE):
        check()
        count = min(_PIECE, form.frames - first)
        mono = _mono(source.read(count * form.frame_bytes), form)
        samples = stream.resample_chunk(mono, last=first + count == form.frames)
        into.write((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    into.flush()
    return into.tell() // 2


def _mono(raw: bytes, form: _Form) -> NDArray[np.float32]:
    samples = np.frombuffer(raw, _TYPES[form.kind][form.bits])
    if form.bits == 24:
        wide = np.zeros((len(samples) // 3, 4), "u1")
        wide[:, 1:] = samples.reshape(-1, 3)
        samples = wide.view("<i4").reshape(-1)
    scaled = samples.reshape(-1, form.channels).astype("f4")
    if form.kind == _FLOAT:
        scaled = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=-1.0)
    elif form.bits == 8:
        scaled = (scaled - 128) / 128
    else:
        scaled /= 2 ** (15 if form.bits == 16 else 31)
    return np.ascontiguousarray(scaled.mean(axis=1), dtype=np.float32)
