"""ITU-T G.711: a sample of telephone sound, at 8 kHz, in one byte; µ-law in America and Japan, A-law elsewhere."""

import struct
from functools import cache

RATE = 8000
"""Hz."""
_BIAS, _CLIP = 0x84, 32_635
_MU_FLIP, _A_FLIP = 0xFF, 0x55
_SIGN, _STEPS = 0x80, 0x0F


def from_mu_law(data: bytes) -> bytes:
    """Mono s16le."""
    return _expanded(data, _mu_expansion())


def from_a_law(data: bytes) -> bytes:
    """Mono s16le."""
    return _expanded(data, _a_expansion())


def to_mu_law(pcm: bytes) -> bytes:
    """pcm: mono s16le, whole samples."""
    return _compressed(pcm, _mu_compression())


def to_a_law(pcm: bytes) -> bytes:
    """pcm: mono s16le, whole samples."""
    return _compressed(pcm, _a_compression())


# Private


def _expanded(data: bytes, table: list[bytes]) -> bytes:
    return b"".join(map(table.__getitem__, data))


def _compressed(pcm: bytes, table: bytes) -> bytes:
    return bytes(map(table.__getitem__, struct.unpack(f"<{len(pcm) // 2}H", pcm)))


@cache
def _mu_expansion() -> list[bytes]:
    return [struct.pack("<h", _mu_sample(byte)) for byte in range(256)]


@cache
def _a_expansion() -> list[bytes]:
    return [struct.pack("<h", _a_sample(byte)) for byte in range(256)]


@cache
def _mu_compression() -> bytes:
    """By the sample as an unsigned number."""
    return bytes(_mu_byte(_signed(sample)) for sample in range(65_536))


@cache
def _a_compression() -> bytes:
    return bytes(_a_byte(_signed(sample)) for sample in range(65_536))


def _signed(sample: int) -> int:
    return sample - 65_536 if sample & 0x8000 else sample


def _mu_sample(byte: int) -> int:
    byte ^= _MU_FLIP
    size = (((byte & _STEPS) << 3) + _BIAS << (byte >> 4 & 7)) - _BIAS
    return -size if byte & _SIGN else size


def _mu_byte(sample: int) -> int:
    sign = _SIGN if sample < 0 else 0
    size = min(abs(sample), _CLIP) + _BIAS
    segment = size.bit_length() - 8
    return (sign | segment << 4 | size >> segment + 3 & _STEPS) ^ _MU_FLIP


def _a_sample(byte: int) -> int:
    byte ^= _A_FLIP
    segment, size = byte >> 4 & 7, (byte & _STEPS) << 4
    size = size + 8 if segment == 0 else size + 0x108 << segment - 1
    return size if byte & _SIGN else -size


def _a_byte(sample: int) -> int:
    sign = _SIGN if sample >= 0 else 0
    size = (sample if sample >= 0 else ~sample) >> 3
    segment = max(0, size.bit_length() - 5)
    return (sign | segment << 4 | size >> max(1, segment) & _STEPS) ^ _A_FLIP
