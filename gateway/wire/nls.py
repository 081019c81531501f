"""Alibaba's NLS protocol as FunSpeech serves it: JSON envelopes around a header, audio in binary messages beside them.

Rule 1: every name and code of the protocol that several surfaces use appears in this file.
Rule 2: numbers, flags and texts of a client are read as its many clients write them: null is as good as absent, and a
number may stand in quotes. What cannot be meant as one is refused.
Rule 3: what comes from a client and is sent back to it (a task's id, a wrong name) is short and printable.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

PATH, ASR_PATH, TTS_PATH = "/ws/v1", "/ws/v1/asr", "/ws/v1/tts"
"""Alibaba's own clients open the first for everything, FunSpeech's the other two."""
TRANSCRIBER, RECOGNIZER = "SpeechTranscriber", "SpeechRecognizer"
FLOWING, SYNTHESIZER, LONG_SYNTHESIZER = "FlowingSpeechSynthesizer", "SpeechSynthesizer", "SpeechLongSynthesizer"
DEFAULT = "Default"
"""The namespace of failures that belong to none, and of all failures of a FLOWING task."""
STARTS = {
    TRANSCRIBER: "StartTranscription",
    RECOGNIZER: "StartRecognition",
    FLOWING: "StartSynthesis",
    SYNTHESIZER: "StartSynthesis",
    LONG_SYNTHESIZER: "StartSynthesis",
}
"""The command that begins a task of each namespace."""
COMMANDS = {
    TRANSCRIBER: frozenset(("StopTranscription", "ControlTranscriber")),
    RECOGNIZER: frozenset(("StopRecognition",)),
    FLOWING: frozenset(("RunSynthesis", "StopSynthesis")),
    SYNTHESIZER: frozenset(),
    LONG_SYNTHESIZER: frozenset(),
}
"""Those that may follow."""
LONGEST_ID, LONGEST_NAME = 128, 64
_SUCCESS = "GATEWAY|SUCCESS|Success."


class Unusable(ValueError):
    """What a client sent cannot be used; says why, in one line for it."""


class Status(IntEnum):
    SUCCESS = 20000000
    CLIENT_ERROR = 40000000
    ACCESS_DENIED = 40000001
    INVALID_MESSAGE = 40000002
    INVALID_PARAMETER = 40000003
    IDLE_TIMEOUT = 40000004
    TOO_MANY_REQUESTS = 40000005
    SERVER_ERROR = 50000000


@dataclass(frozen=True, slots=True)
class Message:
    """A client's text message."""

    namespace: str
    name: str
    task_id: str = ""
    """Empty where it names none."""
    appkey: str = field(default="", repr=False)
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read(frame: str) -> Message:
    """Raises Unusable. Fields that nobody knows are passed over."""
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        raise Unusable("Message Not Json") from None
    if not isinstance(found, dict) or not isinstance(found.get("header"), dict):
        raise Unusable("Message has no header")
    header, payload = found["header"], found.get("payload")
    if payload is None:
        payload = {}
    if not isinstance(payload, dict):
        raise Unusable("payload is not an object")
    return Message(
        _word(header, "namespace", LONGEST_NAME),
        _word(header, "name", LONGEST_NAME),
        _word(header, "task_id", LONGEST_ID),
        _word(header, "appkey", LONGEST_ID),
        payload,
    )


def number(payload: Mapping[str, Any], name: str, default: float) -> float:
    """A finite number; `default` where it is absent, null or empty. Raises Unusable."""
    value = payload.get(name)
    if value is None or value == "":
        return default
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise Unusable(f"{name} is not a number") from None
    if not math.isfinite(found):
        raise Unusable(f"{name} is not a number")
    return found


def flag(payload: Mapping[str, Any], name: str, default: bool) -> bool:
    """Also 0, 1, "true", "false"; `default` where it is absent, null or empty. Raises Unusable."""
    value = payload.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    raise Unusable(f"{name} is neither true nor false")


def text(payload: Mapping[str, Any], name: str, default: str = "") -> str:
    """`default` where it is absent or null. Raises Unusable where it is no text."""
    value = payload.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Unusable(f"{name} is not a text")
    return value


def event(message_id: str, task_id: str, namespace: str, name: str, payload: Mapping[str, Any] | None = None) -> str:
    """What a server says of a task. message_id: 32 hexadecimal digits, as everywhere in this protocol."""
    header = _header(message_id, task_id, namespace, name, Status.SUCCESS) | {"status_message": _SUCCESS}
    return _json({"header": header} if payload is None else {"header": header, "payload": payload})


def failed(message_id: str, task_id: str, namespace: str, status: Status, reason: str) -> str:
    """TaskFailed. namespace: the task's; as FunSpeech has it, FLOWING tasks fail in DEFAULT."""
    said = DEFAULT if namespace == FLOWING else namespace
    return _json({"header": _header(message_id, task_id, said, "TaskFailed", status) | {"status_text": reason}})


def denied(what: str, given: str) -> str:
    """what: token or appkey; given: masked, empty where it is missing."""
    if given:
        return f"Gateway:ACCESS_DENIED:The {what} '{given}' is invalid!"
    return "缺少X-NLS-Token头部" if what == "token" else f"缺少{what}参数"


def result(task_id: str, status: Status, message: str, text: str = "", more: Mapping[str, Any] | None = None) -> bytes:
    """The body of an HTTP answer that is JSON. more: fields beyond FunSpeech's."""
    body = {"task_id": task_id, "result": text, "status": int(status), "message": message, **(more or {})}
    return _json(body).encode(errors="replace")


# Private


def _word(header: Mapping[str, Any], name: str, most: int) -> str:
    value = header.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise Unusable(f"header.{name} is not a text of at most {most} printable characters")
    return value


def _header(message_id: str, task_id: str, namespace: str, name: str, status: Status) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "task_id": task_id,
        "namespace": namespace,
        "name": name,
        "status": int(status),
    }


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False)
