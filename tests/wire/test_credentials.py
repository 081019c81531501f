"""Every place for a key, and nothing of one that is shown."""

import pytest
from hypothesis import given as for_all
from hypothesis import strategies

from gateway.wire.credentials import MOST_CHARACTERS, given, masked


@pytest.mark.parametrize(
    ("name", "value", "keys"),
    [
        ("authorization", "Bearer k", ["k"]),
        ("authorization", "BEARER   k ", ["k"]),
        ("authorization", "Basic k", []),
        ("authorization", "Bearer", []),
        ("authorization", "Bearer  ", []),
        ("authorization", "Bearer a b", ["a b"]),
        ("x-api-key", " k ", ["k"]),
        ("x-api-key", "", []),
        ("x-nls-token", "k", ["k"]),
        ("sec-websocket-protocol", "realtime, openai-insecure-api-key.k,json", ["k"]),
        ("sec-websocket-protocol", "realtime,openai-insecure-api-key.", []),
        ("sec-websocket-protocol", "k", []),
        ("cookie", "k", []),
        ("x-api-key", "k" * MOST_CHARACTERS, ["k" * MOST_CHARACTERS]),
        ("x-api-key", "k" * (MOST_CHARACTERS + 1), []),
        ("x-api-key", "k" * 100_000, []),
    ],
)
def test_headers(name: str, value: str, keys: list[str]) -> None:
    assert given([(b"host", b"h"), (name.encode(), value.encode())], b"") == keys


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        (b"token=k", ["k"]),
        (b"a=b&api_key=k%2Fx", ["k/x"]),
        (b"token=a&token=b", ["a", "b"]),
        (b"token=", []),
        (b"mytoken=k", []),
        (b"key=k", []),
    ],
)
def test_addresses(query: bytes, keys: list[str]) -> None:
    assert given([], query) == keys


def test_all_of_them_are_found() -> None:
    headers = [(b"authorization", b"Bearer a"), (b"x-api-key", b"b"), (b"x-nls-token", b"c")]
    assert given(headers, b"token=d") == ["a", "b", "c", "d"]


@for_all(strategies.lists(strategies.tuples(strategies.binary(), strategies.binary())), strategies.binary())
def test_nothing_that_a_client_sends_is_a_failure(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    for key in given([*headers, (b"x-api-key", query), (b"authorization", query)], query + b"&token=" + query):
        assert 0 < len(key) <= MOST_CHARACTERS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("a", "*"),
        ("12345678", "********"),
        ("123456789", "1234*6789"),
        ("1234567890abcdef", "1234********cdef"),
    ],
)
def test_only_the_ends_of_a_long_one_are_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_what_is_shown_is_never_long() -> None:
    assert len(masked("k" * 10_000)) == 64
