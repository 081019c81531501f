"""OpenAI's chat completions, streamed: the request as JSON, the answer as server-sent events, or as JSON where a server
does not stream.

Rule 1: an answer is whole only when it says so: by [DONE], or by a finish_reason.
Rule 2: nothing here trusts a length: one event has LONGEST bytes at most, one answer MOST_CALLS calls.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.wire import answers

PATH = "/chat/completions"
EVENTS = b"text/event-stream"
LONGEST = 1024 * 1024
"""Bytes of one event; of all arguments of an answer's calls, characters."""
MOST_CALLS = 64
_WHOLE = ("stop", "tool_calls", "function_call")


class NotChat(ValueError):
    """The bytes are none of this protocol."""


class Refused(ValueError):
    """The server broke its answer off, and says why."""


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the reply."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Whole; given out at the end of the answer."""

    id: str
    name: str
    arguments: str = field(repr=False)
    """JSON."""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is over."""

    reason: str
    """Empty where the server does not say; "length" where it ran out of tokens."""

    @property
    def whole(self) -> bool:
        return not self.reason or self.reason in _WHOLE


Found = Text | ToolCall | Done


def message(role: str, text: str, calls: Sequence[ToolCall] = (), call: str = "") -> dict[str, Any]:
    """One of a request's messages; `call`: the id of the one whose result it is."""
    said: dict[str, Any] = {"role": role, "content": text}
    if call:
        said["tool_call_id"] = call
    if calls:
        said["content"] = text or None
        said["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in calls
        ]
    return said


def request(
    model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), choice: str = ""
) -> bytes:
    """choice: "required", or the name of the one tool to call; empty leaves it to the model."""
    body: dict[str, Any] = {"messages": list(messages), "stream": True}
    if model:
        body["model"] = model
    if tools:
        body["tools"] = list(tools)
        if choice:
            named = {"type": "function", "function": {"name": choice}}
            body["tool_choice"] = choice if choice == "required" else named
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def read_whole(body: bytes) -> list[Found]:
    """An answer that was not streamed. Raises NotChat, Refused."""
    answer = _Answer()
    found = answer.chunk(body, "message")
    return [*found, *answer.end()]


def read_error(body: bytes) -> str:
    """What an answer of another status says, in one line; empty where it says nothing readable."""
    try:
        found = answers.read(body)
    except ValueError:
        return ""
    return _said(found.get("error")) or _said(found)


class Stream:
    """A streamed answer, from bytes that the network has cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._answer = _Answer()
        self._done = False

    def feed(self, data: bytes) -> list[Found]:
        """What these bytes complete. Raises NotChat, Refused."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        if len(self._rest) > LONGEST or sum(map(len, self._data)) > LONGEST:
            raise NotChat("an event without end")
        return [found for line in lines for found in self._line(line)]

    def end(self) -> list[Found]:
        """The bytes are over. Raises NotChat where the answer is not."""
        found = self.feed(b"\n\n")
        return found if self._done else [*found, *self._finish()]

    # Private

    def _line(self, line: bytes) -> list[Found]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        if line or not self._data:  # other fields, and comments that keep the connection alive
            return []
        data, self._data = b"\n".join(self._data), []
        if self._done:
            return []
        return self._finish(explicit=True) if data.strip() == b"[DONE]" else self._answer.chunk(data, "delta")

    def _finish(self, explicit: bool = False) -> list[Found]:
        self._done = True
        return self._answer.end(explicit)


class _Answer:
    """What the chunks of one answer come to."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._calls: dict[int, list[str]] = {}
        """By their index: id, name, arguments."""

    def chunk(self, data: bytes, part: str) -> list[Found]:
        """part: "delta" of a stream, "message" of a whole answer."""
        try:
            found = answers.read(data)
        except ValueError as exc:
            raise NotChat("an event that is no JSON object") from exc
        if found.get("error"):
            raise Refused(_said(found["error"]) or "no reason given")
        choices = found.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return []
        said = choice.get(part)
        text = self._delta(said) if isinstance(said, dict) else ""
        if isinstance(choice.get("finish_reason"), str):
            self._reason = choice["finish_reason"]
        return [Text(text)] if text else []

    def end(self, explicit: bool = False) -> list[Found]:
        """explicit: whether [DONE] was said."""
        if self._reason is None and not explicit:
            raise NotChat("an answer that breaks off")
        calls = [ToolCall(*parts) for _, parts in sorted(self._calls.items()) if parts[1]]
        return [*calls, Done(self._reason or "")]

    def _delta(self, said: dict[str, Any]) -> str:
        calls = said.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._call(call, call["index"] if isinstance(call.get("index"), int) else self._index(call))
        return answers.text(said, "content") if isinstance(said.get("content"), str) else ""

    def _index(self, call: dict[str, Any]) -> int:
        """For servers that leave it out: another id is another call."""
        last = len(self._calls) - 1
        known = last >= 0 and call.get("id") in (None, "", next(reversed(self._calls.values()))[0])
        return last if known else last + 1

    def _call(self, call: dict[str, Any], index: int) -> None:
        if index not in self._calls and len(self._calls) >= MOST_CALLS:
            raise NotChat(f"an answer with more than {MOST_CALLS} calls")
        parts = self._calls.setdefault(index, [f"call_{index}", "", ""])
        function = call.get("function")
        parts[0] = answers.text(call, "id", 200) or parts[0]
        if isinstance(function, dict):
            parts[1] = answers.text(function, "name", 200) or parts[1]
            parts[2] += _arguments(function)
        if sum(len(one[2]) for one in self._calls.values()) > LONGEST:
            raise NotChat("calls without end")


def _arguments(function: dict[str, Any]) -> str:
    """A string, as OpenAI writes it; some servers write the object itself."""
    found = function.get("arguments")
    return json.dumps(found, ensure_ascii=False) if isinstance(found, dict) else answers.text(function, "arguments")


def _said(error: object) -> str:
    """{"error": {"message": …}}, {"error": "…"}, {"message": …} and {"detail": …} all occur."""
    if isinstance(error, dict):
        return next((line for name in ("message", "detail", "error") if (line := _said(error.get(name)))), "")
    return " ".join(error.encode(errors="replace").decode().split())[:500] if isinstance(error, str) else ""
