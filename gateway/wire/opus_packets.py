"""Opus packets without a container, as live clients send them: one in each message, or several with their lengths.

Alibaba's `opu` puts one byte, the packet's length, before each. A page of Ogg around each makes them a stream that
gateway/wire/opus.py reads.
"""

import struct
from functools import cache

from gateway.wire.opus import NotOpus

_SAMPLES = 48
"""Per millisecond, in which Ogg Opus counts whatever is encoded."""
_MOST_PACKET = 255 * 255 - 1


def packets(message: bytes) -> list[bytes]:
    """Those of a message: cut by their lengths where these come out even, else the whole of it."""
    found, at = [], 0
    while at < len(message):
        size = message[at]
        if not size or at + 1 + size > len(message):
            return [message] if message else []
        found.append(message[at + 1 : at + 1 + size])
        at += 1 + size
    return found


class Wrapped:
    """Packets → pages, one for each, after the two with which a stream begins."""

    def __init__(self) -> None:
        self._number = 0
        self._position = 0

    def begin(self) -> list[bytes]:
        """The first two pages: mono, encoded from any rate."""
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 0, 16_000, 0, 0)
        return [self._page(head, 2), self._page(struct.pack("<8sII", b"OpusTags", 0, 0), 0)]

    def page(self, packet: bytes) -> bytes:
        """Raises NotOpus where the packet is too long for any."""
        if not packet or len(packet) > _MOST_PACKET:
            raise NotOpus(f"an Opus packet of {len(packet)} bytes")
        self._position += 20 * _SAMPLES
        return self._page(packet, 0)

    # Private

    def _page(self, packet: bytes, flags: int) -> bytes:
        table = b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,))
        head = struct.pack("<4sBBQII", b"OggS", 0, flags, self._position, 1, self._number)
        tail = bytes((len(table),)) + table + packet
        self._number += 1
        return head + struct.pack("<I", _checksum(head + bytes(4) + tail)) + tail


def _checksum(page: bytes) -> int:
    """RFC 3533, 6."""
    table, found = _table(), 0
    for byte in page:
        found = found << 8 & 0xFFFFFFFF ^ table[found >> 24 ^ byte]
    return found


@cache
def _table() -> tuple[int, ...]:
    def entry(byte: int) -> int:
        found = byte << 24
        for _ in range(8):
            found = (found << 1 ^ (0x04C11DB7 if found >> 31 else 0)) & 0xFFFFFFFF
        return found

    return tuple(map(entry, range(256)))
