"""Ogg Opus streams as Fun-Audio-Chat's protocol has them, with sphn: packed and unpacked piece by piece, and pages told
from what is none.

The only codec here that stands on libraries (sphn, which brings libopus, and numpy).
"""

from functools import cache

import numpy as np
import sphn

RATE = 24_000
"""Hz, of the PCM on both sides."""
FRAME = 960
"""Samples in a page: 40 ms."""
_APPEND = 4000
"""Bytes. sphn fails on appends of 20,000."""
_HEAD = 27
"""Bytes of a page before its table of segments."""
_FRAME_BYTES = 2 * FRAME
_DELAY = 312
"""Samples at 48 kHz, 6.5 ms: how much later than it was encoded sound comes out of a decoder."""
MOST_SECONDS = 5.0
"""Of audio in a page. Live encoders make pages of 20 ms to 1 s."""
_MOST_FRAME = 1275
"""Bytes of a frame."""
_MOST_PACKET_SECONDS = 0.1201
"""120 ms, and what adding floats makes of it."""
_PAGE_BYTES = _HEAD + 255 + 255 * 255
"""More than any page holds."""


class NotOpus(ValueError):
    """Bytes that are no Ogg Opus stream; the text says why."""


def is_page(data: bytes) -> bool:
    """Whether it is exactly one whole page."""
    if len(data) < _HEAD or data[:5] != b"OggS\0":
        return False
    body = _HEAD + data[_HEAD - 1]
    return len(data) == body + sum(data[_HEAD:body])


class Pages:
    """Cuts a stream of bytes into whole pages. After NotOpus the next page begins anew."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def empty(self) -> bool:
        """Whether no page has begun."""
        return not self._rest

    def feed(self, data: bytes) -> list[bytes]:
        """The pages that `data` completes. Raises NotOpus; what was held is dropped then."""
        if not self._rest and is_page(data):  # as live encoders send them
            return [data]
        self._rest += data
        found = []
        while (size := self._size()) and len(self._rest) >= size:
            found.append(bytes(self._rest[:size]))
            del self._rest[:size]
        return found

    def _size(self) -> int:
        """Of the first page; 0 where its head is not there yet."""
        rest = self._rest
        if not b"OggS\0".startswith(bytes(rest[:5])):
            rest.clear()
            raise NotOpus("the audio is not in Ogg pages (raw Opus packets and other containers are not understood)")
        if len(rest) < _HEAD or len(rest) < _HEAD + rest[26]:
            return 0
        return _HEAD + rest[26] + sum(rest[_HEAD : _HEAD + rest[26]])


def is_header(page: bytes) -> bool:
    """Whether a whole page is one of the two that a stream begins with: one packet, and nothing else in it."""
    count = page[26]
    if not page.startswith((b"OpusHead", b"OpusTags"), _HEAD + count):
        return False
    return page[_HEAD : _HEAD + count - 1] == b"\xff" * (count - 1)


def seconds(page: bytes) -> float:
    """How much audio a whole page holds, told by the first bytes of its packets (RFC 6716, 3.1)."""
    if is_header(page):
        return 0.0
    table, at = page[_HEAD : _HEAD + page[26]], _HEAD + page[26]
    begins, found = not page[5] & 1, 0.0  # the first packet may be the rest of one in the page before
    for size in table:
        if begins and size:
            found += _packet_seconds(page[at], page[at + 1] if size > 1 else 0)
        begins = size < 255
        at += size
    return found


def check(page: bytes) -> float:
    """Seconds of audio in a whole page of which each packet keeps the rules that decoders insist on (RFC 6716, 3.4):
    nothing that passes ends a decoder. What is in the packets may be any noise. Raises NotOpus."""
    if is_header(page):
        return 0.0
    count = page[26]
    at, size, found = _HEAD + count, 0, 0.0
    begins = not page[5] & 1
    for segment in page[_HEAD:at]:
        size += segment
        if segment < 255:
            if begins:
                found += _packet(page, at, size)
            at, size, begins = at + size, 0, True
    if size and begins:  # the next page has the rest of it
        found += _packet_seconds(page[at], page[at + 1])
    if found > MOST_SECONDS:  # a packet of two bytes can claim 120 ms, and a page has room for many
        raise NotOpus(f"a page holds more than {MOST_SECONDS:g} s of audio")
    return found


def _packet_seconds(first: int, second: int) -> float:
    config, code = first >> 3, first & 3
    if config < 12:
        frame = (0.01, 0.02, 0.04, 0.06)[config & 3]
    elif config < 16:
        frame = (0.01, 0.02)[config & 1]
    else:
        frame = (0.0025, 0.005, 0.01, 0.02)[config & 3]
    return frame * (1 if code == 0 else 2 if code < 3 else second & 63)


def _packet(page: bytes, at: int, size: int) -> float:
    """Seconds in the packet of `size` bytes at `at`. Raises NotOpus."""
    if not size:  # a decoder takes it for a loss, and makes up seconds of sound for it
        raise NotOpus("a packet of the audio is empty")
    code = page[at] & 3
    if code == 0:
        fits = size - 1 <= _MOST_FRAME
    elif code == 1:
        fits = size & 1 == 1 and size >> 1 <= _MOST_FRAME
    elif code == 2:
        first, used = _length(page, at + 1, at + size)
        fits = 0 <= size - 1 - used - first <= _MOST_FRAME
    else:
        fits = _many_frames(page, at, size)
    if not fits:
        raise NotOpus("the audio is in Ogg pages, but not Opus")
    return _packet_seconds(page[at], page[at + 1] if size > 1 else 0)


def _length(page: bytes, at: int, end: int) -> tuple[int, int]:
    """A frame's length as it is written at `at`, and in how many bytes; one that is too long where they are missing."""
    if at >= end or (page[at] >= 252 and at + 1 >= end):
        return _PAGE_BYTES, 0
    return (page[at], 1) if page[at] < 252 else (page[at] + 4 * page[at + 1], 2)


