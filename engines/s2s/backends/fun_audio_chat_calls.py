"""The calls of tools in what the model writes: `<tool_call>`, JSON, `</tool_call>`, as often as it likes."""

import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from engines.s2s.backends import Call, Failed

_OPENS, _CLOSES = "<tool_call>", "</tool_call>"


class Calls:
    """Takes a reply apart as it is written: text, and calls between it."""

    def __init__(self, names: Sequence[str]) -> None:
        """names: of the tools that there are."""
        self._names = frozenset(names)
        self._left = ""
        """Of the text, what may still become a call."""
        self._inside = False
        self.found = False
        """Whether there has been a call, or one has begun."""

    def feed(self, text: str) -> Iterator[str | Call]:
        """Raises Failed for a call that is none."""
        self._left += text
        while True:
            mark = _CLOSES if self._inside else _OPENS
            before, found, after = self._left.partition(mark)
            if not found:
                break
            self._left, self._inside = after, not self._inside
            self.found = True
            if mark is _CLOSES:
                yield self._call(before)
            elif before.strip():
                yield before
        if not self._inside:
            held = _begun(self._left)
            ready, self._left = self._left[: len(self._left) - held], self._left[len(self._left) - held :]
            # The lines between two calls are no words.
            if ready.strip() or (ready and not self.found):
                yield ready

    def end(self) -> Iterator[str | Call]:
        """What is left; the model may forget to close its last call. Raises Failed."""
        left, self._left = self._left, ""
        if self._inside:
            yield self._call(left)
        elif left.strip():
            yield left

    # Private

    def _call(self, text: str) -> Call:
        try:
            found: Any = json.loads(text)
            name, arguments = found["name"], found.get("arguments") or {}
            if isinstance(arguments, str):  # some write JSON inside JSON
                arguments = json.loads(arguments)
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Failed("the model called a tool in a way that cannot be read") from None
        if name not in self._names:
            raise Failed("the model called a tool that is not among those it was given")
        return Call(f"call_{secrets.token_hex(8)}", name, json.dumps(arguments, ensure_ascii=False))


def may_call(text: str) -> bool:
    """Whether a reply that begins like this may begin with a call."""
    begun = text.lstrip()
    return begun.startswith(_OPENS) or _OPENS.startswith(begun)


def written(calls: Sequence[Call]) -> str:
    """Calls as the model writes them."""
    return "\n".join(
        f'{_OPENS}\n{{"name": {_json(call.name)}, "arguments": {call.arguments}}}\n{_CLOSES}' for call in calls
    )


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _begun(text: str) -> int:
    """How many characters at the end may be the beginning of a call."""
    return next((size for size in range(len(_OPENS) - 1, 0, -1) if text.endswith(_OPENS[:size])), 0)
