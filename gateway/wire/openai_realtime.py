"""OpenAI's Realtime protocol: JSON text messages, each an event with a type, both ways.

Rule 1: the GA names are ours; the beta's (openai_realtime_beta.py) exist only where a message is read or written.
Rule 2: every event of ours has an event_id; an error names the client's event that it answers.
Rule 3: what a client sends is checked here, field by field, before anything is done about it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.wire import openai_errors
from gateway.wire import openai_realtime_beta as beta
from gateway.wire.openai_realtime_beta import Dialect
from gateway.wire.openai_realtime_fields import Fields, Json, Wrong
from gateway.wire.openai_realtime_items import LONGEST_ID

PATH = "/v1/realtime"
SUBPROTOCOL, KEY_PROTOCOL, BETA_PROTOCOL = "realtime", "openai-insecure-api-key.", "openai-beta.realtime-v1"
BETA_HEADER, BETA_VALUE = b"openai-beta", b"realtime=v1"
TRANSCRIPTION_UPDATE = "transcription_session.update"
LONGEST_EVENT_ID = 512
_LONGEST_HOUR = 24 * 3_600_000
"""Milliseconds."""
MOST_METADATA, LONGEST_METADATA = 16, 512
LONGEST_INPUT = 200
"""Items of a response.create's own input."""


# What a client may say.


@dataclass(frozen=True, slots=True)
class Update:
    session: Fields
    transcription: bool = False
    """Whether it is the beta's event for transcription sessions."""


@dataclass(frozen=True, slots=True)
class Append:
    audio: bytes = field(repr=False)
    """In the session's input format."""


@dataclass(frozen=True, slots=True)
class Commit:
    pass


@dataclass(frozen=True, slots=True)
class Clear:
    pass


@dataclass(frozen=True, slots=True)
class Create:
    item: Fields
    previous: str | None
    """The item behind which it goes: "root" is the beginning; None the end."""


@dataclass(frozen=True, slots=True)
class Retrieve:
    item: str


@dataclass(frozen=True, slots=True)
class Truncate:
    item: str
    content: int
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Delete:
    item: str


@dataclass(frozen=True, slots=True)
class CreateResponse:
    wishes: Fields
    """Those of the session's fields that this response has otherwise."""
    metadata: Json | None
    kept: bool
    """Whether it becomes part of the conversation."""
    input: "list[Fields] | None"
    """In place of the conversation: items, and references to them."""


@dataclass(frozen=True, slots=True)
class CancelResponse:
    id: str | None


@dataclass(frozen=True, slots=True)
class ClearOutput:
    """Of the sound that is played; over a WebSocket nothing of that is ours."""


Said = (
    Update
    | Append
    | Commit
    | Clear
    | Create
    | Retrieve
    | Truncate
    | Delete
    | CreateResponse
    | CancelResponse
    | ClearOutput
)


@dataclass(frozen=True, slots=True)
class Message:
    """What a client sent, as far as it could be read."""

    id: str | None
    """The client's own name for it."""
    said: Said | Wrong


def read(message: str | bytes, dialect: Dialect) -> Message:
    """Never raises: what is wrong is a part of the answer."""
    try:
        found = json.loads(message)
        if isinstance(message, str) and "\\ud" in message.lower():  # a half of a character would be none of UTF-8
            found = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return Message(None, Wrong("The message is not valid JSON.", "invalid_json"))
    if not isinstance(found, dict):
        return Message(None, Wrong("The message is not a JSON object.", "invalid_json"))
    fields, name = Fields(found), None
    try:
        name = fields.text("event_id", LONGEST_EVENT_ID)
        return Message(name, _said(fields, dialect))
    except Wrong as exc:
        return Message(name, exc)


# What is said to it.


def encode(type: str, fields: Json, event_id: str, dialect: Dialect) -> str:  # noqa: A002
    """The message; empty where the dialect has none such."""
    if dialect is Dialect.BETA:
        type = beta.EVENTS.get(type, type)  # noqa: A001
        if not type:
            return ""
    return json.dumps({"type": type, "event_id": event_id, **fields}, ensure_ascii=False, separators=(",", ":"))


