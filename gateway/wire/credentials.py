"""Where a request carries its key: each client family has a place of its own, and every place is taken from all.

Rule 1: what is found here is only what somebody claims; whether it is good, gateway/access.py knows.
Rule 2: nothing found here is shown but masked.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl

MOST_CHARACTERS = 512
"""Of a key; what is longer is none."""
SUBPROTOCOL = "openai-insecure-api-key."
"""Before a key among the subprotocols of a WebSocket: browsers can set no header there."""
_QUERY = ("token", "api_key")
_BEARER = "bearer "
_PLAIN = (b"x-api-key", b"x-nls-token")


def given(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Iterator[str]:
    """Everything that may be a key. headers: lower-case names."""
    for name, value in headers:
        if name == b"authorization":
            yield from _bearer(value.decode("latin-1"))
        elif name in _PLAIN:
            yield from _whole(value.decode("latin-1"))
        elif name == b"sec-websocket-protocol":
            for offered in value.decode("latin-1").split(","):
                if offered.strip().startswith(SUBPROTOCOL):
                    yield from _whole(offered.strip().removeprefix(SUBPROTOCOL))
    if b"token=" in query or b"api_key=" in query:
        for field, text in parse_qsl(query.decode("latin-1")):
            if field in _QUERY:
                yield from _whole(text)


def asked(query: bytes, name: str) -> str:
    """The first value of that name in the address; empty without one."""
    return next((text for key, text in parse_qsl(query.decode("latin-1")) if key == name), "")


def masked(text: str) -> str:
    """Enough of it to tell which one it was: four characters at each end of a long one, none of a short one."""
    text = text[:64]
    return "*" * len(text) if len(text) <= 8 else f"{text[:4]}{'*' * (len(text) - 8)}{text[-4:]}"


# Private


def _bearer(value: str) -> Iterator[str]:
    if value[: len(_BEARER)].lower() == _BEARER:
        yield from _whole(value[len(_BEARER) :])


def _whole(text: str) -> Iterator[str]:
    text = text.strip()
    if 0 < len(text) <= MOST_CHARACTERS:
        yield text
