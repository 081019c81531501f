"""The items of a Realtime conversation: read from a client, shown to it in both dialects.

Sound is not kept: an item of speech has its words, and how long it was.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.wire.openai_realtime_beta import CONTENT, Dialect
from gateway.wire.openai_realtime_fields import Fields, Json, Wrong

LONGEST_ID, LONGEST_NAME, MOST_PARTS = 128, 200, 64
"""LONGEST_ID, LONGEST_NAME: characters."""


class Kind(StrEnum):
    MESSAGE = "message"
    CALL = "function_call"
    RESULT = "function_call_output"


class Part(StrEnum):
    """What a piece of content is."""

    INPUT_TEXT = "input_text"
    INPUT_AUDIO = "input_audio"
    OUTPUT_TEXT = "output_text"
    OUTPUT_AUDIO = "output_audio"

    @property
    def spoken(self) -> bool:
        return self in (Part.INPUT_AUDIO, Part.OUTPUT_AUDIO)


@dataclass(slots=True)
class Content:
    part: Part
    text: str | None = field(default=None, repr=False)
    """Its words; None where they are not known yet."""
    pcm: bytes = field(default=b"", repr=False)
    """INPUT_AUDIO of a client, in the session's format, until it is recognised."""

    def shown(self, dialect: Dialect) -> Json:
        kind = CONTENT.get(self.part, str(self.part)) if dialect is Dialect.BETA else str(self.part)
        return {"type": kind, "transcript" if self.part.spoken else "text": self.text}


@dataclass(slots=True)
class Item:
    id: str
    kind: Kind = Kind.MESSAGE
    role: str = "user"
    """user, assistant or system; of messages."""
    content: list[Content] = field(default_factory=list)
    status: str = "completed"
    """completed, incomplete or in_progress."""
    call_id: str = ""
    """Of calls and their results."""
    name: str = ""
    arguments: str = field(default="", repr=False)
    """JSON."""
    output: str = field(default="", repr=False)
    seconds: float = 0.0
    """Of its sound."""

    @property
    def text(self) -> str:
        """All its words."""
        return "\n".join(one.text for one in self.content if one.text)

    @property
    def understood(self) -> bool:
        """Whether all its words are known."""
        return all(one.text is not None for one in self.content)

    def shown(self, dialect: Dialect) -> Json:
        said: Json = {"id": self.id, "object": "realtime.item", "type": str(self.kind), "status": self.status}
        match self.kind:
            case Kind.MESSAGE:
                return said | {"role": self.role, "content": [one.shown(dialect) for one in self.content]}
            case Kind.CALL:
                return said | {"call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        return said | {"call_id": self.call_id, "output": self.output}


def read_item(found: Fields, new_id: str, most: int) -> Item:
    """An item that a client makes. new_id: where it names none; most: characters of any text. Raises Wrong."""
    kind = found.choice("type", tuple(Kind))
    if kind is None:
        raise found.missing("type")
    item = Item(found.text("id", LONGEST_ID) or new_id, Kind(kind))
    match item.kind:
        case Kind.MESSAGE:
            item.role = found.choice("role", ("user", "assistant", "system")) or "user"
            parts = found.children("content", MOST_PARTS)
            if not parts:
                raise found.missing("content")
            item.content = [_content(part, item.role, most) for part in parts]
        case Kind.CALL:
            item.call_id = found.text("call_id", LONGEST_ID) or new_id
            item.name = found.needed("name", LONGEST_NAME)
            item.arguments = found.needed("arguments", most)
        case Kind.RESULT:
            item.call_id, item.output = found.needed("call_id", LONGEST_ID), found.needed("output", most)
    return item


# Private

_PARTS = {
    "input_text": Part.INPUT_TEXT,
    "input_audio": Part.INPUT_AUDIO,
    "output_text": Part.OUTPUT_TEXT,
    "output_audio": Part.OUTPUT_AUDIO,
    "text": Part.OUTPUT_TEXT,
    "audio": Part.OUTPUT_AUDIO,
}
"""Both dialects' names."""


def _content(found: Fields, role: str, most: int) -> Content:
    kind = found.text("type", LONGEST_NAME)
    if kind == "input_image":
        raise Wrong("Images are not supported.", "unsupported_content", found.name("type"))
    if kind not in _PARTS:
        raise found.wrong("type", f"supported values are {', '.join(map(repr, _PARTS))}")
    part = _PARTS[kind]
    if role != "assistant" and part in (Part.OUTPUT_TEXT, Part.OUTPUT_AUDIO):
        part = Part.INPUT_TEXT if part is Part.OUTPUT_TEXT else Part.INPUT_AUDIO
    if not part.spoken:
        return Content(part, found.needed("text", most))
    text = found.text("transcript", most)
    if text is None and found.has("audio"):
        return Content(part, None, found.audio("audio"))
    if text is None:
        raise found.missing("audio")
    return Content(part, text)
