"""Fun-Audio-Chat's protocol: every string of bytes is a message or is refused, and both directions are exact."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire.fun_audio_chat import (
    Action,
    Audio,
    ColoredText,
    Control,
    Error,
    Handshake,
    Kind,
    Message,
    Metadata,
    Ping,
    Text,
    Unreadable,
    decode,
    encode,
    metadata,
)

TEXT = st.text(st.characters(codec="utf-8"))
BYTE = st.integers(0, 255)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.one_of(
    st.builds(Handshake, BYTE, BYTE),
    st.builds(Audio, st.binary()),
    st.builds(Text, TEXT),
    st.builds(Control, st.sampled_from(Action)),
    st.builds(metadata, st.dictionaries(TEXT, JSON, max_size=4)),
    st.builds(Error, TEXT),
    st.builds(Ping),
    st.builds(ColoredText, BYTE, TEXT),
)
NEARLY = st.builds(lambda kind, rest: bytes((kind,)) + rest, st.integers(0, 9), st.binary(max_size=40))
"""Bytes that are often a message."""


def test_every_type_has_its_messages() -> None:
    made = {Handshake, Audio, Text, Control, Metadata, Error, Ping, ColoredText}
    assert made == set(Message.__args__) and len(made) == len(Kind)


@given(MESSAGES)
def test_a_message_is_read_back(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert data[0] in Kind.__members__.values()


@given(st.binary() | NEARLY)
@example(b"")
@example(b"\3")
@example(b"\3\4")
@example(b"\2\xff")
@example(b'\4{"a": "\\ud800"}')
@example(b'\4{"a": NaN}')
@example(b"\4" + b"[" * 100_000)
@example(b"\4" + b"9" * 10_000)
def test_bytes_are_a_message_or_unreadable(data: bytes) -> None:
    try:
        message = decode(data)
    except Unreadable as exc:
        assert str(exc)
    else:
        assert encode(message) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0", Handshake()),
        (b"\1OggS", Audio(b"OggS")),
        (b"\2hello", Text("hello")),
        (b"\3\0", Control(Action.START)),
        (b"\3\1", Control(Action.END_TURN)),
        (b"\3\2", Control(Action.PAUSE)),
        (b"\3\3", Control(Action.RESTART)),
        (b'\4{"system_prompt": "x"}', Metadata('{"system_prompt": "x"}')),
        (b"\5no", Error("no")),
        (b"\6", Ping()),
        (b"\7\2red", ColoredText(2, "red")),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_the_bytes_are_those_of_upstream(data: bytes, message: Message) -> None:
    assert encode(message) == data
    assert decode(data) == message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty message"),
        (b"\x0b", "there is no message type 0b"),
        (b"{", "there is no message type 7b"),
        (b"\3", "a control message has one byte after its type, not 0"),
        (b"\3\0\0", "a control message has one byte after its type, not 2"),
        (b"\3\x09", "there is no control action 09"),
        (b"\2\xc3", "the text is not UTF-8"),
        (b"\4\xff", "the text is not UTF-8"),
        (b"\4", "the metadata is not JSON"),
        (b"\4{", "the metadata is not JSON"),
        (b"\4[1]", "the metadata is not a JSON object"),
        (b"\0\0", "a message of type 00 with 1 bytes after its type"),
        (b"\6x", "a message of type 06 with 1 bytes after its type"),
        (b"\7", "a message of type 07 with 0 bytes after its type"),
    ],
    ids=repr,
)
def test_what_is_none_says_why(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(data)
    assert str(caught.value) == why


def test_no_text_keeps_a_message_from_being_made() -> None:
    assert encode(Text("a\ud800b")) == b"\2a?b"
    assert decode(encode(metadata({"text": "a\udfff"}))) == Metadata('{"text":"a?"}')


def test_neither_shows_what_people_say() -> None:
    said = "my secret"
    for message in (Text(said), metadata({"a": said}), Error(said), ColoredText(1, said), Audio(said.encode())):
        assert said not in repr(message)
    with pytest.raises(Unreadable) as caught:
        decode(b"\4" + said.encode())
    assert said not in str(caught.value) and caught.value.__cause__ is None


def test_metadata_is_read_as_fields() -> None:
    message = decode(b"\4" + json.dumps({"system_prompt": "说话", "other": [1]}).encode())
    assert isinstance(message, Metadata)
    assert message.fields == {"system_prompt": "说话", "other": [1]}
