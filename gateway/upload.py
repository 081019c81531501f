"""Uploads, multipart or bare, saved as they arrive: bounded, hashed, and written outside the event loop."""

import asyncio
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import BadRequest
from gateway.exchange import Exchange
from gateway.tasks import shielded

FIELD_BYTES, FIELDS_BYTES = 64 * 1024, 4 * 1024 * 1024
"""Of one field, and of all fields of a form together."""
MAX_PARTS = 1024
_WRITE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    path: Path
    size: int
    digest: str
    """sha256 of the content, hex; empty where nobody wanted it."""
    filename: str
    """What the client called it; never used as a path."""


@dataclass(slots=True)
class Form:
    fields: dict[str, str] = field(default_factory=dict)
    """The first of each name."""
    lists: dict[str, list[str]] = field(default_factory=dict)
    """Every value of those names that may be given several times."""
    files: dict[str, Saved] = field(default_factory=dict)


async def save(
    http: Exchange,
    *,
    into: Path,
    files: Collection[str],
    limit: int,
    idle: float,
    lists: Collection[str] = (),
    dropped: Collection[str] = (),
    digests: bool = True,
) -> Form:
    """The request's form. The parts named in `files` are written below `into`, other files are dropped.

    limit: bytes of the whole body; idle: seconds; lists: names that may be given several times; dropped: names that
    are not wanted, however long they are; digests: whether they are wanted. Raises TooLarge, BadRequest, ClientGone.
    """
    kind, options = parse_options_header(http.header(b"content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise BadRequest("send multipart/form-data", code="not_multipart")
    reader = _Reader(into, files, lists, dropped, digests)
    writing: asyncio.Future[None] | None = None
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())  # type: ignore[arg-type]
        async for piece in http.chunks(limit, idle):
            parser.write(piece)
            if reader.pending >= _WRITE_BYTES:
                if writing is not None:
                    await writing
                writing = asyncio.get_running_loop().run_in_executor(None, reader.write, reader.take())
        parser.finalize()
        if writing is not None:
            await writing
        form = await asyncio.to_thread(reader.finish)
    except FormParserError as exc:
        raise BadRequest(f"a malformed multipart body: {exc}", code="bad_multipart") from None
    finally:
        if writing is not None and not writing.done():
            await shielded(_settled(writing))
        reader.close()
    if not reader.ended:
        raise BadRequest("the multipart body ends before its last boundary", code="bad_multipart")
    return form


async def save_body(http: Exchange, into: Path, *, limit: int, idle: float) -> int:
    """The request's body as it is, in the new file `into`. Its size in bytes.

    Raises TooLarge, BadRequest, ClientGone."""
    size, pieces, pending = 0, [], 0
    with await asyncio.to_thread(into.open, "xb") as file:
        async for piece in http.chunks(limit, idle):
            pieces.append(piece)
            pending += len(piece)
            if pending >= _WRITE_BYTES:
                await asyncio.to_thread(file.writelines, pieces)
                size, pieces, pending = size + pending, [], 0
        await asyncio.to_thread(file.writelines, pieces)
        await asyncio.to_thread(file.flush)
    return size + pending


@dataclass(slots=True)
class _File:
    path: Path
    filename: str
    handle: BinaryIO
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)


_Batch = list[tuple[_File, list[bytes]]]


async def _settled(writing: "asyncio.Future[None]") -> None:
    await asyncio.wait([writing])


class _Reader:
    """Callbacks of the parser: collects fields, and file content for `write` to write in a thread."""

    def __init__(
        self, into: Path, wanted: Collection[str], lists: Collection[str], dropped: Collection[str], digests: bool
    ) -> None:
        self._form = Form(lists={name: [] for name in lists})
        self._dropped, self._digests = dropped, digests
        self.pending = 0
        self.ended = False
        self._into, self._wanted = into, wanted
        self._files: dict[str, _File] = {}
        self._parts = self._field_bytes = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def take(self) -> "_Batch":
        """What is to be written; more can be read meanwhile."""
        batch = [(file, file.chunks) for file in self._files.values() if file.chunks]
        for file, _ in batch:
            file.chunks = []
        self.pending = 0
        return batch

    def write(self, batch: "_Batch") -> None:
        """Blocks; one at a time."""
        for file, chunks in batch:
            if self._digests:
                for chunk in chunks:
                    file.hash.update(chunk)
            file.handle.writelines(chunks)

    def finish(self) -> Form:
        """Blocks."""
        self.write(self.take())
        for name, file in self._files.items():
            self._form.files[name] = Saved(
                file.path, file.size, file.hash.hexdigest() if self._digests else "", file.filename
            )
        return self._form

    def close(self) -> None:
        for file in self._files.values():
            file.handle.close()

    # Private

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest(f"more than {MAX_PARTS} parts", code="bad_multipart")
        self._headers: dict[str, bytes] = {}
        self._name_bytes, self._value_bytes = bytearray(), bytearray()
        self._file: _File | None = None
        self._text: bytearray | None = None
        self._name = ""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name_bytes += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value_bytes += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name_bytes.decode("latin-1").lower()] = bytes(self._value_bytes)
        self._name_bytes, self._value_bytes = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self._wanted:
            if self._name not in self._files:
                self._open(options.get(b"filename", b"").decode("utf-8", "replace"))
        elif b"filename" not in options and self._name not in ("", *self._form.fields, *self._dropped):
            self._text = bytearray()

    def _open(self, filename: str) -> None:
        path = self._into / f"upload-{len(self._files)}"
        self._file = self._files[self._name] = _File(path, filename, path.open("xb"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.chunks.append(data[start:end])
            self._file.size += end - start
            self.pending += end - start
        elif self._text is not None:
            self._text += data[start:end]
            self._field_bytes += end - start
            if self._field_bytes > FIELDS_BYTES:
                raise BadRequest(f"the fields are longer than {FIELDS_BYTES} bytes", code="field_too_long")
            if len(self._text) > FIELD_BYTES:
                raise BadRequest(
                    f"the field {self._name!r} is longer than {FIELD_BYTES} bytes",
                    code="field_too_long",
                    param=self._name,
                )

    def _part_end(self) -> None:
        if self._text is not None:
            try:
                text = self._text.decode()
            except UnicodeDecodeError:
                raise BadRequest(f"the field {self._name!r} is not UTF-8", param=self._name) from None
            if self._name in self._form.lists:
                self._form.lists[self._name].append(text)
            else:
                self._form.fields[self._name] = text

    def _end(self) -> None:
        self.ended = True
