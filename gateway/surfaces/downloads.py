"""GET and HEAD /files/…: synthesised audio under an unguessable, expiring name, with Range. No key is asked."""

import re
from email.utils import format_datetime

from gateway.exchange import Exchange
from gateway.files import TYPES, Stored
from gateway.state import State
from gateway.stream import Reader

PREFIX = "/files/"
_RANGE = re.compile(r"\s*bytes=([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


async def download(http: Exchange) -> None:
    state: State = http.state
    name = http.scope["path"].removeprefix(PREFIX)
    stored = await state["downloads"].open(name)
    kind = TYPES[name.rpartition(".")[2]]
    headers = [(b"accept-ranges", b"bytes"), (b"etag", _etag(stored)), (b"last-modified", _modified(stored))]
    ranged = http.scope["method"] == "GET" and _unchanged(http, stored)  # RFC 9110: a range means nothing to HEAD
    part = byte_range(http.header(b"range").decode("latin-1"), stored.size) if ranged else None
    status, start, end = (206, *part) if part else (200, 0, stored.size)
    if part:
        if start >= end:
            await http.answer(416, b"", kind, [*headers, (b"content-range", b"bytes */%d" % stored.size)])
            return
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, stored.size)))
    headers.append((b"content-length", b"%d" % (end - start)))
    idle = state["settings"].client_idle_timeout
    async with http.until_gone(), Reader(http, idle) as reader:
        await reader.start(status, kind, headers)
        if http.scope["method"] != "HEAD":
            async for chunk in state["downloads"].stream(name, start, end):
                await reader.write(chunk)
        await reader.end()


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


def _unchanged(http: Exchange, stored: Stored) -> bool:
    """Whether a resumed download may go on: its If-Range, if any, still names this file."""
    condition = http.header(b"if-range")
    return condition in (b"", _etag(stored), _modified(stored))


def _etag(stored: Stored) -> bytes:
    return f'"{stored.size:x}-{stored.modified.timestamp():.6f}"'.encode()


def _modified(stored: Stored) -> bytes:
    return format_datetime(stored.modified, usegmt=True).encode()
