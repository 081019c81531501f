"""JSON that an engine answered. Nothing in it is believed: an engine that went mad must not take the gateway along."""

import json
from collections.abc import Mapping
from typing import Any


def read(body: bytes) -> dict[str, Any]:
    """The object that it is. Raises ValueError."""
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("nested without end") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def text(found: Mapping[str, Any], name: str, most: int | None = None) -> str:
    """A field as text of at most `most` characters; empty without one. JSON may escape half a character, which could
    not be sent on: it becomes a question mark."""
    value = found.get(name)
    return str(value)[:most].encode(errors="replace").decode() if value else ""
