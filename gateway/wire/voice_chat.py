"""The voice chat backend's JSON: its HTTP answers, `WS /chatting` and `WS /ws`.

Its old clients put a message in the place of the one before it with the same `message_id`, because `content` is
cumulative; and on `/ws` they write what comes, plain text, behind what they have. What later clients may ask for is
beside that: `is_partial` false on the last of a message, `error`, and JSON on `/ws`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.wire import answers

RATE = 16_000
"""Hz of the audio on `/ws`: mono s16le."""
CHUNK_SIZE = (0, 10, 5)
STRIDE = 9_600
"""Samples of a frame as its clients send them; every other size does too."""
LONGEST_CONTENT = 4_000
"""Characters of a message that a client writes."""
LONGEST_FRAME = 64 * 1024
"""Characters of a text frame."""
JSON_FORMAT = "json"
"""The subprotocol, or the value of ?format=, that asks for JSON on `/ws`."""
ACTIVE, ENDED = "active", "ended"


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class EndChat:
    pass


@dataclass(frozen=True, slots=True)
class Say:
    """A message for the assistant."""

    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class End:
    """No more audio."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What clients of FunASR say first; nothing in it is needed here."""


def moment(at: datetime) -> str:
    """Local time without a zone, as these clients know it."""
    return at.astimezone().replace(tzinfo=None).isoformat()


# HTTP


def error(detail: object) -> bytes:
    return json.dumps({"detail": detail}, ensure_ascii=False).encode()


def listed(chat_id: str, title: str, begun: datetime, ended: datetime | None, messages: int) -> dict[str, Any]:
    return _chat(chat_id, title, begun, ended) | {"message_count": messages}


def detail(
    chat_id: str, title: str, begun: datetime, ended: datetime | None, messages: Sequence[dict[str, str]]
) -> dict[str, Any]:
    return _chat(chat_id, title, begun, ended) | {"messages": messages}


def message(message_id: str, speaker: str, content: str, at: datetime) -> dict[str, str]:
    """As `detail` shows it."""
    return {"id": message_id, "speaker": speaker, "content": content, "timestamp": moment(at)}


# WS /chatting


def connection_established(chat_id: str, at: datetime) -> str:
    return _json(type="connection_established", chat_id=chat_id, message="已连接到聊天会话", timestamp=moment(at))


def message_history(chat_id: str, message_id: str, speaker: str, content: str, at: datetime) -> str:
    said = {"chat_id": chat_id, "message_id": message_id, "speaker": speaker, "content": content}
    return _json(type="message_history", **said, timestamp=moment(at))


def new_message(chat_id: str, message_id: str, speaker: str, content: str, at: datetime, *, partial: bool) -> str:
    """content: everything of the message so far."""
    said = {"chat_id": chat_id, "message_id": message_id, "speaker": speaker, "content": content}
    return _json(type="new_message", **said, timestamp=moment(at), is_partial=partial)


def conversation_complete(chat_id: str, at: datetime) -> str:
    return _json(type="conversation_complete", chat_id=chat_id, message="对话已完成", timestamp=moment(at))


def chat_ended(chat_id: str, at: datetime) -> str:
    return _json(type="chat_ended", chat_id=chat_id, message="聊天已结束", timestamp=moment(at))


def pong(at: datetime) -> str:
    return _json(type="pong", timestamp=moment(at))


def failure(code: str, text: str, at: datetime, retry_after: int | None = None) -> str:
    said = {"type": "error", "code": code, "message": text, "timestamp": moment(at)}
    return _json(**said) if retry_after is None else _json(**said, retry_after=retry_after)


def read_chat(frame: str | bytes) -> Ping | EndChat | Say:
    """Raises ValueError, in words for the client."""
    if isinstance(frame, bytes):
        raise ValueError("messages here are JSON in text frames; audio goes to /ws")
    found = _object(frame)
    match found.get("type"):
        case "ping":
            return Ping()
        case "end_chat":
            return EndChat()
        case "message":
            return Say(_content(found.get("content")))
    raise ValueError("type must be one of ping, end_chat, message")


# WS /ws


def asr_update(message_id: str, revision: int, text: str, at: datetime, *, final: bool) -> str:
    """text: everything of the utterance so far. revision grows with each, from 0."""
    said = {"messageId": message_id, "revision": revision, "text": text, "is_final": final}
    return _json(type="asr_update", **said, timestamp=moment(at))


def read_listener(frame: str) -> End | Ping | Configuration:
    """Raises ValueError, in words for the client."""
    found = _object(frame)
    if found.get("type") == "end" or found.get("is_speaking") is False:
        return End()
    if found.get("type") == "ping":
        return Ping()
    if found.get("is_speaking") is True:
        return Configuration()
    raise ValueError('a text frame is {"type": "end"}, {"is_speaking": false} or {"type": "ping"}; audio is binary')


# Private


def _chat(chat_id: str, title: str, begun: datetime, ended: datetime | None) -> dict[str, Any]:
    return {
        "chat_id": chat_id,
        "title": title,
        "status": ACTIVE if ended is None else ENDED,
        "created_at": moment(begun),
        "ended_at": None if ended is None else moment(ended),
    }


def _content(found: object) -> str:
    if not isinstance(found, str) or not found.strip():
        raise ValueError("content must be a text that is not empty")
    if len(found) > LONGEST_CONTENT:
        raise ValueError(f"content has {len(found)} characters; the limit is {LONGEST_CONTENT}")
    return found.strip().replace("\0", "").encode(errors="replace").decode()


def _object(frame: str) -> dict[str, Any]:
    if len(frame) > LONGEST_FRAME:
        raise ValueError(f"a text frame holds at most {LONGEST_FRAME} characters")
    try:
        return answers.read(frame.encode(errors="replace"))
    except ValueError:
        raise ValueError("a text frame must be a JSON object") from None


def _json(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False)
