"""What Fun-Audio-Chat's protocol leaves unsaid: it is read back as it was written, and nothing odd gets in."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.turns import (
    LONGEST_NAME,
    LONGEST_PROMPT,
    MOST_TOOLS,
    Event,
    Failed,
    Heard,
    Queued,
    ReplyDone,
    Session,
    ToolResult,
    Wish,
    fields_of,
    read,
    wish_fields,
    wish_of,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
TOOLS = st.lists(TEXT.map(lambda name: {"type": "function", "function": {"name": name}}), max_size=3).map(tuple)
EVENTS = st.one_of(*(st.builds(kind) if kind is not ReplyDone else st.builds(
    ReplyDone, st.integers(), TEXT, st.floats(0, 1e6), st.dictionaries(TEXT, st.floats(0, 1e6), max_size=4)
) for kind in get_args(Event)))  # fmt: skip
WISHES = st.builds(
    Wish,
    *(st.none() | TEXT for _ in range(3)),
    *(st.none() | st.booleans() for _ in range(2)),
    st.none() | TOOLS,
    st.lists(st.builds(ToolResult, TEXT, TEXT), max_size=3).map(tuple),
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = ("type", "turn", "position", "seconds", "id", "text", "final", "status", "timings", "code", "message", "at")
WANTS = ("system_prompt", "voice", "language", "hands_free", "speech", "tools", "tool_results")


@given(EVENTS.filter(lambda event: not _has_nan(event)))
def test_an_event_is_read_back(event: Event) -> None:
    assert read(json.loads(json.dumps(fields_of(event)))) == event


def _has_nan(event: Event) -> bool:
    return any(value != value for value in fields_of(event).values())


@given(WISHES)
def test_a_wish_is_read_back(wish: Wish) -> None:
    assert wish_of(json.loads(json.dumps(wish_fields(wish)))) == wish


def test_the_words_on_the_wire_stay_what_they_are() -> None:
    assert fields_of(Queued(2, 1, 3.5)) == {"type": "queued", "turn": 2, "position": 1, "seconds": 3.5}
    assert fields_of(Failed("engine_busy", "later")) == {
        "type": "error",
        "code": "engine_busy",
        "message": "later",
        "turn": 0,
    }
    assert fields_of(Session("a"))["type"] == "session"


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(("queued", "heard", "reply_done", "error", "session", "speech_started"))},
        optional=dict.fromkeys(NAMES[1:], ANYTHING),
    )
)
def test_what_is_odd_from_a_server_is_nothing(found: dict[str, Any]) -> None:
    event = read(found)
    if event is not None:
        assert fields_of(event)["type"] == found["type"]


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"type": "unknown"},
        {"type": ["queued"]},
        {"type": {}},
        {"type": "queued"},
        {"type": "heard", "turn": "1", "text": "x"},
        {"type": "heard", "turn": True, "text": "x"},
        {"type": "heard", "turn": 1, "text": None},
        {"type": "reply_done", "turn": 1, "status": "completed", "timings": {"queued": "long"}},
        {"type": "error", "code": "x", "message": "y", "retry_after": "z"},
    ],
    ids=str,
)
def test_such_an_event_is_none(found: dict[str, Any]) -> None:
    assert read(found) is None


def test_unknown_fields_are_passed_over() -> None:
    assert read({"type": "heard", "turn": 1, "text": "a", "later": 1}) == Heard(1, "a")
    assert wish_of({"voice": "x", "text_temperature": 0.7}) == Wish(voice="x")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(WANTS, ANYTHING)))
def test_a_client_may_say_anything(found: dict[str, Any]) -> None:
    try:
        wish_of(found)
    except ValueError as exc:
        assert any(name in str(exc) for name in (*WANTS, "tool"))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"system_prompt": 5}, "system_prompt is not a string"),
        ({"hands_free": "yes"}, "hands_free is not a boolean"),
        ({"speech": 1}, "speech is not a boolean"),
        ({"system_prompt": "x" * (LONGEST_PROMPT + 1)}, "system_prompt has more than 20000 characters"),
        ({"voice": "x" * (LONGEST_NAME + 1)}, "voice has more than 200 characters"),
        ({"tools": {}}, "tools is not a list of at most 64"),
        ({"tools": [{"function": {"name": "x"}}] * (MOST_TOOLS + 1)}, "tools is not a list of at most 64"),
        ({"tools": ["x"]}, 'a tool is {"type": "function", "function": {"name": …}}'),
        ({"tool_results": [{"id": "a"}]}, 'a tool result is {"id": "…", "output": "…"}'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_wish_says_what_is_wrong(found: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as caught:
        wish_of(found)
    assert str(caught.value) == why


def test_nothing_that_people_say_is_shown() -> None:
    for one in (Heard(1, "secret"), Failed("x", "secret"), ToolResult("a", "secret"), Wish(system_prompt="secret")):
        assert "secret" not in repr(one)
