"""OpenAI's error body, by status."""

import json
from typing import Any

import pytest

from gateway.wire import openai_errors as wire


def error(*given: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wire.error(*given))
    assert found.keys() == {"error"}
    return dict(found["error"])


@pytest.mark.parametrize(
    ("status", "code", "kind", "shown"),
    [
        (400, "bad_request", "invalid_request_error", "bad_request"),
        (401, "unauthorized", "authentication_error", "invalid_api_key"),
        (403, "forbidden", "permission_error", "forbidden"),
        (404, "not_found", "invalid_request_error", "not_found"),
        (413, "too_large", "invalid_request_error", "too_large"),
        (429, "rate_limited", "rate_limit_error", "rate_limit_exceeded"),
        (429, "quota_used", "insufficient_quota", "insufficient_quota"),
        (500, "internal", "server_error", "internal"),
        (503, "engine_busy", "server_error", "engine_busy"),
    ],
)
def test_type_and_code_follow_from_the_status(status: int, code: str, kind: str, shown: str) -> None:
    assert error(status, code, "no") == {"message": "no", "type": kind, "param": None, "code": shown}


def test_the_wrong_field_is_named() -> None:
    assert error(400, "bad_request", "too hot", "temperature")["param"] == "temperature"


def test_an_event_is_the_same_object_in_one_line() -> None:
    said = wire.event(502, "engine_broke", "it\ndied 死了")
    head, _, rest = said.partition(b"data: ")
    assert head == b"event: error\n"
    assert rest.endswith(b"\n\n") and rest.count(b"\n") == 2
    assert json.loads(rest) == json.loads(wire.error(502, "engine_broke", "it\ndied 死了"))
