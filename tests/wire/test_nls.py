"""The NLS envelope: what is read of clients, tolerantly but not blindly, and what is written."""

import json
from typing import Any

import pytest

from gateway.wire import nls as wire


def frame(payload: Any = None, **header: Any) -> str:
    return json.dumps({"header": header, "payload": payload, "context": {"sdk": {"name": "nls-python-sdk"}}})


class TestReading:
    def test_a_message_is_its_header_and_payload(self) -> None:
        found = wire.read(frame({"text": "你好"}, namespace="A", name="B", task_id="c", message_id="d", appkey="e"))
        assert found == wire.Message("A", "B", "c", "e", {"text": "你好"})

    def test_what_is_missing_is_empty(self) -> None:
        assert wire.read('{"header": {"name": "StopSynthesis", "task_id": null}}') == wire.Message("", "StopSynthesis")
        assert wire.read(frame(None, name="x")).payload == {}

    @pytest.mark.parametrize(
        "text", ["", "x", "[" * 100_000, "[]", "null", '"a"', "{}", '{"header": 1}', '{"header": []}']
    )
    def test_what_is_no_message_is_refused(self, text: str) -> None:
        with pytest.raises(wire.Unusable, match="Message"):
            wire.read(text)

    @pytest.mark.parametrize("payload", [1, "a", [], True])
    def test_a_payload_is_an_object(self, payload: Any) -> None:
        with pytest.raises(wire.Unusable, match="payload"):
            wire.read(frame(payload, name="x"))

    def test_what_is_sent_back_is_short_and_printable(self) -> None:
        assert wire.read(frame(task_id="x" * wire.LONGEST_ID)).task_id == "x" * wire.LONGEST_ID
        for wrong in ("x" * (wire.LONGEST_ID + 1), "\ud800", "a\nb", 7, []):
            with pytest.raises(wire.Unusable, match="task_id"):
                wire.read(frame(task_id=wrong))
        with pytest.raises(wire.Unusable, match="name"):
            wire.read(frame(name="x" * (wire.LONGEST_NAME + 1)))


class TestFields:
    @pytest.mark.parametrize(("value", "found"), [(3, 3), ("3", 3), (" 3.5 ", 3.5), (-500.0, -500), (None, 7), ("", 7)])
    def test_numbers(self, value: Any, found: float) -> None:
        assert wire.number({"volume": value}, "volume", 7) == found

    @pytest.mark.parametrize("value", [True, [], {}, "x", float("nan"), float("inf"), "nan", 10**400, "1e999"])
    def test_what_is_no_number(self, value: Any) -> None:
        with pytest.raises(wire.Unusable, match="volume is not a number"):
            wire.number({"volume": value}, "volume", 7)

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (True, True),
            (False, False),
            (0, False),
            (1, True),
            ("true", True),
            ("False", False),
            (None, True),
            ("", True),
        ],
    )
    def test_flags(self, value: Any, found: bool) -> None:
        assert wire.flag({"f": value}, "f", True) is found

    @pytest.mark.parametrize("value", [2, "yes", [], 0.5, {}])
    def test_what_is_no_flag(self, value: Any) -> None:
        with pytest.raises(wire.Unusable, match="neither"):
            wire.flag({"f": value}, "f", True)

    def test_texts(self) -> None:
        assert wire.text({"t": "a"}, "t") == "a"
        assert wire.text({"t": None}, "t", "b") == wire.text({}, "t", "b") == "b"
        with pytest.raises(wire.Unusable, match="not a text"):
            wire.text({"t": 1}, "t")


class TestWriting:
    def test_an_event_is_as_funspeech_writes_it(self) -> None:
        assert json.loads(wire.event("m", "t", wire.FLOWING, "SynthesisStarted", {"index": 1})) == {
            "header": {
                "message_id": "m",
                "task_id": "t",
                "namespace": "FlowingSpeechSynthesizer",
                "name": "SynthesisStarted",
                "status": 20000000,
                "status_message": "GATEWAY|SUCCESS|Success.",
            },
            "payload": {"index": 1},
        }
        assert "payload" not in json.loads(wire.event("m", "t", wire.TRANSCRIBER, "TranscriptionCompleted"))

    @pytest.mark.parametrize(
        ("namespace", "said"), [(wire.FLOWING, "Default"), (wire.TRANSCRIBER, "SpeechTranscriber")]
    )
    def test_a_failure_has_its_reason_in_status_text(self, namespace: str, said: str) -> None:
        failed = json.loads(wire.failed("m", "t", namespace, wire.Status.CLIENT_ERROR, "why"))
        assert failed == {
            "header": {
                "message_id": "m",
                "task_id": "t",
                "namespace": said,
                "name": "TaskFailed",
                "status": 40000000,
                "status_text": "why",
            }
        }

    def test_an_http_answer(self) -> None:
        body = json.loads(wire.result("t", wire.Status.SUCCESS, "SUCCESS", "你好"))
        assert body == {"task_id": "t", "result": "你好", "status": 20000000, "message": "SUCCESS"}
        assert json.loads(wire.result("", wire.Status.INVALID_PARAMETER, "\ud800"))["message"] == "?"

    def test_every_namespace_has_a_start_and_commands(self) -> None:
        assert wire.STARTS.keys() == wire.COMMANDS.keys()
