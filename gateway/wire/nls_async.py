"""FunSpeech's asynchronous synthesis of long texts over HTTP.

Rule 1: `status` in a body repeats the HTTP status; the outcome is in `error_code` and `error_message`.
Rule 2: times are texts: whole milliseconds from the first sample.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.wire.nls import Status

PATH = "/rest/v1/tts/async"


def sentence(text: str, begin: float, end: float) -> dict[str, str]:
    """begin, end: seconds."""
    return {"text": text, "begin_time": str(round(begin * 1000)), "end_time": str(round(end * 1000))}


def going_on(request_id: str, task_id: str, *, submitted: bool = False) -> bytes:
    """The task waits or runs. submitted: the answer to its submission."""
    return _answer(request_id, "SUCCESS" if submitted else "RUNNING", _data(task_id))


def succeeded(
    request_id: str,
    task_id: str,
    address: str,
    sentences: Iterable[Mapping[str, str]] | None,
    notify_url: str | None,
    notify_status: str | None = None,
) -> bytes:
    """notify_status: what became of the webhook, which FunSpeech does not tell; left out with None."""
    found = list(sentences) if sentences is not None else None
    data = _data(task_id) | {"audio_address": address, "sentences": found, "notify_custom": notify_url}
    return _answer(request_id, "SUCCESS", _with(data, notify_status))


def failed(request_id: str, task_id: str, reason: str, notify_status: str | None = None) -> bytes:
    return _answer(request_id, reason, _with(_data(task_id), notify_status), Status.SERVER_ERROR)


def error(request_id: str, code: Status, reason: str, status: int) -> bytes:
    """A request that is refused."""
    return _json(_error(request_id, code, reason, PATH, status))


def told_failure(request_id: str, task_id: str, reason: str, url: str) -> bytes:
    """To a webhook; with `data` besides, so that it knows which task is meant. url: its own."""
    return _json(_error(request_id, Status.SERVER_ERROR, reason, url, 500) | {"data": _data(task_id)})


# Private


def _data(task_id: str) -> dict[str, Any]:
    return {"task_id": task_id, "audio_address": None, "notify_custom": None, "sentences": None}


def _error(request_id: str, code: Status, reason: str, url: str, status: int) -> dict[str, Any]:
    said = {"error_message": reason, "error_code": int(code)}
    return said | {"request_id": request_id, "url": url, "status": status}


def _with(data: dict[str, Any], notify_status: str | None) -> dict[str, Any]:
    return data if notify_status is None else data | {"notify_status": notify_status}


def _answer(request_id: str, message: str, data: Mapping[str, Any], code: Status = Status.SUCCESS) -> bytes:
    body = {"status": 200, "error_code": int(code), "error_message": message, "request_id": request_id, "data": data}
    return _json(body)


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")