def _many_frames(page: bytes, at: int, size: int) -> bool:
    """Whether a packet of code 3 holds what it says: up to 48 frames, and padding behind them."""
    if size < 2 or not page[at + 1] & 63 or _packet_seconds(page[at], page[at + 1]) > _MOST_PACKET_SECONDS:
        return False
    flags, count, end, at = page[at + 1], page[at + 1] & 63, at + size, at + 2
    more = bool(flags & 64)
    while more:
        if at >= end:
            return False
        more, end, at = page[at] == 255, end - min(page[at], 254), at + 1
    if not flags & 128:
        return end >= at and (end - at) % count == 0 and (end - at) // count <= _MOST_FRAME
    for _ in range(count - 1):
        length, used = _length(page, at, end)
        at, end = at + used, end - length
    return 0 <= end - at <= _MOST_FRAME


class Unpacker:
    """An Ogg Opus stream → PCM: mono s16le at 24 kHz."""

    def __init__(self) -> None:
        self._reader = sphn.OpusStreamReader(RATE)

    def feed(self, page: bytes) -> bytes:
        """PCM of a whole page, b"" where it holds none. Raises NotOpus; the stream goes on with the next page then."""
        check(page)
        try:
            found = [self._reader.append_bytes(page[at : at + _APPEND]) for at in range(0, len(page), _APPEND)]
        except BaseException as exc:  # a panic of its Rust is no Exception
            if isinstance(exc, KeyboardInterrupt | SystemExit):
                raise
            self._reader = sphn.OpusStreamReader(RATE)  # one that met garbage reads nothing any more
            raise NotOpus("the audio is not Opus") from None
        samples = found[0] if len(found) == 1 else np.concatenate(found)
        pcm: bytes = np.multiply(samples.clip(-1, 1), 32767).astype("<i2").tobytes()
        return pcm


class Packer:
    """PCM, mono s16le at 24 kHz → an Ogg Opus stream, a page each 40 ms; the first comes with the two headers."""

    def __init__(self) -> None:
        self._writer = sphn.OpusStreamWriter(RATE)
        self._rest = b""
        self._begun = False

    def feed(self, pcm: bytes) -> list[bytes]:
        """What `pcm` completes: each item a whole page, fit for one message; before the first the headers."""
        pcm = self._rest + pcm
        whole = len(pcm) // _FRAME_BYTES * _FRAME_BYTES
        self._rest = pcm[whole:]
        return [self._page(pcm[at : at + _FRAME_BYTES]) for at in range(0, whole, _FRAME_BYTES)]

    def end(self) -> list[bytes]:
        """What is left, padded with silence, and a page of silence more for what the codec still holds back. The
        stream may go on after it."""
        rest, self._rest = self._rest, b""
        return self.feed(rest + bytes(-len(rest) % _FRAME_BYTES + _FRAME_BYTES))

    def drop(self) -> None:
        """Forgets what has not filled a page."""
        self._rest = b""

    def _page(self, pcm: bytes) -> bytes:
        page = bytes(self._writer.append_pcm(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768))
        if not self._begun:
            self._begun, end = True, _HEAD + 1 + page[_HEAD]
            page = _skipping(page[:end], _DELAY) + page[end:]
        return page


# Private


@cache
def _skipping(head: bytes, samples: int) -> bytes:
    """The page that a stream begins with, changed to tell decoders to skip so many samples. sphn's tells them to skip
    the first 80 ms, of which all but the codec's own delay are speech."""
    page = bytearray(head)
    page[38:40] = samples.to_bytes(2, "little")
    page[22:26] = bytes(4)
    page[22:26] = _checksum(page).to_bytes(4, "little")
    return bytes(page)


def _checksum(page: bytes | bytearray) -> int:
    """Of a page in which its place is zero (RFC 3533, 6)."""
    found = 0
    for byte in page:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ (0x04C11DB7 if found >> 31 else 0)) & 0xFFFFFFFF
    return found
