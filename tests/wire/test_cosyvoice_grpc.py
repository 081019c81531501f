"""CosyVoice's gRPC messages: the same bytes mean the same to us and to Google's library; what is none is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import cosyvoice_grpc as wire
from tests.wire.protobuf import COSYVOICE, messages

THEIRS = messages()
MEMBERS = {
    wire.Sft: ("sft_request", "sftRequest"),
    wire.ZeroShot: ("zero_shot_request", "zeroshotRequest"),
    wire.CrossLingual: ("cross_lingual_request", "crosslingualRequest"),
    wire.Instruct: ("instruct_request", "instructRequest"),
}
NAMES = {name: kind for kind, (name, _) in MEMBERS.items()}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
requests = st.one_of(
    st.builds(wire.Sft, texts, texts),
    st.builds(wire.ZeroShot, texts, texts, st.binary(max_size=300)),
    st.builds(wire.CrossLingual, texts, st.binary(max_size=300)),
    st.builds(wire.Instruct, texts, texts, texts),
)


def theirs(request: wire.Request) -> Any:
    """The same request as a message of the library."""
    name, kind = MEMBERS[type(request)]
    payload = THEIRS[kind](**{field: getattr(request, field) for field in request.__dataclass_fields__})
    return THEIRS["Request"](**{name: payload})


def meant(message: Any) -> wire.Request | None:
    """A message of the library as a request of ours."""
    name = message.WhichOneof("RequestPayload")
    if name is None:
        return None
    payload = getattr(message, name)
    kind = NAMES[name]
    return kind(**{field: getattr(payload, field) for field in kind.__dataclass_fields__})


def read_by_both(data: bytes) -> None:
    """We read what the library reads, as it does, and refuse what it refuses."""
    message = THEIRS["Request"]()
    try:
        message.ParseFromString(data)
    except Exception:
        with pytest.raises(ValueError):
            wire.decode_request(data)
    else:
        assert wire.decode_request(data) == meant(message)


def tag(number: int, kind: int) -> bytes:
    return wire._length(number << 3 | kind)


def bounded(content: bytes) -> bytes:
    return wire._length(len(content)) + content


def fields(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A field of any number and type, known or not, with what belongs to its type behind it."""
    numbers = st.one_of(st.integers(1, 5), st.integers(1, 2**29 - 1))
    varint = st.integers(0, 2**64 - 1).map(wire._length)
    return st.one_of(
        st.builds(lambda n, v: tag(n, 0) + v, numbers, varint),
        st.builds(lambda n, v: tag(n, 1) + v, numbers, st.binary(min_size=8, max_size=8)),
        st.builds(lambda n, v: tag(n, 5) + v, numbers, st.binary(min_size=4, max_size=4)),
        st.builds(lambda n, v: tag(n, 2) + bounded(v), numbers, st.one_of(inner, st.binary(max_size=20))),
        st.builds(lambda n, v: tag(n, 3) + v + tag(n, 4), numbers, inner),
    )


def sequences(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(fields(inner), max_size=6).map(b"".join)


any_message = st.recursive(st.just(b""), sequences, max_leaves=12)


class TestRequests:
    @given(requests)
    def test_the_library_reads_what_we_write(self, request: wire.Request) -> None:
        message = THEIRS["Request"]()
        message.ParseFromString(wire.encode_request(request))
        assert meant(message) == request

    @given(requests)
    def test_we_write_the_very_bytes_of_the_library(self, request: wire.Request) -> None:
        assert wire.encode_request(request) == theirs(request).SerializeToString(deterministic=True)

    @given(requests)
    def test_we_read_what_the_library_writes(self, request: wire.Request) -> None:
        assert wire.decode_request(theirs(request).SerializeToString()) == request

    @given(st.lists(requests, max_size=4))
    def test_several_payloads_mean_what_they_mean_to_the_library(self, several: list[wire.Request]) -> None:
        read_by_both(b"".join(map(wire.encode_request, several)))

    @given(any_message)
    def test_unknown_fields_in_any_order_are_skipped(self, data: bytes) -> None:
        read_by_both(data)

    @given(requests, any_message, st.booleans())
    def test_unknown_fields_beside_a_payload_are_skipped(
        self, request: wire.Request, more: bytes, before: bool
    ) -> None:
        data = wire.encode_request(request)
        read_by_both(more + data if before else data + more)

    @given(st.binary(max_size=40))
    def test_no_bytes_at_all_make_it_fail_in_another_way(self, data: bytes) -> None:
        try:
            wire.decode_request(data)
        except ValueError:
            return
        THEIRS["Request"]().ParseFromString(data)

    @given(requests, st.data())
    def test_a_request_cut_short_is_never_read_as_another_one(self, request: wire.Request, data: st.DataObject) -> None:
        whole = wire.encode_request(request)
        read_by_both(whole[: data.draw(st.integers(0, len(whole)))])

    def test_an_empty_request_asks_for_nothing(self) -> None:
        assert wire.decode_request(b"") is None
        assert wire.decode_request(b"\x0a\x00") == wire.Sft()


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a" + b"\xff" * 11,
        b"\x00\x01",
        b"\x02\x00",
        b"\x0e",
        b"\x0f\x00",
        b"\x0c",
        b"\x0b",
        b"\x0b\x14",
        b"\x0a\x03\x0a\x01\xff",
        b"\x09\x01\x02",
        b"\x0d\x01",
        b"\x0b" * 60 + b"\x0c" * 60,
        b"\x28\x00" * 101,
        b"\xa8\x80\x80\x80\x80\x00\x00",
    ],
    ids=[
        "no length", "length beyond the end", "length beyond all bounds", "endless number", "field 0",
        "field 0 with bytes", "type 6", "type 7", "end without a group", "group without an end", "another group's end",
        "text that is not UTF-8", "half a fixed64", "half a fixed32", "too deep", "too many fields",
        "field number of six bytes",
    ],
)  # fmt: skip
def test_what_is_not_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode_request(data)


class TestResponses:
    @given(st.binary(max_size=500))
    def test_both_read_what_the_other_writes(self, pcm: bytes) -> None:
        message = THEIRS["Response"](tts_audio=pcm)
        assert wire.decode_response(message.SerializeToString()) == pcm
        assert wire.encode_response(pcm) == message.SerializeToString()

    @given(any_message)
    def test_unknown_fields_are_skipped(self, data: bytes) -> None:
        message = THEIRS["Response"]()
        message.ParseFromString(data)
        assert wire.decode_response(data) == message.tts_audio

    @pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 5_000_000])
    def test_any_size(self, size: int) -> None:
        pcm = bytes(size)
        assert wire.decode_response(wire.encode_response(pcm)) == pcm
        assert wire.encode_response(pcm) == THEIRS["Response"](tts_audio=pcm).SerializeToString()


def test_every_field_of_the_messages_is_known() -> None:
    for kind, (_, name) in MEMBERS.items():
        assert tuple(kind.__dataclass_fields__) == tuple(field for _, field in COSYVOICE[name])
