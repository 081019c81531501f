"""OpenAI's chat completions: the answer, however the network cuts it, and whatever a server makes of the protocol."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.wire import openai_chat as wire
from gateway.wire.openai_chat import Done, NotChat, Refused, Stream, Text, ToolCall


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def delta(reason: str | None = None, **said: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": reason}]})


DONE = b"data: [DONE]\n\n"
ANSWER = (
    delta(role="assistant", content="") + delta(content="Héllo, ") + delta(content="你好 🙂") + delta("stop") + DONE
)


def read(data: bytes, *, size: int | None = None) -> list[wire.Found]:
    stream = Stream()
    pieces = [data] if size is None else [data[at : at + size] for at in range(0, len(data), size)]
    return [found for piece in pieces for found in stream.feed(piece)] + stream.end()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, None])
def test_an_answer_is_the_same_however_it_is_cut(size: int | None) -> None:
    assert read(ANSWER, size=size) == [Text("Héllo, "), Text("你好 🙂"), Done("stop")]


@given(some.lists(some.integers(0, len(ANSWER)), max_size=8))
def test_an_answer_may_be_cut_anywhere(places: list[int]) -> None:
    stream, edges = Stream(), [0, *sorted(places), len(ANSWER)]
    found = [one for a, b in zip(edges, edges[1:], strict=False) for one in stream.feed(ANSWER[a:b])]
    assert [*found, *stream.end()] == [Text("Héllo, "), Text("你好 🙂"), Done("stop")]


@given(some.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_none_of_this_protocol(data: bytes) -> None:
    for one in (data, b"data: " + data + b"\n\n" + DONE):
        with suppress(NotChat, Refused):
            read(one)


@given(some.recursive(some.none() | some.booleans() | some.text(max_size=5) | some.integers(), lambda inner: (
    some.lists(inner, max_size=3)
    | some.dictionaries(some.sampled_from(
        ["choices", "delta", "content", "tool_calls", "function", "name", "arguments", "index", "id", "error"]
    ), inner, max_size=4)
)))  # fmt: skip
def test_whatever_json_comes_is_an_answer_or_none_of_this_protocol(body: Any) -> None:
    with suppress(NotChat, Refused):
        read(event(body) + event({"choices": [body]}) + event({"choices": [{"delta": body}]}) + DONE)


def test_lines_may_end_as_on_the_web() -> None:
    assert read(ANSWER.replace(b"\n", b"\r\n"), size=1) == read(ANSWER)


def test_comments_and_other_fields_are_passed_over() -> None:
    lively = b": ping\n\nevent: message\nid: 1\n" + ANSWER.replace(b"data: ", b": ping\n\nretry: 5\ndata:")
    assert read(lively) == read(ANSWER)


def test_a_finish_reason_is_an_end_as_well() -> None:
    assert read(delta(content="Hi") + delta("stop")) == [Text("Hi"), Done("stop")]


def test_the_last_event_need_not_have_its_blank_line() -> None:
    assert read(delta(content="Hi") + b"data: [DONE]") == [Text("Hi"), Done("")]


def test_nothing_counts_after_the_end() -> None:
    assert read(ANSWER + delta(content="more")) == read(ANSWER)


def test_usage_after_the_reply_is_no_piece_of_it() -> None:
    usage = event({"choices": [], "usage": {"total_tokens": 5}})
    assert read(delta(content="Hi") + delta("stop") + usage + DONE) == [Text("Hi"), Done("stop")]


@pytest.mark.parametrize("data", [b"", delta(content="Hi"), delta(content="Hi")[:-9]])
def test_an_answer_that_breaks_off_is_none(data: bytes) -> None:
    with pytest.raises(NotChat):
        read(data)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_short_says_so(reason: str) -> None:
    *_, end = read(delta(content="Hi") + delta(reason) + DONE)
    assert isinstance(end, Done)
    assert not end.whole


@pytest.mark.parametrize("error", [{"message": "no memory"}, "no memory"])
def test_an_error_in_the_middle_is_the_servers_refusal(error: object) -> None:
    with pytest.raises(Refused, match="no memory"):
        read(delta(content="Hi") + event({"error": error}))


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    stream = Stream()
    with pytest.raises(NotChat, match="without end"):
        for _ in range(40):
            stream.feed(b"data: " + b"x" * 65536)


def test_lines_of_one_event_without_end_are_not_kept_either() -> None:
    stream = Stream()
    with pytest.raises(NotChat, match="without end"):
        for _ in range(40):
            stream.feed(b"data: " + b"x" * 65536 + b"\n")


class TestCalls:
    def call(self, **parts: Any) -> bytes:
        return delta(tool_calls=[parts])

    def test_come_in_pieces_and_are_given_out_whole_at_the_end(self) -> None:
        data = (
            self.call(index=0, id="a", type="function", function={"name": "time", "arguments": ""})
            + self.call(index=0, function={"arguments": '{"zone": '})
            + self.call(index=1, id="b", function={"name": "place", "arguments": "{}"})
            + self.call(index=0, function={"arguments": '"上海"}'})
            + delta("tool_calls")
            + DONE
        )
        expected = [ToolCall("a", "time", '{"zone": "上海"}'), ToolCall("b", "place", "{}"), Done("tool_calls")]
        assert read(data) == expected
        assert read(data, size=3) == expected

    def test_without_an_index_are_told_apart_by_their_ids(self) -> None:
        data = self.call(id="a", function={"name": "x", "arguments": "{}"})
        data += self.call(id="b", function={"name": "y", "arguments": {"n": 1}}) + delta("stop")
        assert read(data) == [ToolCall("a", "x", "{}"), ToolCall("b", "y", '{"n": 1}'), Done("stop")]

    def test_without_an_id_get_one(self) -> None:
        data = self.call(index=0, function={"name": "x", "arguments": "{}"}) + DONE
        assert read(data) == [ToolCall("call_0", "x", "{}"), Done("")]

    def test_are_not_collected_for_ever(self) -> None:
        with pytest.raises(NotChat, match="more than 64 calls"):
            read(b"".join(self.call(index=number, id=str(number)) for number in range(100)))
        with pytest.raises(NotChat, match="without end"):
            read(self.call(index=0, function={"arguments": "x" * 60_000}) * 20)


def test_an_answer_that_is_not_streamed_is_read_as_well() -> None:
    call = {"id": "a", "function": {"name": "x", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    assert wire.read_whole(body) == [Text("Hi"), ToolCall("a", "x", "{}"), Done("stop")]
    with pytest.raises(NotChat):
        wire.read_whole(b"<html>")


def test_a_request_says_what_there_is_to_say() -> None:
    messages = [
        wire.message("system", "Be kind."),
        wire.message("user", "你好"),
        wire.message("assistant", "", [ToolCall("a", "x", "{}")]),
        wire.message("tool", "5", call="a"),
    ]
    tools = [{"type": "function", "function": {"name": "x"}}]
    assert json.loads(wire.request("m", messages, tools)) == {
        "model": "m",
        "stream": True,
        "tools": tools,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "你好"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "x", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "5", "tool_call_id": "a"},
        ],
    }
    assert json.loads(wire.request("", [])) == {"stream": True, "messages": []}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": {"message": "no such\\nmodel", "type": "x"}}', "no such model"),
        (b'{"error": "model not found"}', "model not found"),
        (b'{"detail": "wrong"}', "wrong"),
        (b'{"message": "wrong"}', "wrong"),
        (b'{"error": {"code": 5}}', ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_errors_are_read_in_all_their_forms(body: bytes, says: str) -> None:
    assert wire.read_error(body) == says


def test_a_tool_may_be_asked_for() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    named = {"type": "function", "function": {"name": "look"}}
    for choice, wanted in (("", None), ("required", "required"), ("look", named)):
        assert json.loads(wire.request("m", [], tools, choice)).get("tool_choice") == wanted
    assert "tool_choice" not in json.loads(wire.request("m", [], (), "required")), "of none there is nothing to choose"
