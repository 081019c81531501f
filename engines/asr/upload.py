"""The request's form: its audio goes into a nameless file as it arrives, its fields are bounded.

The file has no name in any folder, so it is gone once nobody has it open, however its request or this server ends.
Workers open it by the path that the kernel gives to an open file.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from engines.asr.refusals import Refused, TooLarge, TooSlow
from gateway.wire import funasr_http as wire

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

LONGEST_FIELD = 128 * 1024
"""Bytes: room for as many hotwords as are allowed."""
_OVERHEAD = 4 * LONGEST_FIELD
_MOST_PARTS = 16
_SLOWEST = 30.0
"""Seconds in which an upload must make some progress."""
_BATCH = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Form:
    audio: str
    """Path of the audio, as long as its spool is open."""
    size: int
    """Its bytes."""
    fields: dict[str, str]


@contextmanager
def spool(folder: Path) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(dir=folder) as file:
        yield cast(BinaryIO, file)


async def read(request: Request, into: BinaryIO, limit: int) -> Form:
    """The form; `limit` is that of the audio, in bytes. Raises Refused and ClientDisconnect."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused("send the audio as multipart/form-data")
    parts = _Parts(limit)
    parser = MultipartParser(options[b"boundary"], parts.callbacks())
    try:
        async for piece in _body(request, limit + _OVERHEAD):
            parser.write(piece)
            if parts.pending >= _BATCH:
                await asyncio.to_thread(parts.flush, into)
    except FormParserError as exc:
        raise Refused("the multipart body is malformed") from exc
    if not parts.ended:
        raise Refused("the multipart body ends before its last boundary")
    await asyncio.to_thread(parts.flush, into)
    if not parts.has_audio:
        raise Refused("No audio file provided")
    into.flush()
    return Form(f"/proc/{os.getpid()}/fd/{into.fileno()}", parts.size, parts.text())


# Private


async def _body(request: Request, limit: int) -> AsyncIterator[bytes]:
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    if size > limit:
        raise TooLarge(f"{size} bytes are too many")
    size, pieces = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(_SLOWEST):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise TooSlow(f"the upload paused for more than {_SLOWEST:g} s") from None
        if piece is None:
            return
        size += len(piece)
        if size > limit:
            raise TooLarge(f"more than {limit} bytes")
        yield piece


class _Parts:
    """The parser's callbacks: collects fields, and the audio's bytes until they are written."""

    def __init__(self, limit: int) -> None:
        self.pending = self.size = self._count = 0
        self.has_audio = self.ended = False
        self._limit = limit
        self._audio: list[bytes] = []
        self._fields: dict[str, bytearray] = {}
        self._name, self._header, self._value = "", b"", b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def flush(self, into: BinaryIO) -> None:
        into.writelines(self._audio)
        self._audio.clear()
        self.pending = 0

    def text(self) -> dict[str, str]:
        """The fields. Raises Refused."""
        try:
            return {name: bytes(value).decode().strip() for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise Refused("a field is not UTF-8") from None

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MOST_PARTS:
            raise Refused(f"more than {_MOST_PARTS} parts")
        self._name = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode(errors="replace")
            if self._name == wire.AUDIO and self.has_audio:
                raise Refused("more than one audio file")
            self.has_audio |= self._name == wire.AUDIO
        self._header = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == wire.AUDIO:
            self.size += end - start
            self.pending += end - start
            if self.size > self._limit:
                raise TooLarge(f"the audio is larger than {self._limit} bytes")
            self._audio.append(data[start:end])
        elif self._name in (wire.LANGUAGE, wire.HOTWORDS, wire.ITN):
            field = self._fields.setdefault(self._name, bytearray())
            field += data[start:end]
            if len(field) > LONGEST_FIELD:
                raise Refused(f"{self._name} is longer than {LONGEST_FIELD} bytes")

    def _end(self) -> None:
        self.ended = True
