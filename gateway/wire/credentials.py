"""Where a request carries its key: each client family has a place of its own, and every place is taken from all.

Rule 1: what is found here is only what somebody claims; whether it is good, gateway/access.py knows.
Rule 2: nothing found here is shown but masked.
"""

from collections.abc import Iterable
from urllib.parse import parse_qsl

MOST_CHARACTERS = 512
"""Of a key; what is longer is none."""
SUBPROTOCOL = "openai-insecure-api-key."
"""Before a key among the subprotocols of a WebSocket: browsers can set no header there."""
_QUERY = ("token", "api_key")
_BEARER = "bearer "
_HEADERS = (b"authorization", b"x-api-key", b"x-nls-token", b"sec-websocket-protocol")
_MOST_BYTES = 4096
"""Of a header; one that is longer is passed over."""


def given(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> list[str]:
    """Everything that may be a key. headers: lower-case names."""
    found: list[str] = []
    for name, value in headers:
        if name in _HEADERS and len(value) <= _MOST_BYTES:
            _take(name, value.decode("latin-1"), found)
    if query and (b"token=" in query or b"api_key=" in query):
        found += [text for field, text in parse_qsl(query.decode("latin-1")) if field in _QUERY and _is_key(text)]
    return found


def masked(text: str) -> str:
    """Enough of it to tell which one it was: four characters at each end of a long one, none of a short one."""
    text = text[:64]
    return "*" * len(text) if len(text) <= 8 else f"{text[:4]}{'*' * (len(text) - 8)}{text[-4:]}"


# Private


def _take(name: bytes, text: str, found: list[str]) -> None:
    if name == b"authorization":
        if text[: len(_BEARER)].lower() != _BEARER:
            return
        text = text[len(_BEARER) :]
    elif name == b"sec-websocket-protocol":
        for offered in text.split(","):
            key = offered.strip().removeprefix(SUBPROTOCOL)
            if key != offered.strip() and _is_key(key):
                found.append(key)
        return
    text = text.strip()
    if _is_key(text):
        found.append(text)


def _is_key(text: str) -> bool:
    return 0 < len(text) <= MOST_CHARACTERS
