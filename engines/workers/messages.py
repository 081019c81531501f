"""What a server and a worker say to each other: a line of JSON, and after it as many raw bytes as `size` in it says.

The worker begins with Hello or Failed. Then it answers every Work, cancelled or not, with any number of Pieces and
exactly one Answer.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

LONGEST = 32 * 2**20
"""Bytes of a line, and of what follows it; the words of ten hours are about one mebibyte, a recording of a voice is up
to twenty."""
AHEAD = 64 * 1024
"""Bytes that a StreamReader for `read` is to hold back its sender at: what is longer is put together here."""

Fields = Mapping[str, Any]
"""Whatever JSON can say."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The model is loaded."""

    model: str
    device: str
    facts: Fields = field(default_factory=dict)
    """What the server has to know of it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be loaded."""

    reason: str


@dataclass(frozen=True, slots=True)
class Work:
    number: int
    task: str
    fields: Fields = field(default_factory=dict, repr=False)
    data: bytes = field(default=b"", repr=False)
    urgent: bool = False
    """Whether it is done in the pauses of the job at hand, at the next moment at which that one asks for its end."""


@dataclass(frozen=True, slots=True)
class Cancel:
    number: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer, as soon as it is there."""

    number: int
    fields: Fields = field(default_factory=dict, repr=False)
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    status: int = 200
    """As of HTTP: 200, or whose fault it is; 499 for a job that was cancelled."""
    text: str = field(default="", repr=False)
    """What is wrong, where something is."""
    fields: Fields = field(default_factory=dict, repr=False)


Message = Hello | Failed | Work | Cancel | Piece | Answer
_KINDS: dict[str, Callable[..., Message]] = {
    kind.__name__: kind for kind in (Hello, Failed, Work, Cancel, Piece, Answer)
}
_WITH_DATA = ("Work", "Piece")


def encode(message: Message) -> bytes:
    """Raises ValueError for one that is longer than the other side would take."""
    kind, body = type(message).__name__, asdict(message)
    data: bytes = body.pop("data", b"")
    line = json.dumps({"kind": kind, "size": len(data), **body}).encode() + b"\n"
    if max(len(line), len(data)) > LONGEST:
        raise ValueError("a message that is too long")
    return line + data


async def read(source: asyncio.StreamReader) -> Message:
    """Raises ValueError, and EOFError where the other side has ended."""
    head, size = _head(await _line(source))
    return _made(head, await source.readexactly(size))


def receive(source: BinaryIO) -> Message:
    """The same, for whoever may wait. Raises ValueError and EOFError."""
    line = source.readline(LONGEST)
    if not line.endswith(b"\n"):
        raise EOFError
    head, size = _head(line)
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return _made(head, data)


async def _line(source: asyncio.StreamReader) -> bytes:
    """One of up to LONGEST bytes, whatever the reader's own limit is."""
    begun = bytearray()
    while True:
        try:
            return bytes(begun + await source.readuntil())
        except asyncio.LimitOverrunError as exc:
            begun += await source.readexactly(exc.consumed)
        if len(begun) > LONGEST:
            raise ValueError("a message that is too long")


def _head(line: bytes) -> tuple[dict[str, Any], int]:
    found = json.loads(line)
    size = found.pop("size", None) if isinstance(found, dict) else None
    if not isinstance(size, int) or not 0 <= size <= LONGEST:
        raise ValueError("not a message between a server and a worker")
    return found, size


def _made(found: dict[str, Any], data: bytes) -> Message:
    try:
        kind = found.pop("kind")
        return _KINDS[kind](**found, **({"data": data} if kind in _WITH_DATA else {}))
    except (KeyError, TypeError) as exc:
        raise ValueError("not a message between a server and a worker") from exc
