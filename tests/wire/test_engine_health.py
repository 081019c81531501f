"""`GET /health` of an engine: ours says everything, others little or nothing, and junk is no reason to fall over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.engine_health import Progress, Report, decode, encode


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (Report("ready", "CosyVoice2-0.5B", "cuda:0"), 200),
        (Report("loading", reason="reading 3 of 5 files"), 503),
        (Report("failed", "m", "cpu", "no such folder: /models/x"), 503),
        (Report("loading", progress=Progress("model Fun-ASR-Nano-2512", 812_345_344, 2_127_426_538)), 503),
        (Report("loading", progress=Progress("waiting for another container")), 503),
    ],
)
def test_what_our_engines_say_is_read_back(report: Report, status: int) -> None:
    told, body = encode(report)
    assert told == status
    assert decode(told, body) == report


def test_progress_is_a_percentage_where_the_whole_is_known() -> None:
    body = json.loads(encode(Report("loading", progress=Progress("model", 50, 200)))[1])
    assert body["progress"] == {"phase": "model", "bytes": 50, "total": 200, "percent": 25.0}
    assert Progress("model", 7, 0).percent is None
    assert Progress("model", 9, 3).percent == 100.0
    assert str(Progress("model m", 500_000, 2_000_000)) == "model m, 25 % of 2.0 MB"


@pytest.mark.parametrize("found", [3, "x", {}, {"phase": None}, {"phase": ""}])
def test_progress_that_is_none_is_left_out(found: object) -> None:
    assert decode(503, json.dumps({"state": "loading", "progress": found}).encode()).progress is None


@pytest.mark.parametrize("count", [-1, 1e300, "3", None, True, 2**80])
def test_counts_that_are_none_are_nothing(count: object) -> None:
    body = json.dumps({"state": "loading", "progress": {"phase": "p", "bytes": count, "total": count}}).encode()
    assert decode(503, body).progress in (Progress("p", 0, 0), Progress("p", 1, 1))


def test_a_ready_engine_answers_as_the_upstream_one_does() -> None:
    body = json.loads(encode(Report("ready", "Fun-ASR-Nano-2512", "cuda"))[1])
    assert (body["status"], body["model"], body["device"]) == ("healthy", "Fun-ASR-Nano-2512", "cuda")


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, b'{"status": "healthy", "model": "Fun-ASR-Nano-2512", "device": "cuda:0"}', "ready"),
        (200, b"OK", "ready"),
        (200, b"", "ready"),
        (404, b'{"detail": "Not Found"}', "ready"),
        (405, b"", "ready"),
        (500, b"Internal Server Error", "failed"),
        (502, b"<html>", "failed"),
        (503, b'{"status": "loading"}', "loading"),
        (503, b"", "loading"),
    ],
)
def test_an_engine_that_says_no_state_is_known_by_its_status(status: int, body: bytes, state: str) -> None:
    assert decode(status, body).state == state


def test_the_model_of_an_upstream_engine_is_read() -> None:
    found = decode(200, b'{"status": "healthy", "model": "Fun-ASR-Nano-2512", "device": "cuda:0"}')
    assert found == Report("ready", "Fun-ASR-Nano-2512", "cuda:0")


def test_a_failure_always_has_a_reason() -> None:
    assert decode(500, b"").reason == "its /health answered 500"


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"1",
        b'{"state": 1}',
        b'{"state": null}',
        b'{"state": []}',
        b'{"state": {}}',
        b'{"state": "dancing"}',
        b'{"model": {"a": 1}}',
        b"\xff",
        b"[" * 16_384,
    ],
)
def test_junk_is_an_engine_that_says_nothing(body: bytes) -> None:
    assert decode(200, body).state == "ready"


@given(st.sampled_from([200, 404, 500, 503]), st.binary(max_size=300))
def test_any_answer_is_a_report(status: int, body: bytes) -> None:
    assert decode(status, body).state in ("ready", "loading", "failed")


def test_long_words_are_cut() -> None:
    found = decode(
        503, json.dumps({"state": "failed", "model": "m" * 999, "device": "d" * 999, "reason": "r" * 999}).encode()
    )
    assert (len(found.model), len(found.device), len(found.reason)) == (200, 100, 300)


def test_half_a_character_does_not_get_further() -> None:
    assert decode(200, b'{"model": "a\\ud800"}').model == "a?"
