"""Which part of a file an HTTP client asks for, RFC 9110: Range, If-Range, HEAD."""

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from gateway.exchange import Exchange, Headers

_RANGE = re.compile(r"\s*bytes=([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be answered: bytes `start` to before `end`, none where the status is 416."""

    status: int
    start: int
    end: int
    headers: Headers


def part_of(http: Exchange, size: int, modified: datetime) -> Part:
    """size: bytes of the file; modified: when it was last, UTC."""
    etag = f'"{size:x}-{modified.timestamp():.6f}"'.encode()
    date = format_datetime(modified, usegmt=True).encode()
    headers = [(b"accept-ranges", b"bytes"), (b"etag", etag), (b"last-modified", date)]
    ranged = http.scope["method"] == "GET"  # a range means nothing to HEAD
    unchanged = http.header(b"if-range") in (b"", etag, date)
    found = byte_range(http.header(b"range").decode("latin-1"), size) if ranged and unchanged else None
    status, start, end = (206, *found) if found else (200, 0, size)
    if found and start >= end:
        return Part(416, 0, 0, [*headers, (b"content-range", b"bytes */%d" % size)])
    if found:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
    return Part(status, start, end, [*headers, (b"content-length", b"%d" % (end - start))])


def byte_range(asked: str, size: int) -> tuple[int, int] | None:
    """(start, end) in bytes of one asked range, end exclusive; empty (start ≥ end) when it cannot be satisfied.

    None for no range, a malformed one or several: RFC 9110 lets those be answered with the whole file.
    """
    found = _RANGE.fullmatch(asked)
    if not found or found[1] == found[2] == "":
        return None
    if not found[1]:
        last = int(found[2])
        return (max(size - last, 0), size) if last else (size, size)
    start, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    return None if found[2] and int(found[2]) < start else (start, end)
