"""One file, whole and as promised, or not at all.

It grows beside its place as NAME.part; its ETag lies in NAME.part.etag. What a killed process leaves of it is gone
on with, if the server still has the same file. Only what has the promised size and digest takes the name.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

from engines.provision import web
from engines.provision.lock import Pin
from engines.provision.web import Denied, Unavailable, Url

PART = ".part"
_NEARER = 32 * 1024
"""Bytes of an attempt that broke off which are worth the patience of a first one."""
_SPAN = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class WrongContent(web.WebError):
    """What the server gives is not what was promised."""


class Digest:
    """The size and the digests of content as it passes."""

    def __init__(self, promised: Pin) -> None:
        """promised: git's name is made only where there is nothing better to compare, it takes as long again."""
        self.count = 0
        self._sha256 = hashlib.sha256()
        self._git = None
        if promised.git and not promised.sha256 and promised.size is not None:
            self._git = hashlib.sha1(b"blob %d\0" % promised.size, usedforsecurity=False)

    def add(self, chunk: bytes) -> None:
        self.count += len(chunk)
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    @property
    def pin(self) -> Pin:
        return Pin(self.count, self._sha256.hexdigest(), self._git.hexdigest() if self._git else "")


def digest_of(path: Path, promised: Pin, at: Callable[[int], None] | None = None) -> Pin:
    """Of a file. at: told the bytes read so far."""
    digest = Digest(promised)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.add(chunk)
            if at is not None:
                at(digest.count)
    return digest.pin


def download(url: Url, target: Path, promised: Pin, at: Callable[[int], None], limit: int | None = None) -> Pin:
    """Gives what came. at: told the bytes there so far. limit: bytes, where no size is promised. Raises WebError."""
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    again = True
    while True:
        came = _patiently(url, part, promised, at, limit)
        if promised.agrees(came):
            break
        _discard(part)
        if not again:
            raise WrongContent("what it sends does not have the promised checksum, twice")
        again = False  # once: a broken part may have been gone on with
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _discard(part)
    return came


# Private


def _patiently(url: Url, part: Path, promised: Pin, at: Callable[[int], None], limit: int | None) -> Pin:
    pauses = iter(web.PAUSES)
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, promised, at, limit)
        except Unavailable:
            if _size(part) >= before + _NEARER:
                pauses = iter(web.PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise
        time.sleep(pause)


def _attempt(url: Url, part: Path, promised: Pin, at: Callable[[int], None], limit: int | None) -> Pin:
    have = _resumable(part, promised)
    if have and have == promised.size:
        return digest_of(part, promised)
    try:
        with web.opened(url, _range(part, have)) as answer:
            start = _start(answer, have, promised)
            return _received(answer, part, start, promised, at, limit)
    except Denied as exc:
        if exc.status != 416:
            raise
        _discard(part)
        raise Unavailable("it has no such part of the file any more") from exc


def _received(
    answer: HTTPResponse, part: Path, start: int, promised: Pin, at: Callable[[int], None], limit: int | None
) -> Pin:
    most = promised.size if promised.size is not None else limit
    digest = Digest(promised)
    if not start:
        _remember(part, answer.headers.get("ETag", ""))
    with part.open("r+b" if start else "wb") as file:
        while digest.count < start and (chunk := file.read(min(2**20, start - digest.count))):
            digest.add(chunk)
        for chunk in web.chunks(answer):
            if most is not None and digest.count + len(chunk) > most:
                _discard(part)
                raise WrongContent(f"it sends more than the {most} bytes that the file may have")
            file.write(chunk)
            digest.add(chunk)
            at(digest.count)
    if promised.size is not None and digest.count < promised.size:
        raise Unavailable(f"it broke off after {digest.count} bytes")
    return digest.pin


def _resumable(part: Path, promised: Pin) -> int:
    """Bytes that are there of what is promised; without a digest or an ETag nobody knows of what they are."""
    have = _size(part)
    known = bool(promised.sha256 or promised.git) or bool(_etag(part))
    if have and (not known or (promised.size is not None and have > promised.size)):
        _discard(part)
        return 0
    return have


def _range(part: Path, have: int) -> dict[str, str]:
    if not have:
        return {}
    etag = _etag(part)
    return {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {})


def _start(answer: HTTPResponse, have: int, promised: Pin) -> int:
    """Where in the file its body begins."""
    if answer.status != 206:
        size = answer.headers.get("Content-Length")
        if promised.size is not None and size is not None and size.isdigit() and int(size) != promised.size:
            raise WrongContent(f"its file has {size} bytes and not {promised.size}")
        return 0
    span = _SPAN.fullmatch(answer.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != have:
        raise Unavailable("it answers with another part of the file than it was asked for")
    if promised.size is not None and span[2] not in ("*", str(promised.size)):
        raise WrongContent(f"its file has {span[2]} bytes and not {promised.size}")
    return have


def _remember(part: Path, etag: str) -> None:
    """A weak one does not tell two files apart to the byte."""
    name = part.with_name(part.name + ".etag")
    if etag and not etag.startswith("W/"):
        name.write_text(etag)
    else:
        name.unlink(missing_ok=True)


def _etag(part: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return part.with_name(part.name + ".etag").read_text()
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".etag").unlink(missing_ok=True)
