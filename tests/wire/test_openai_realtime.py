"""OpenAI's Realtime protocol: what is read, what is written, and what every wrong message comes to."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import openai_realtime as wire
from gateway.wire import openai_realtime_beta as beta
from gateway.wire.openai_realtime_beta import Dialect
from gateway.wire.openai_realtime_fields import Fields, Wrong
from gateway.wire.openai_realtime_items import Content, Item, Kind, Part, read_item
from gateway.wire.openai_realtime_session import (
    Detection,
    Format,
    Session,
    Transcription,
    shown,
    updated,
)
from gateway.wire.openai_realtime_session import Kind as Sessions
from gateway.wire.openai_realtime_tools import chat_tool_choice, chat_tools

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SESSION_FIELDS = (
    *("type", "model", "instructions", "output_modalities", "tools", "tool_choice", "max_output_tokens", "audio"),
    *("include", "temperature", "voice", "turn_detection", "input_audio_format", "modalities", "tracing"),
)


def read(dialect: Dialect = Dialect.GA, **event: Any) -> wire.Message:
    return wire.read(json.dumps(event), dialect)


class TestReading:
    @pytest.mark.parametrize(
        ("event", "said"),
        [
            ({"type": "input_audio_buffer.append", "audio": base64.b64encode(b"ab").decode()}, wire.Append(b"ab")),
            ({"type": "input_audio_buffer.commit"}, wire.Commit()),
            ({"type": "input_audio_buffer.clear"}, wire.Clear()),
            ({"type": "output_audio_buffer.clear"}, wire.ClearOutput()),
            ({"type": "conversation.item.retrieve", "item_id": "a"}, wire.Retrieve("a")),
            ({"type": "conversation.item.delete", "item_id": "a"}, wire.Delete("a")),
            (
                {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 5},
                wire.Truncate("a", 0, 5),
            ),
            ({"type": "response.cancel"}, wire.CancelResponse(None)),
            ({"type": "response.cancel", "response_id": "r"}, wire.CancelResponse("r")),
        ],
    )
    def test_what_a_client_may_say(self, event: dict[str, Any], said: wire.Said) -> None:
        assert read(event_id="e", **event) == wire.Message("e", said)

    def test_a_response_with_all_its_wishes(self) -> None:
        response = {"conversation": "none", "metadata": {"a": "b"}, "input": [{"type": "message"}], "instructions": "x"}
        said = read(type="response.create", response=response).said
        assert isinstance(said, wire.CreateResponse)
        assert (said.kept, said.metadata, said.wishes.found) == (False, {"a": "b"}, {"instructions": "x"})
        assert said.input is not None
        assert said.input[0].path == "response.input[0]"

    @pytest.mark.parametrize(
        ("event", "code", "param"),
        [
            ({}, "missing_required_parameter", "type"),
            ({"type": "dance"}, "invalid_value", "type"),
            ({"type": "session.update"}, "missing_required_parameter", "session"),
            ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
            ({"type": "conversation.item.delete", "item_id": 5}, "invalid_type", "item_id"),
            (
                {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": -1},
                "invalid_value",
                "audio_end_ms",
            ),
            (
                {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 1.5},
                "invalid_type",
                "audio_end_ms",
            ),
            ({"type": "response.create", "response": {"metadata": {"a": 1}}}, "invalid_value", "response.metadata"),
            ({"type": "response.cancel", "event_id": "a" * 513}, "string_above_max_length", "event_id"),
        ],
    )
    def test_what_is_wrong_is_named(self, event: dict[str, Any], code: str, param: str) -> None:
        said = read(**event).said
        assert isinstance(said, Wrong)
        assert (said.code, said.param) == (code, param)

    @given(st.dictionaries(st.sampled_from(("type", "item", "session", "audio", "response", "event_id")), ANYTHING))
    def test_nothing_breaks_it(self, event: dict[str, Any]) -> None:
        for dialect in Dialect:
            assert isinstance(wire.read(json.dumps(event), dialect), wire.Message)

    @given(st.text(max_size=30) | st.binary(max_size=30))
    def test_no_message_breaks_it(self, message: str | bytes) -> None:
        assert isinstance(wire.read(message, Dialect.GA), wire.Message)

    def test_depth_does_not_break_it(self) -> None:
        assert isinstance(wire.read("[" * 100_000, Dialect.GA).said, Wrong)


class TestWriting:
    def test_every_event_has_its_id_and_the_dialects_name(self) -> None:
        ga = json.loads(wire.encode("response.output_audio.delta", {"delta": "x"}, "event_1", Dialect.GA))
        assert ga == {"type": "response.output_audio.delta", "event_id": "event_1", "delta": "x"}
        assert (
            json.loads(wire.encode("response.output_audio.delta", {}, "e", Dialect.BETA))["type"]
            == "response.audio.delta"
        )
        assert wire.encode("conversation.item.done", {}, "e", Dialect.BETA) == "", "the beta has none such"

    def test_an_error_names_the_event_that_it_answers(self) -> None:
        assert wire.error(503, "engine_busy", "busy", None, "mine") == {
            "error": {
                "type": "server_error",
                "code": "engine_busy",
                "message": "busy",
                "param": None,
                "event_id": "mine",
            }
        }

    def test_usage_adds_up(self) -> None:
        usage = wire.usage(1, 2, 3, 4)
        assert (usage["total_tokens"], usage["input_tokens"], usage["output_tokens"]) == (10, 3, 7)


class TestSessions:
    def test_both_dialects_say_the_same(self) -> None:
        flat = {
            "instructions": "x",
            "modalities": ["text"],
            "voice": "alloy",
            "input_audio_format": "g711_alaw",
            "output_audio_format": "pcm16",
            "input_audio_transcription": {"model": "m", "language": "de"},
            "turn_detection": {"type": "server_vad", "threshold": 0.3, "prefix_padding_ms": 100},
            "max_response_output_tokens": 7,
            "tool_choice": "required",
        }
        nested = {
            "instructions": "x",
            "output_modalities": ["text"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcma"},
                    "transcription": {"model": "m", "language": "de"},
                    "turn_detection": {"type": "server_vad", "threshold": 0.3, "prefix_padding_ms": 100},
                },
                "output": {"voice": "alloy", "format": {"type": "audio/pcm", "rate": 24000}},
            },
            "max_output_tokens": 7,
            "tool_choice": "required",
        }
        made = updated(Session(), Fields(nested, "session"), Dialect.GA)
        assert made == updated(Session(), Fields(flat, "session"), Dialect.BETA)
        assert made.input == Format("audio/pcma", 8000)
        assert made.detection == Detection(threshold=0.3, padding=100)
        assert made.transcription == Transcription("m", "de")
        said = shown(made, "sess_1", Dialect.BETA)
        assert {name: said[name] for name in flat if name not in ("input_audio_transcription", "turn_detection")} == {
            name: value for name, value in flat.items() if name not in ("input_audio_transcription", "turn_detection")
        }
        assert updated(Session(), Fields(shown(made, "s", Dialect.GA), "session"), Dialect.GA) == made

    def test_null_turns_off_and_nothing_leaves_it(self) -> None:
        off = updated(Session(), Fields({"audio": {"input": {"turn_detection": None}}}), Dialect.GA)
        assert off.detection is None
        assert updated(off, Fields({"audio": {"input": {}}}), Dialect.GA).detection is None
        assert updated(Session(), Fields({"turn_detection": None}), Dialect.BETA).detection is None

    def test_of_transcription_shows_what_concerns_it(self) -> None:
        said = shown(Session(Sessions.TRANSCRIPTION), "sess_1", Dialect.GA)
        assert (said["type"], said["object"]) == ("transcription", "realtime.transcription_session")
        assert set(said["audio"]) == {"input"}
        assert "voice" not in shown(Session(Sessions.TRANSCRIPTION), "sess_1", Dialect.BETA)

    def test_tools_are_shown_as_they_came_and_given_on_as_chat_models_want_them(self) -> None:
        tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
        made = updated(Session(), Fields({"tools": [tool]}), Dialect.GA)
        assert shown(made, "s", Dialect.GA)["tools"] == [tool]
        assert chat_tools(made.tools, made.tool_choice)[0]["function"]["name"] == "f"
        named = updated(made, Fields({"tool_choice": {"type": "function", "name": "f"}}), Dialect.GA)
        assert (chat_tool_choice(made.tools, made.tool_choice), chat_tool_choice(named.tools, named.tool_choice)) == (
            "",
            "f",
        )
        assert chat_tools(made.tools, "none") == ()

    @given(st.dictionaries(st.sampled_from(SESSION_FIELDS), ANYTHING, max_size=4), st.sampled_from(Dialect))
    def test_whatever_comes_is_taken_or_refused(self, found: dict[str, Any], dialect: Dialect) -> None:
        try:
            made = updated(Session(), Fields(found, "session"), dialect)
        except Wrong as exc:
            assert exc.param is None or exc.param.startswith("session.")
        else:
            assert json.dumps(shown(made, "s", dialect))


class TestItems:
    def test_are_shown_as_they_were_made(self) -> None:
        for found in (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": "a"}]},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
        ):
            item = read_item(Fields(found, "item"), "item_1", 100)
            assert item.shown(Dialect.GA) == {"id": "item_1", "object": "realtime.item", "status": "completed"} | found

    def test_of_an_assistant_have_other_names_in_the_beta(self) -> None:
        item = Item("i", role="assistant", content=[Content(Part.OUTPUT_AUDIO, "a")])
        assert item.shown(Dialect.BETA)["content"] == [{"type": "audio", "transcript": "a"}]
        found = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]}
        assert read_item(Fields(found), "i", 100).content == [Content(Part.OUTPUT_TEXT, "a")]

    def test_whose_words_are_not_known_say_so(self) -> None:
        item = Item("i", content=[Content(Part.INPUT_AUDIO)])
        assert not item.understood
        assert item.shown(Dialect.GA)["content"] == [{"type": "input_audio", "transcript": None}]

    def test_have_texts_up_to_the_limit(self) -> None:
        found = {"type": "function_call_output", "call_id": "c", "output": "x" * 100}
        assert read_item(Fields(found), "i", 100).kind is Kind.RESULT
        with pytest.raises(Wrong):
            read_item(Fields(found), "i", 99)


def test_every_name_of_the_beta_is_one_of_ours_too() -> None:
    assert all(not name or not name.startswith("response.output_") for name in beta.EVENTS.values())
