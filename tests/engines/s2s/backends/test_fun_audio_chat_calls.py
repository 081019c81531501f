"""The calls in what the model writes, however it is cut into pieces."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.s2s.backends import Call, Failed
from engines.s2s.backends.fun_audio_chat_calls import Calls, may_call, written

TWO = (
    'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "杭州", "days": 2}}\n</tool_call>\n'
    '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>\n'
)


def read(pieces: list[str], *names: str) -> list[str | Call]:
    calls = Calls(names or ("weather", "time"))

    def all_of_it() -> Iterator[str | Call]:
        for piece in pieces:
            yield from calls.feed(piece)
        yield from calls.end()

    return list(all_of_it())


def found(parts: list[str | Call]) -> tuple[str, list[tuple[str, object]]]:
    words = "".join(part for part in parts if isinstance(part, str))
    return words, [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, Call)]


@given(st.lists(st.integers(0, len(TWO)), max_size=12))
def test_words_and_calls_are_told_apart_wherever_the_text_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    words, calls = found(read([TWO[a:b] for a, b in zip(edges, edges[1:], strict=False)]))
    assert words.strip() == "Let me look."
    assert calls == [("weather", {"city": "杭州", "days": 2}), ("time", {})]


@given(st.lists(st.text(alphabet="<tol_ca>/x \n", max_size=8), max_size=8))
def test_text_without_a_call_stays_as_it_is(pieces: list[str]) -> None:
    text = "".join(pieces)
    if "<tool_call>" not in text:
        assert "".join(part for part in read(pieces) if isinstance(part, str)).strip() == text.strip()


def test_each_call_has_a_name_of_its_own() -> None:
    first, second = (part for part in read([TWO]) if isinstance(part, Call))
    assert first.id != second.id
    assert first.arguments == '{"city": "杭州", "days": 2}', "not escaped: people read it"


def test_the_last_call_need_not_be_closed() -> None:
    assert found(read(['<tool_call>{"name": "time", "arguments": {}}']))[1] == [("time", {})]


def test_arguments_may_be_written_twice_or_not_at_all() -> None:
    block = '<tool_call>{{"name": "time"{}}}</tool_call>'.format
    assert found(read([block("")]))[1] == [("time", {})]
    assert found(read([block(', "arguments": "{\\"zone\\": 1}"')]))[1] == [("time", {"zone": 1})]


@pytest.mark.parametrize(
    "inside",
    ["", "{", "[]", "null", '{"name": 1}', '{"name": "time", "arguments": [1]}', '{"arguments": {}}', "[" * 9999],
)
def test_a_call_that_is_none_fails_the_turn(inside: str) -> None:
    with pytest.raises(Failed, match="cannot be read"):
        read([f"<tool_call>{inside}</tool_call>"])


def test_a_tool_that_is_not_there_cannot_be_called() -> None:
    with pytest.raises(Failed, match="not among those"):
        read(['<tool_call>{"name": "rm", "arguments": {}}</tool_call>'])


@pytest.mark.parametrize(
    ("text", "may"),
    [("", True), (" \n", True), ("<", True), ("\n<tool_", True), ("<tool_call>{", True), ("<b", False), ("Hi", False)],
)
def test_how_a_call_begins(text: str, may: bool) -> None:
    assert may_call(text) is may


def test_calls_are_written_as_they_are_read() -> None:
    calls = [Call("1", "weather", '{"city": "杭州"}'), Call("2", "time", "{}")]
    assert found(read([written(calls)])) == ("", [("weather", {"city": "杭州"}), ("time", {})])
