"""Reading what a Realtime client wrote: each field by its kind and its bounds, and by its full name where it is wrong.

Rule 1: null is the same as nothing, but where a reader says otherwise.
Rule 2: fields that nobody asks for are passed over: clients know more than we do.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


class Wrong(ValueError):
    """What the client wrote cannot be used."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


class Fields:
    """A JSON object and its name."""

    def __init__(self, found: Json, path: str = "") -> None:
        self.found, self.path = found, path

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def name(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, message: str, code: str = "invalid_value") -> Wrong:
        return Wrong(f"Invalid value for '{self.name(name)}': {message}.", code, self.name(name))

    def has(self, name: str) -> bool:
        """Whether it is there, and not null."""
        return self.found.get(name) is not None

    def raw(self, name: str) -> Any:
        return self.found.get(name)

    def text(self, name: str, most: int) -> str | None:
        """most: characters."""
        found: str | None = self._typed(name, str, "a string")
        if found is not None and len(found) > most:
            raise self.wrong(name, f"it has {len(found)} characters; the limit is {most}", "string_above_max_length")
        return found

    def needed(self, name: str, most: int) -> str:
        found = self.text(name, most)
        if found is None:
            raise self.missing(name)
        return found

    def choice(self, name: str, among: Sequence[str]) -> str | None:
        found: str | None = self._typed(name, str, "a string")
        if found is not None and found not in among:
            raise self.wrong(name, f"supported values are {', '.join(map(repr, among))}")
        return found

    def flag(self, name: str) -> bool | None:
        found: bool | None = self._typed(name, bool, "a boolean")
        return found

    def number(self, name: str, least: float, most: float) -> float | None:
        found = self.raw(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.wrong(name, "expected a number", "invalid_type")
        if not least <= found <= most:  # NaN is not either
            raise self.wrong(name, f"expected {least:g} to {most:g}")
        return float(found)

    def whole(self, name: str, least: int, most: int) -> int | None:
        found = self.raw(name)
        if isinstance(found, float) and not found.is_integer():
            raise self.wrong(name, "expected an integer", "invalid_type")
        number = self.number(name, least, most)
        return None if number is None else int(number)

    def child(self, name: str) -> "Fields | None":
        found = self._typed(name, dict, "an object")
        return None if found is None else Fields(found, self.name(name))

    def children(self, name: str, most: int) -> "list[Fields] | None":
        """A list of at most `most` objects."""
        found = self._list(name, most)
        if found is None:
            return None
        for at, one in enumerate(found):
            if not isinstance(one, dict):
                raise self.wrong(f"{name}[{at}]", "expected an object", "invalid_type")
        return [Fields(one, f"{self.name(name)}[{at}]") for at, one in enumerate(found)]

    def texts(self, name: str, most: int, longest: int) -> list[str] | None:
        """A list of at most `most` strings."""
        found = self._list(name, most)
        if found is not None and not all(isinstance(one, str) and len(one) <= longest for one in found):
            raise self.wrong(name, f"expected strings of at most {longest} characters", "invalid_type")
        return found

    def audio(self, name: str) -> bytes:
        """What was packed in base64."""
        found = self._typed(name, str, "a string")
        if found is None:
            raise self.missing(name)
        try:
            return base64.b64decode(found, validate=True)
        except (binascii.Error, ValueError):
            raise self.wrong(name, "expected base64") from None

    def missing(self, name: str) -> Wrong:
        full = self.name(name)
        return Wrong(f"Missing required parameter: '{full}'.", "missing_required_parameter", full)

    # Private

    def _typed(self, name: str, kind: type, called: str) -> Any:
        found = self.raw(name)
        if found is not None and not isinstance(found, kind):
            raise self.wrong(name, f"expected {called}", "invalid_type")
        return found

    def _list(self, name: str, most: int) -> list[Any] | None:
        found: list[Any] | None = self._typed(name, list, "a list")
        if found is not None and len(found) > most:
            raise self.wrong(name, f"it has {len(found)} elements; the limit is {most}", "array_above_max_length")
        return found
