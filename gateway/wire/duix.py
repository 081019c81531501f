"""Duix-Avatar's HTTP protocol: a recording and a template video in, a talking video out, by polling.

POST /easy/submit, JSON {"audio_url", "video_url", "code", "chaofen", "watermark_switch", "pn"}; GET /easy/query?code=.
Every answer is HTTP 200, {"code", "data", "msg", "success"}, which upstream sends as text/html.

Rule 1: of a query's data, `result` is empty while the job runs, and a success names its file.
Rule 2: nothing that an engine or a client says is believed beyond its type and its bounds.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import isfinite
from typing import Any

from gateway.wire import answers

SUBMIT, QUERY = "/easy/submit", "/easy/query"
HEALTH_CODE = "health_check"
"""What clients ask the state of, when they only want to know whether anybody is there."""
LONGEST_CODE, LONGEST_URL = 200, 2000


class Code(IntEnum):
    """Of an answer."""

    SYSTEM = 9999
    OK = 10000
    BUSY = 10001
    """On submit: one task at a time."""
    PARAMETER = 10002
    LOCK = 10003
    UNKNOWN = 10004
    """On query: never there, read already, or forgotten by a restart."""
    DUPLICATE = 10005


class State(IntEnum):
    """Of a job."""

    RUNNING = 1
    DONE = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Submit:
    audio: str
    """A path inside the engine, a name in its folder temp, or a URL."""
    video: str
    code: str
    super_resolution: bool = False
    watermark: bool = False
    ping_pong: bool = True
    """Whether the template is played forward, then backward, and so on; else from its start each time."""
    notify: str = ""
    """A URL that is told the outcome: ours, and of no use to an engine."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a query answers of a job that is known."""

    state: State
    progress: float = 0.0
    """Percent."""
    result: str = ""
    text: str = field(default="", repr=False)
    """The stage, or what went wrong."""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int | None
    """None where the answer holds no number; see Code."""
    data: Mapping[str, Any]
    text: str = field(repr=False)


def submission(asked: Submit) -> bytes:
    return _json(
        {
            "audio_url": asked.audio,
            "video_url": asked.video,
            "code": asked.code,
            "chaofen": int(asked.super_resolution),
            "watermark_switch": int(asked.watermark),
            "pn": int(asked.ping_pong),
        }
    )


def read_submission(body: bytes) -> Submit:
    """Raises ValueError; its words name the field."""
    try:
        found = answers.read(body)
    except ValueError:
        raise ValueError("the body is no JSON object") from None
    audio, video = (_text(found, name, LONGEST_URL) for name in ("audio_url", "video_url"))
    return Submit(
        audio,
        video,
        _text(found, "code", LONGEST_CODE),
        super_resolution=_on(found, "chaofen", False),
        watermark=_on(found, "watermark_switch", False),
        ping_pong=_on(found, "pn", True),
        notify=_text(found, "notify_url", LONGEST_URL) if found.get("notify_url") else "",
    )


def answer(code: int, text: str | int, data: Mapping[str, Any] | None = None, *, success: bool) -> bytes:
    return _json({"code": int(code), "data": dict(data or {}), "msg": text, "success": success})


def accepted() -> bytes:
    """The answer to a submission that was taken. Upstream's `msg` is a number here, too."""
    return answer(Code.OK, int(Code.OK), success=True)


def told(job: Job, **more: float | str) -> bytes:
    """The answer to a query. more: cost, video_duration, width, height."""
    data = {"status": int(job.state), "progress": round(job.progress), "result": job.result, "msg": job.text}
    return answer(Code.OK, "", data | more, success=True)


def read_answer(body: bytes) -> Answer:
    """Of an engine, whatever content type it was sent with. Raises ValueError."""
    found = answers.read(body)
    code = found.get("code")
    data = found.get("data")
    return Answer(
        code if isinstance(code, int) and not isinstance(code, bool) else None,
        data if isinstance(data, dict) else {},
        answers.text(found, "msg", 500),
    )


def job_of(data: Mapping[str, Any]) -> Job:
    """What the data of a query say. Raises ValueError."""
    try:
        state = State(data.get("status"))  # type: ignore[arg-type]
    except ValueError:
        raise ValueError("no status that the protocol knows") from None
    progress = data.get("progress")
    known = isinstance(progress, int | float) and not isinstance(progress, bool) and isfinite(progress)
    percent = min(100.0, max(0.0, float(progress))) if known and progress is not None else 0.0
    return Job(state, percent, answers.text(data, "result", LONGEST_URL), answers.text(data, "msg", 500))


# Private


def _text(found: Mapping[str, Any], name: str, most: int) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is missing")
    if len(value) > most or "\0" in value:
        raise ValueError(f"{name} has at most {most} characters, and no zero")
    return value.strip()


def _on(found: Mapping[str, Any], name: str, default: bool) -> bool:
    """Upstream takes everything but a 1 for a 0."""
    return found[name] in (1, "1") if name in found else default


def _json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
