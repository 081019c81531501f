"""Fun-Audio-Chat's WebSocket protocol: binary messages, a type byte and what belongs to it.

Upstream's server takes one turn at a time and says little. What it does not say goes through `04` JSON, which its
clients pass over (gateway/wire/turns.py).
"""

import json
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

PATH = "/api/chat"
BROWSER_PATH = "/api/simplex"
"""What upstream's web page opens."""
RATE = 24_000
"""Hz, of the Opus streams in both directions."""
MOST_BYTES = 1024 * 1024
"""Longest message that either side has a reason to send; a page of speech has some hundred bytes."""
PROCESSING = "[Processing...]"
"""As text: the turn has been taken, its answer is being made."""


class Kind(IntEnum):
    """The first byte of a message."""

    HANDSHAKE = 0
    AUDIO = 1
    TEXT = 2
    CONTROL = 3
    METADATA = 4
    ERROR = 5
    PING = 6
    COLORED_TEXT = 7


class Action(IntEnum):
    """The second byte of a control message."""

    START = 0
    """The user begins to speak."""
    END_TURN = 1
    """The same as PAUSE."""
    PAUSE = 2
    """The user has finished, and waits for the reply."""
    RESTART = 3
    """Nothing is known to act on it."""


class Unreadable(ValueError):
    """Bytes that are no message; the text says why, and never what was in them."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """The server's first message. Both numbers are 0 to 255, and nobody reads them."""

    version: int = 0
    model: int = 0


@dataclass(frozen=True, slots=True)
class Audio:
    """A part of an Ogg Opus stream: whole pages from a server, any part of one from a client."""

    pages: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Control:
    action: Action


@dataclass(frozen=True, slots=True)
class Metadata:
    json: str = field(repr=False)
    """An object, as it was written."""

    @property
    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.json)
        return found


@dataclass(frozen=True, slots=True)
class Error:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class ColoredText:
    color: int
    """0 to 255."""
    text: str = field(repr=False)


Message = Handshake | Audio | Text | Control | Metadata | Error | Ping | ColoredText


def metadata(fields: dict[str, Any]) -> Metadata:
    return Metadata(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def encode(message: Message) -> bytes:
    """The bytes of a message; `decode` gives it back. What no UTF-8 can say, half a surrogate pair, becomes a `?`."""
    match message:
        case Audio(pages):
            return b"\1" + pages
        case Handshake(version, model):
            return bytes((Kind.HANDSHAKE, version, model))
        case Text(text):
            return b"\2" + text.encode(errors="replace")
        case Control(action):
            return bytes((Kind.CONTROL, action))
        case Metadata(text):
            return b"\4" + text.encode(errors="replace")
        case Error(text):
            return b"\5" + text.encode(errors="replace")
        case Ping():
            return b"\6"
        case ColoredText(color, text):
            return bytes((Kind.COLORED_TEXT, color)) + text.encode(errors="replace")


def decode(data: bytes) -> Message:
    """The message that bytes are; `encode` gives them back. Raises Unreadable."""
    if not data:
        raise Unreadable("an empty message")
    kind, rest = data[0], data[1:]
    match kind:
        case Kind.AUDIO:
            return Audio(rest)
        case Kind.CONTROL:
            return Control(_action(rest))
        case Kind.PING if not rest:
            return Ping()
        case Kind.TEXT:
            return Text(_text(rest))
        case Kind.METADATA:
            return Metadata(_object(rest))
        case Kind.ERROR:
            return Error(_text(rest))
        case Kind.HANDSHAKE if len(rest) == 2:
            return Handshake(rest[0], rest[1])
        case Kind.COLORED_TEXT if rest:
            return ColoredText(rest[0], _text(rest[1:]))
        case Kind.PING | Kind.HANDSHAKE | Kind.COLORED_TEXT:
            raise Unreadable(f"a message of type {kind:02x} with {len(rest)} bytes after its type")
    raise Unreadable(f"there is no message type {kind:02x}")


# Private


def _action(rest: bytes) -> Action:
    if len(rest) != 1:
        raise Unreadable(f"a control message has one byte after its type, not {len(rest)}")
    try:
        return Action(rest[0])
    except ValueError:
        raise Unreadable(f"there is no control action {rest[0]:02x}") from None


def _text(rest: bytes) -> str:
    try:
        return rest.decode()
    except UnicodeDecodeError:
        raise Unreadable("the text is not UTF-8") from None


def _object(rest: bytes) -> str:
    text = _text(rest)
    try:
        found = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair could never be sent on
    except (ValueError, RecursionError):
        raise Unreadable("the metadata is not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("the metadata is not a JSON object")
    return text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
