"""OpenAI's error body: {"error": {"message", "type", "param", "code"}}.

Rule 1: `type` follows from the status; `code` is ours, but where OpenAI's clients look for one of its own.
Rule 2: an error in the middle of an answer is the same object as an event of its own; its clients raise it.
"""

import json
from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "quota_used": "insufficient_quota",
}
_QUOTA = "insufficient_quota"


def error(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """param: the field that is wrong, where it is one."""
    return json.dumps({"error": fields(status, code, message, param)}, ensure_ascii=False).encode()


def event(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """The same as a server-sent event."""
    return b"event: error\ndata: %b\n\n" % error(status, code, message, param)


def fields(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """What is told of an error, wherever it is told."""
    code = _CODES.get(code, code)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": _QUOTA if code == _QUOTA else kind, "param": param, "code": code}
