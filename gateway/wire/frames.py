"""WebSocket frames (RFC 6455, 5.2), for the case that is nearly all of the traffic: a read that is exactly one frame,
and that one short binary message. Everything else is for the websockets library."""

import secrets

SHORT = 65535
"""Bytes of a message; longer ones are written otherwise."""
_END = b"\r\n\r\n"
_BINARY = 0x82
"""The first byte of a frame that is a whole binary message."""
_MASKED, _TWO_BYTES, _EIGHT_BYTES = 128, 126, 127


class Frames:
    """Follows what one side reads, from the HTTP message before the frames on, so that it is known where one begins."""

    __slots__ = ("_head", "_left", "_opening")

    def __init__(self) -> None:
        self._opening: bytes | None = b""
        """The last bytes of the HTTP message; None after its end."""
        self._head = b""
        """Of a frame: what has come of its length."""
        self._left = 0
        """Bytes of a frame that are still to come."""

    @property
    def whole(self) -> bool:
        """Whether the next byte begins a frame."""
        return self._opening is None and not self._left and not self._head

    def skip(self, data: bytes) -> None:
        """These are read by somebody else."""
        if self._opening is not None:
            data = self._opening + data
            end = data.find(_END)
            if end < 0:
                self._opening = data[1 - len(_END) :]
                return
            self._opening, data = None, data[end + len(_END) :]
        if self._head:
            data, self._head = self._head + data, b""
        at = self._left
        while at < len(data):
            size = _size(data, at)
            if not size:
                self._head, self._left = data[at:], 0
                return
            at += size
        self._left = at - len(data)


def message(data: bytes, *, masked: bool) -> bytes | None:
    """The binary message in a frame; None where `data` is anything but one such frame. masked: a client sent it."""
    size = len(data)
    if size < 2 or data[0] != _BINARY or (data[1] >= _MASKED) is not masked:
        return None
    at, length = 2, data[1] & ~_MASKED
    if length == _TWO_BYTES and size >= 4:
        at, length = 4, data[2] << 8 | data[3]
    elif length >= _TWO_BYTES:
        return None
    if not masked:
        return data[at:] if size == at + length else None
    return _mask(data[at + 4 :], data[at : at + 4]) if size == at + 4 + length else None


def frame(data: bytes, *, masked: bool) -> bytes:
    """A binary message of at most SHORT bytes. masked: as a client sends it."""
    size, bit = len(data), _MASKED if masked else 0
    if size < _TWO_BYTES:
        head = bytes((_BINARY, bit | size))
    else:
        head = bytes((_BINARY, bit | _TWO_BYTES, size >> 8, size & 255))
    if not masked:
        return head + data
    key = secrets.token_bytes(4)
    return head + key + _mask(data, key)


# Private


def _size(data: bytes, at: int) -> int:
    """Of the frame that begins there, its head included; 0 where the head is not whole."""
    if len(data) < at + 2:
        return 0
    head, length = 2, data[at + 1] & ~_MASKED
    if length >= _TWO_BYTES:
        head = 4 if length == _TWO_BYTES else 10
        if len(data) < at + head:
            return 0
        length = int.from_bytes(data[at + 2 : at + head], "big")
    return head + length + (4 if data[at + 1] & _MASKED else 0)


def _mask(data: bytes, key: bytes) -> bytes:
    size = len(data)
    long = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(long, "little")).to_bytes(size, "little")
