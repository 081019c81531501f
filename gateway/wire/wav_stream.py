"""A WAV file that arrives piece by piece: its header, wherever it is cut, and then its samples.

Rule 1: nothing is said of the samples before the header is whole, and a header has an end.
Rule 2: chunks behind the samples are no sound.
"""

import struct

from gateway.wire.wav import UNKNOWN_LENGTH, NotWav

_MOST_HEADER = 64 * 1024
"""Bytes before the first sample; cover pictures belong elsewhere."""
_PCM, _EXTENSIBLE = 1, 0xFFFE


def may_be(head: bytes) -> bool:
    """Whether what begins so is a WAV file, as far as can be told yet."""
    return b"RIFF"[: len(head)] == head[:4] and b"WAVE"[: max(0, len(head) - 8)] == head[8:12]


class WavStream:
    """One file. Sample rate and channels are known from the first sample on."""

    def __init__(self) -> None:
        self.sample_rate = self.channels = 0
        self._head = bytearray()
        self._left: int | None = None
        """Bytes of samples still to come; None before the header is whole."""
        self._cut = b""
        """A frame that is not whole yet."""

    def feed(self, data: bytes) -> bytes:
        """Whole frames, s16le, channels side by side. Raises NotWav."""
        if self._left is None:
            self._head += data
            at = self._samples_begin()
            if self._left is None:
                if len(self._head) > _MOST_HEADER:
                    raise NotWav("a header without end")
                return b""
            data = bytes(self._head[at:])
            self._head.clear()
        data = self._cut + data[: self._left]
        self._left -= len(data) - len(self._cut)
        whole = len(data) // (2 * self.channels) * 2 * self.channels
        self._cut = data[whole:]
        return data[:whole]

    # Private

    def _samples_begin(self) -> int:
        """Where; `_left` says how many, or is still None."""
        at = 12
        if not may_be(bytes(self._head[:at])):
            raise NotWav("no RIFF WAVE header")
        while at + 8 <= len(self._head):
            name, size = struct.unpack_from("<4sI", self._head, at)
            at += 8
            if name == b"data":
                if not self.sample_rate:
                    raise NotWav("samples before their format")
                self._left = _MANY if size in (0, UNKNOWN_LENGTH) else size
                return at
            if name == b"fmt " and at + 16 <= len(self._head):
                self._format(size, at)
            at += size + (size & 1)
        return at

    def _format(self, size: int, at: int) -> None:
        kind, self.channels, self.sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", self._head, at)
        if size < 16 or kind not in (_PCM, _EXTENSIBLE) or bits != 16:
            raise NotWav(f"its samples are not 16-bit PCM (format {kind}, {bits} bits)")
        if self.channels not in (1, 2) or not 4000 <= self.sample_rate <= 192_000:
            raise NotWav(f"{self.channels} channels of {self.sample_rate} Hz")


_MANY = 1 << 62
"""Bytes of a stream whose length nobody knows."""
