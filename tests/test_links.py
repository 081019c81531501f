"""Absolute addresses are where clients reach the gateway, and nowhere that a stranger says."""

from typing import Any

import pytest

from gateway.exchange import Exchange
from gateway.links import base
from gateway.settings import Settings


def asked(settings: dict[str, Any], scheme: str = "http", **headers: str) -> str:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "scheme": scheme, "headers": pairs, "server": ("0.0.0.0", 9090)}
    return base(Exchange(scope, None, None), Settings.model_validate(settings))  # type: ignore[arg-type]


FORWARDED = {"x_forwarded_host": "speech.example, proxy.internal", "x_forwarded_proto": "https"}


def test_it_is_the_host_that_the_client_asked() -> None:
    assert asked({}, host="voxgate.local:9090") == "http://voxgate.local:9090"
    assert asked({}, host="[::1]:9090", scheme="https") == "https://[::1]:9090"


def test_without_a_host_it_is_unknown_and_never_the_address_that_is_listened_on() -> None:
    assert asked({}) == ""


@pytest.mark.parametrize("host", ["a b", 'x"><script>', "a/b", "a@b", "a:b", "a\nb", "\xff", "a:123456", "[x]"])
def test_a_host_that_is_none_is_not_repeated(host: str) -> None:
    assert asked({}, host=host) == ""


def test_a_setting_has_the_last_word() -> None:
    said = {"public_url": "https://speech.example/api/", "forwarded": True}
    assert asked(said, host="other.example", **FORWARDED) == "https://speech.example/api"


def test_what_a_proxy_says_counts_only_where_it_is_trusted() -> None:
    assert asked({}, host="inside:9090", **FORWARDED) == "http://inside:9090"
    assert asked({"forwarded": True}, host="inside:9090", **FORWARDED) == "https://speech.example"
    assert asked({"forwarded": True}, host="inside:9090", x_forwarded_proto="gopher") == "http://inside:9090"
