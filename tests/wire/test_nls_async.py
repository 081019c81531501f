"""The bodies of FunSpeech's asynchronous synthesis."""

import json

from gateway.wire import nls_async as wire
from gateway.wire.nls import Status


def test_times_are_texts_in_whole_milliseconds() -> None:
    assert wire.sentence("你好。", 0.0, 1.2345) == {"text": "你好。", "begin_time": "0", "end_time": "1234"}


def test_a_failed_task_is_a_query_that_went_well() -> None:
    found = json.loads(wire.failed("r", "t", "the engine died"))
    assert (found["status"], found["error_code"], found["error_message"]) == (200, 50000000, "the engine died")
    assert found["data"]["audio_address"] is None


def test_text_stays_readable_and_half_characters_do_not_break_it() -> None:
    assert "你好".encode() in wire.failed("r", "t", "你好")
    assert json.loads(wire.error("r", Status.INVALID_PARAMETER, "\ud800", 400))["error_code"] == 40000003


def test_a_webhook_hears_which_task_has_failed() -> None:
    found = json.loads(wire.told_failure("r", "t", "no", "http://a.example/"))
    assert (found["url"], found["status"], found["data"]["task_id"]) == ("http://a.example/", 500, "t")
