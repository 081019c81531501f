"""WAV files of mono s16le PCM: the header, written and read.

Rule 1: a header is only ever written for mono s16le.
Rule 2: a length found in a header is a claim; `read_header` never trusts it beyond the bytes that are there.
"""

import struct
from dataclasses import dataclass

HEADER_BYTES = 44
UNKNOWN_LENGTH = 0xFFFFFFFF
"""What a streamed WAV says of its length; players then read to the end."""

MOST_FRAMES = (UNKNOWN_LENGTH - 1) // 2
"""What a header can state: 4 GiB, a day and a half at 16 kHz."""


class NotWav(ValueError):
    """The bytes are not a WAV file of mono s16le PCM."""


@dataclass(frozen=True, slots=True)
class Header:
    sample_rate: int
    """Hz."""
    start: int
    """Offset of the first sample, in bytes."""
    frames: int
    """Whole samples that are really there."""


def header(sample_rate: int, frames: int | None = None) -> bytes:
    """44 bytes before mono s16le PCM at `sample_rate` Hz; `frames` None for a stream of unknown length."""
    data = UNKNOWN_LENGTH if frames is None else frames * 2
    if not 0 <= data <= UNKNOWN_LENGTH:
        raise ValueError(f"a WAV file cannot hold {frames} frames")
    riff = min(data + 36, UNKNOWN_LENGTH)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        riff,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        sample_rate,
        sample_rate * 2,
        2,
        16,
        b"data",
        data,
    )


def read_header(head: bytes, file_bytes: int) -> Header:
    """The header of a mono s16le WAV file.

    head: the file's first bytes (4 KiB is plenty); file_bytes: its real size. Raises NotWav.
    """
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise NotWav("no RIFF WAVE header")
    rate, at = 0, 12
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"fmt ":
            if size < 16 or at + 16 > len(head):
                raise NotWav("a cut-off fmt chunk")
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head, at)
            if (kind, channels, bits) != (1, 1, 16) or not 1 <= rate <= 768_000:
                raise NotWav(f"not mono s16le: format {kind}, {channels} channels, {bits} bits, {rate} Hz")
        elif name == b"data":
            if not rate:
                raise NotWav("data before fmt")
            return Header(rate, at, max(0, min(size, file_bytes - at)) // 2)
        at += size + (size & 1)
    raise NotWav("no data chunk")
