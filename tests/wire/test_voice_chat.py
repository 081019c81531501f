"""The voice chat backend's JSON: everything a client may send is a message or a clear refusal."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import voice_chat as wire
from gateway.wire.voice_chat import Configuration, End, EndChat, Ping, Say

NOW = datetime(2030, 1, 2, 3, 4, 5, 678, UTC)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["ping", "end_chat", "message", "end"]) | ANY,
        "content": ANY,
        "is_speaking": ANY,
    },
)


@given(st.text(max_size=200) | FIELDS.map(json.dumps) | st.binary(max_size=20))
def test_every_frame_of_a_chat_is_a_message_or_refused_in_words(frame: str | bytes) -> None:
    try:
        found = wire.read_chat(frame)
    except ValueError as exc:
        assert 10 < len(str(exc)) < 200
    else:
        assert isinstance(found, Ping | EndChat | Say)
        if isinstance(found, Say):
            assert found.content.encode() and "\0" not in found.content


@given(st.text(max_size=200) | FIELDS.map(json.dumps))
def test_every_text_of_a_listener_is_a_message_or_refused_in_words(frame: str) -> None:
    try:
        assert isinstance(wire.read_listener(frame), Ping | End | Configuration)
    except ValueError as exc:
        assert 10 < len(str(exc)) < 200


@pytest.mark.parametrize(
    ("frame", "means"),
    [
        ('{"type": "end"}', End()),
        ('{"is_speaking": false}', End()),
        ('{"is_speaking": false, "is_end": true}', End()),
        ('{"mode": "2pass", "is_speaking": true, "chunk_size": [5, 10, 5]}', Configuration()),
        ('{"type": "ping", "ts": 5}', Ping()),
    ],
)
def test_the_known_texts_of_a_listener(frame: str, means: object) -> None:
    assert wire.read_listener(frame) == means


def test_a_message_is_trimmed_and_bounded() -> None:
    assert wire.read_chat('{"type": "message", "content": " 你好 "}') == Say("你好")
    assert "secret" not in repr(Say("secret"))
    longest = "x" * wire.LONGEST_CONTENT
    assert wire.read_chat(json.dumps({"type": "message", "content": longest})) == Say(longest)
    with pytest.raises(ValueError, match="the limit is 4000"):
        wire.read_chat(json.dumps({"type": "message", "content": longest + "x"}))


@given(st.text(max_size=50), st.booleans())
def test_what_is_sent_comes_back_from_json(content: str, partial: bool) -> None:
    found: dict[str, Any] = json.loads(wire.new_message("c", "m", "user", content, NOW, partial=partial))
    assert found == {
        "type": "new_message",
        "chat_id": "c",
        "message_id": "m",
        "speaker": "user",
        "content": content,
        "timestamp": wire.moment(NOW),
        "is_partial": partial,
    }


def test_times_are_local_and_have_no_zone() -> None:
    assert datetime.fromisoformat(wire.moment(NOW)) == NOW.astimezone().replace(tzinfo=None)


def test_an_error_says_when_to_come_back_where_that_is_known() -> None:
    assert "retry_after" not in json.loads(wire.failure("a", "b", NOW))
    assert json.loads(wire.failure("a", "b", NOW, 5))["retry_after"] == 5
