"""What Fun-Audio-Chat's protocol leaves unsaid, as JSON in its `04` messages: turns, places in a queue, transcripts,
the end of a reply, errors with a code, tools. Stock clients pass over all of it.

Every message of a server has a "type"; those of a client are fields that may come together. Turns count from 1 within
a connection. Times are seconds.
"""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Session:
    """Right after the handshake."""

    id: str
    resume: str = ""
    """Opened again with ?resume=…, a conversation goes on where it was; empty where that cannot be."""
    resumed: bool = False
    hands_free: bool = False


@dataclass(frozen=True, slots=True)
class Queued:
    """The turn waits: the engine is busy with others."""

    turn: int
    position: int
    """From 1."""
    seconds: float
    """An estimate."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Hands-free: somebody begins to speak. What is still to be played of the last reply is not wanted any more."""

    turn: int
    at: float
    """From the start of the connection's audio."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Hands-free: the turn is over."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What the user said, where the engine knows."""

    turn: int
    text: str = field(repr=False)
    final: bool = True


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The engine works on the turn."""

    turn: int


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """Nothing more comes of this turn."""

    turn: int
    status: str
    """completed, cancelled or failed."""
    audio_seconds: float = 0.0
    """Sent of it."""
    timings: dict[str, float] = field(default_factory=dict)
    """From the end of the user's speech: `recognition`, `first_token`, `first_audio`; `queued`, how long it waited;
    `barge_in`, from the user's interruption to the last byte sent of the reply. Those that are known."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Goes with an `05` message; `code` stays the same in every version."""

    code: str
    message: str = field(repr=False)
    turn: int = 0
    """0 where it belongs to none."""
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    turn: int
    id: str
    name: str
    arguments: str = field(repr=False)
    """JSON."""


Event = Session | Queued | SpeechStarted | SpeechStopped | Heard | ReplyStarted | ReplyDone | Failed | ToolCall
_TYPES: dict[str, type[Event]] = {
    "session": Session,
    "queued": Queued,
    "speech_started": SpeechStarted,
    "speech_stopped": SpeechStopped,
    "heard": Heard,
    "reply_started": ReplyStarted,
    "reply_done": ReplyDone,
    "error": Failed,
    "tool_call": ToolCall,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class ToolResult:
    id: str
    output: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants from now on; None leaves it as it is. `system_prompt` is upstream's own."""

    system_prompt: str | None = field(default=None, repr=False)
    voice: str | None = None
    language: str | None = None
    hands_free: bool | None = None
    speech: bool | None = None
    """Whether replies are spoken, or written only."""
    tools: tuple[dict[str, Any], ...] | None = None
    """As OpenAI writes them: {"type": "function", "function": {"name", "description", "parameters"}}."""
    tool_results: tuple[ToolResult, ...] = ()


MOST_TOOLS, LONGEST_PROMPT, LONGEST_NAME = 64, 20_000, 200
"""LONGEST_PROMPT, LONGEST_NAME: characters; the second of a voice and a language."""


def fields_of(event: Event) -> dict[str, Any]:
    """The object that says it; fields that are None are left out."""
    found = {one.name: getattr(event, one.name) for one in fields(event)}
    return {"type": _NAMES[type(event)], **{name: value for name, value in found.items() if value is not None}}


def read(found: dict[str, Any]) -> Event | None:
    """What a server says; None where it is nothing that we know. Unknown fields are passed over."""
    kind = _TYPES.get(found.get("type", "")) if isinstance(found.get("type"), str) else None
    if kind is None:
        return None
    known = {one.name: found[one.name] for one in fields(kind) if one.name in found}
    if not all(_is(value, _KINDS[kind, name]) for name, value in known.items()):
        return None
    try:
        return kind(**known)
    except TypeError:  # one is missing
        return None


def wish_of(found: dict[str, Any]) -> Wish:
    """What a client says; unknown fields are passed over. Raises ValueError, which names the wrong field."""
    for name, kind in (
        ("system_prompt", str),
        ("voice", str),
        ("language", str),
        ("hands_free", bool),
        ("speech", bool),
    ):
        if found.get(name) is not None and not isinstance(found[name], kind):
            raise ValueError(f"{name} is not a {'string' if kind is str else 'boolean'}")
    for name, longest in (("system_prompt", LONGEST_PROMPT), ("voice", LONGEST_NAME), ("language", LONGEST_NAME)):
        if len(found.get(name) or "") > longest:
            raise ValueError(f"{name} has more than {longest} characters")
    return Wish(
        found.get("system_prompt"),
        found.get("voice"),
        found.get("language"),
        found.get("hands_free"),
        found.get("speech"),
        _tools(found.get("tools")),
        _results(found.get("tool_results") or []),
    )


def wish_fields(wish: Wish) -> dict[str, Any]:
    """The object that says it."""
    found = {one.name: getattr(wish, one.name) for one in fields(wish) if one.name != "tool_results"}
    said = {name: value for name, value in found.items() if value is not None}
    if wish.tool_results:
        said["tool_results"] = [{"id": one.id, "output": one.output} for one in wish.tool_results]
    return said


# Private

_KINDS = {(kind, one.name): one.type for kind in _NAMES for one in fields(kind)}


def _is(value: Any, kind: Any) -> bool:
    """Whether it is what a field of that type may hold; whole numbers are numbers, booleans are none."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool:
        return isinstance(value, bool)
    if kind == dict[str, float]:
        return isinstance(value, dict) and all(_is(one, float) for one in value.values())
    return isinstance(value, kind) and not isinstance(value, bool)


def _tools(found: Any) -> tuple[dict[str, Any], ...] | None:
    if found is None:
        return None
    if not isinstance(found, list) or len(found) > MOST_TOOLS:
        raise ValueError(f"tools is not a list of at most {MOST_TOOLS}")
    for tool in found:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError('a tool is {"type": "function", "function": {"name": …}}')
    return tuple(found)


def _results(found: Any) -> tuple[ToolResult, ...]:
    if not isinstance(found, list) or len(found) > MOST_TOOLS:
        raise ValueError(f"tool_results is not a list of at most {MOST_TOOLS}")
    for one in found:
        if not isinstance(one, dict) or not isinstance(one.get("id"), str) or not isinstance(one.get("output"), str):
            raise ValueError('a tool result is {"id": "…", "output": "…"}')
    return tuple(ToolResult(one["id"], one["output"]) for one in found)