def error(status: int, code: str, message: str, param: str | None = None, event_id: str | None = None) -> Json:
    """The fields of an error event. status, code: as gateway/errors.py has them; event_id: of the client's event."""
    return {"error": openai_errors.fields(status, code, message, param) | {"event_id": event_id}}


def failure(status: int, code: str, message: str) -> Json:
    """What went wrong in a transcription or a response; no field of it is null."""
    found = openai_errors.fields(status, code, message)
    return {name: found[name] for name in ("type", "code", "message")}


def usage(text_in: int, audio_in: int, text_out: int, audio_out: int) -> Json:
    """Of a response, in tokens."""
    return {
        "total_tokens": text_in + audio_in + text_out + audio_out,
        "input_tokens": text_in + audio_in,
        "output_tokens": text_out + audio_out,
        "input_token_details": {
            "text_tokens": text_in,
            "audio_tokens": audio_in,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
    }


# Private


def _said(found: Fields, dialect: Dialect) -> Said:
    type = found.needed("type", LONGEST_ID)  # noqa: A001
    if type not in _READERS:
        supported = ", ".join(f"'{name}'" for name in _READERS)
        raise Wrong(f"Invalid value: '{type}'. Supported values are: {supported}.", "invalid_value", "type")
    return _READERS[type](found, dialect)


def _update(found: Fields, _: Dialect) -> Update:
    session = found.child("session")
    if session is None:
        raise found.missing("session")
    return Update(session, found.raw("type") == TRANSCRIPTION_UPDATE)


def _create(found: Fields, _: Dialect) -> Create:
    item = found.child("item")
    if item is None:
        raise found.missing("item")
    return Create(item, found.text("previous_item_id", LONGEST_ID))


def _truncate(found: Fields, _: Dialect) -> Truncate:
    item, content = found.needed("item_id", LONGEST_ID), found.whole("content_index", 0, 1000)
    end = found.whole("audio_end_ms", 0, _LONGEST_HOUR)
    for name, value in (("content_index", content), ("audio_end_ms", end)):
        if value is None:
            raise found.missing(name)
    return Truncate(item, content or 0, end or 0)


def _create_response(found: Fields, dialect: Dialect) -> CreateResponse:
    wishes = found.child("response") or Fields({}, "response")
    kept = wishes.choice("conversation", ("auto", "none")) != "none"
    metadata = wishes.child("metadata")
    if metadata is not None:
        items = metadata.found.items()
        if len(items) > MOST_METADATA or any(
            not isinstance(value, str) or len(value) > LONGEST_METADATA or len(name) > LONGEST_METADATA
            for name, value in items
        ):
            raise wishes.wrong("metadata", f"expected at most {MOST_METADATA} strings of {LONGEST_METADATA} characters")
    given = wishes.children("input", LONGEST_INPUT)
    session = {name: value for name, value in wishes.found.items() if name not in ("conversation", "metadata", "input")}
    if dialect is Dialect.BETA and "max_output_tokens" in session:
        session["max_response_output_tokens"] = session.pop("max_output_tokens")
    return CreateResponse(Fields(session, "response"), None if metadata is None else metadata.found, kept, given)


_READERS: dict[str, Callable[[Fields, Dialect], Said]] = {
    "session.update": _update,
    TRANSCRIPTION_UPDATE: _update,
    "input_audio_buffer.append": lambda found, _: Append(found.audio("audio")),
    "input_audio_buffer.commit": lambda *_: Commit(),
    "input_audio_buffer.clear": lambda *_: Clear(),
    "conversation.item.create": _create,
    "conversation.item.retrieve": lambda found, _: Retrieve(found.needed("item_id", LONGEST_ID)),
    "conversation.item.truncate": _truncate,
    "conversation.item.delete": lambda found, _: Delete(found.needed("item_id", LONGEST_ID)),
    "response.create": _create_response,
    "response.cancel": lambda found, _: CancelResponse(found.text("response_id", LONGEST_ID)),
    "output_audio_buffer.clear": lambda *_: ClearOutput(),
}
