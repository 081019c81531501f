"""Duix-Avatar's protocol, byte for byte."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import duix
from gateway.wire.duix import Job, State, Submit


@given(st.booleans(), st.booleans(), st.booleans())
def test_a_submission_survives_the_wire(super_resolution: bool, watermark: bool, ping_pong: bool) -> None:
    asked = Submit("a.wav", "/code/data/temp/v.mp4", "code-1", super_resolution, watermark, ping_pong)
    assert duix.read_submission(duix.submission(asked)) == asked


def test_a_submission_is_what_upstream_reads() -> None:
    assert json.loads(duix.submission(Submit("a.wav", "v.mp4", "c"))) == {
        "audio_url": "a.wav", "video_url": "v.mp4", "code": "c", "chaofen": 0, "watermark_switch": 0, "pn": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "field", "meant"),
    [
        ("chaofen", 1, "super_resolution", True),
        ("chaofen", 2, "super_resolution", False),
        ("chaofen", None, "super_resolution", False),
        ("watermark_switch", "1", "watermark", True),
        ("pn", 0, "ping_pong", False),
        ("pn", "0", "ping_pong", False),
        ("pn", 1, "ping_pong", True),
    ],
)
def test_everything_but_a_one_counts_as_zero(name: str, value: object, field: str, meant: bool) -> None:
    body = json.dumps({"audio_url": "a", "video_url": "v", "code": "c", name: value}).encode()
    assert getattr(duix.read_submission(body), field) is meant


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b'{"video_url": "v", "code": "c"}', "audio_url is missing"),
        (b'{"audio_url": "a", "video_url": 7, "code": "c"}', "video_url is missing"),
        (b'{"audio_url": "a", "video_url": "v", "code": "  "}', "code is missing"),
        (json.dumps({"audio_url": "a", "video_url": "v", "code": "c" * 201}).encode(), "code has at most 200"),
        (json.dumps({"audio_url": "a\0", "video_url": "v", "code": "c"}).encode(), "audio_url has at most 2000"),
    ],
)
def test_what_is_no_submission_says_why(body: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        duix.read_submission(body)


def test_a_code_of_the_longest_length_is_taken() -> None:
    body = json.dumps({"audio_url": "a" * 2000, "video_url": "v", "code": "c" * 200}).encode()
    assert duix.read_submission(body).code == "c" * 200


def test_taken_is_said_with_a_number_as_upstream_says_it() -> None:
    assert json.loads(duix.accepted()) == {"code": 10000, "data": {}, "msg": 10000, "success": True}


@given(st.sampled_from(State), st.floats(0, 100), st.text(max_size=50).filter(lambda text: text.isprintable()))
def test_a_job_survives_the_wire(state: State, progress: float, text: str) -> None:
    job = Job(state, progress, "/c-r.mp4" if state is State.DONE else "", text)
    answer = duix.read_answer(duix.told(job, cost=1.5))
    assert answer.code == duix.Code.OK
    assert answer.data["cost"] == 1.5
    found = duix.job_of(answer.data)
    assert (found.state, found.result, found.text) == (job.state, job.result, job.text)
    assert found.progress == pytest.approx(progress, abs=0.5)


@pytest.mark.parametrize("data", [{}, {"status": 0}, {"status": 4}, {"status": "done"}, {"status": [1]}])
def test_data_without_a_known_status_are_no_job(data: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        duix.job_of(data)


@pytest.mark.parametrize(
    ("progress", "meant"),
    [(None, 0), ("x", 0), (float("nan"), 0), (float("inf"), 0), (-5, 0), (170, 100), (True, 0), (42, 42)],
)
def test_a_mad_progress_is_bounded(progress: object, meant: float) -> None:
    assert duix.job_of({"status": 1, "progress": progress}).progress == meant


@given(st.binary(max_size=200))
def test_no_answer_makes_it_fail_otherwise_than_with_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        duix.read_answer(body)
