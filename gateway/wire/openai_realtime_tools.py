"""The functions that a Realtime client lets a reply call: read from it, and as OpenAI's chat API has them."""

from gateway.wire.openai_realtime_fields import Fields, Json

LONGEST_TEXT, LONGEST_NAME = 100_000, 200
"""Characters."""


def read_tool(found: Fields) -> Json:
    kind = found.text("type", LONGEST_NAME) or "function"
    if kind != "function":
        raise found.wrong("type", "only tools of type 'function' are supported", "unsupported_tool")
    found.needed("name", LONGEST_NAME)
    found.text("description", LONGEST_TEXT)
    found.child("parameters")
    return {"type": "function", **{name: found.raw(name) for name in ("name", "description", "parameters")}}


def read_tool_choice(found: Fields) -> str | Json:
    if not isinstance(found.raw("tool_choice"), dict):
        return found.choice("tool_choice", ("auto", "none", "required")) or "auto"
    named = found.child("tool_choice")
    assert named is not None
    named.choice("type", ("function",))
    return {"type": "function", "name": named.needed("name", LONGEST_NAME)}


def chat_tools(tools: tuple[Json, ...], choice: str | Json) -> tuple[Json, ...]:
    """The tools as OpenAI's chat API, and verbs.Change, have them; none where none may be called."""
    if choice == "none":
        return ()
    return tuple(
        {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
        for tool in tools
    )


def chat_tool_choice(tools: tuple[Json, ...], choice: str | Json) -> str:
    """As verbs.Change has it."""
    if isinstance(choice, dict):
        return str(choice["name"])
    return "required" if choice == "required" and tools else ""
