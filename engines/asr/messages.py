"""What the server and a worker say to each other over the worker's stdin and stdout: one JSON object per line.

The worker begins with `hello` or `failed`; then it answers every job, cancelled or not, with exactly one message.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

LONGEST = 16 * 2**20
"""Bytes of a line; the words of ten hours are about one mebibyte."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The model is loaded."""

    model: str
    device: str
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be loaded."""

    reason: str


@dataclass(frozen=True, slots=True)
class Work:
    number: int
    path: str
    language: str
    hotwords: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    status: int
    """As of HTTP: 200, or whose fault it is; 499 for a job that was cancelled."""
    text: str = field(repr=False)
    """What was heard, or what is wrong."""


Message = Hello | Failed | Work | Cancel | Answer
_KINDS = {kind.__name__: kind for kind in (Hello, Failed, Work, Cancel, Answer)}


def encode(message: Message) -> bytes:
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises ValueError."""
    try:
        found: dict[str, Any] = json.loads(line)
        kind: Callable[..., Message] = _KINDS[found.pop("kind")]
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError("not a message between the server and a worker") from exc
