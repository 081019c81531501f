"""A Realtime session's settings: read from a client, shown to it, in both dialects.

Rule 1: inside they have the shape of the GA dialect; the beta's flat names are a table, for reading and for errors.
Rule 2: a `session.update` changes what it names; objects of one meaning (turn_detection, a format) change as a whole.
Rule 3: what we cannot do is refused; what only concerns OpenAI's own machines is kept and shown again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.wire import openai_realtime_beta as beta
from gateway.wire.openai_realtime_beta import PCM, PCMA, PCMU, Dialect
from gateway.wire.openai_realtime_fields import Fields, Json, Wrong
from gateway.wire.openai_realtime_tools import LONGEST_NAME, LONGEST_TEXT, read_tool, read_tool_choice

MOST_TOOLS, MOST_WORDS = 128, 1000
_RATES, _SPEEDS = (8000, 48_000), (0.5, 1.5)
_EAGER = {"low": 1200, "medium": 700, "auto": 700, "high": 400}
"""Milliseconds of silence that end a turn of semantic_vad."""
_ECHOED = ("tracing", "truncation", "prompt", "reasoning", "parallel_tool_calls")


class Kind(StrEnum):
    REALTIME = "realtime"
    TRANSCRIPTION = "transcription"


@dataclass(frozen=True, slots=True)
class Format:
    type: str = PCM
    rate: int = 24_000
    """Hz."""

    def shown(self) -> Json:
        return {"type": self.type, "rate": self.rate} if self.type == PCM else {"type": self.type}


@dataclass(frozen=True, slots=True)
class Detection:
    """Of turns. Times in milliseconds."""

    semantic: bool = False
    threshold: float = 0.5
    padding: int = 300
    silence: int = 500
    creates: bool = True
    """Whether a turn is answered."""
    interrupts: bool = True
    idle: int | None = None
    """Silence after a reply that is a turn of its own."""
    eagerness: str = "auto"

    def shown(self) -> Json:
        acts = {"create_response": self.creates, "interrupt_response": self.interrupts}
        if self.semantic:
            return {"type": "semantic_vad", "eagerness": self.eagerness, **acts}
        return {
            "type": "server_vad",
            "threshold": self.threshold,
            "prefix_padding_ms": self.padding,
            "silence_duration_ms": self.silence,
            "idle_timeout_ms": self.idle,
            **acts,
        }


@dataclass(frozen=True, slots=True)
class Transcription:
    """How what is said is wanted in words."""

    model: str = ""
    language: str = ""
    prompt: str = field(default="", repr=False)
    keywords: tuple[str, ...] = field(default=(), repr=False)

    def shown(self) -> Json:
        return {"model": self.model or None, "language": self.language or None, "prompt": self.prompt or None}


@dataclass(frozen=True, slots=True)
class Session:
    kind: Kind = Kind.REALTIME
    model: str = ""
    instructions: str = field(default="", repr=False)
    speech: bool = True
    """Whether replies are spoken; else written."""
    input: Format = Format()
    output: Format = Format()
    transcription: Transcription | None = None
    detection: Detection | None = Detection()
    noise: Json | None = None
    voice: str = ""
    speed: float = 1.0
    tools: tuple[Json, ...] = field(default=(), repr=False)
    tool_choice: str | Json = "auto"
    most_tokens: int | None = None
    """Of a reply; None for no limit."""
    temperature: float | None = None
    include: tuple[str, ...] | None = None
    echoed: Json = field(default_factory=dict, repr=False)


def updated(session: Session, found: Fields, dialect: Dialect) -> Session:
    """The session with what the client's object changes. Raises Wrong."""
    if dialect is Dialect.GA:
        beta.refuse(found)
        return _updated(session, found)
    try:
        return _updated(session, Fields(beta.nested(found.found), found.path))
    except Wrong as exc:
        raise beta.renamed(exc, found.path) from None


def shown(session: Session, id: str, dialect: Dialect) -> Json:  # noqa: A002
    """As its client sees it."""
    audio_in: Json = {
        "format": session.input.shown(),
        "transcription": session.transcription and session.transcription.shown(),
        "noise_reduction": session.noise,
        "turn_detection": session.detection and session.detection.shown(),
    }
    if session.kind is Kind.TRANSCRIPTION:
        said: Json = {"object": "realtime.transcription_session", "audio": {"input": audio_in}}
    else:
        said = {
            "object": "realtime.session",
            "model": session.model,
            "output_modalities": ["audio"] if session.speech else ["text"],
            "instructions": session.instructions,
            "audio": {
                "input": audio_in,
                "output": {"format": session.output.shown(), "voice": session.voice, "speed": session.speed},
            },
            "tools": list(session.tools),
            "tool_choice": session.tool_choice,
            "max_output_tokens": session.most_tokens or "inf",
            **{name: session.echoed.get(name) for name in ("tracing", "prompt")},
            **session.echoed,
        }
    said = {"id": id, "type": str(session.kind), **said, "include": session.include and list(session.include)}
    return beta.flat(said, session.temperature) if dialect is Dialect.BETA else said


# Private


def _updated(session: Session, found: Fields) -> Session:
    changes: Json = {}
    if kind := found.choice("type", tuple(Kind)):
        changes["kind"] = Kind(kind)
    if found.has("instructions"):
        changes["instructions"] = found.text("instructions", LONGEST_TEXT)
    if found.has("model"):
        changes["model"] = found.text("model", LONGEST_NAME)
    if found.has("output_modalities"):
        changes["speech"] = _speech(found)
    if found.has("tools"):
        changes["tools"] = tuple(map(read_tool, found.children("tools", MOST_TOOLS) or ()))
    if found.has("tool_choice"):
        changes["tool_choice"] = read_tool_choice(found)
    if "max_output_tokens" in found:
        changes["most_tokens"] = _most_tokens(found)
    if "temperature" in found:
        changes["temperature"] = found.number("temperature", 0, 2)
    if found.has("include"):
        changes["include"] = tuple(found.texts("include", MOST_TOOLS, LONGEST_NAME) or ())
    echoed = session.echoed | {name: found.raw(name) for name in _ECHOED if name in found}
    changes["echoed"] = {name: value for name, value in echoed.items() if value is not None}
    session = replace(session, **changes)
    audio = found.child("audio") or Fields({}, found.name("audio"))
    session = _with_output(_with_input(session, audio.child("input")), audio.child("output"))
    if session.kind is Kind.TRANSCRIPTION and session.transcription is None:
        session = replace(session, transcription=Transcription())
    return session


def _with_input(session: Session, found: Fields | None) -> Session:
    readers: dict[str, tuple[str, Callable[[Fields], Any]]] = {
        "format": ("input", _format),
        "transcription": ("transcription", _transcription),
        "noise_reduction": ("noise", lambda one: one.found),
        "turn_detection": ("detection", _detection),
    }
    changes: Json = {}
    for name, (into, read) in readers.items():
        if found is None or name not in found or (name == "format" and not found.has(name)):
            continue
        child = found.child(name)
        changes[into] = None if child is None else read(child)
    return replace(session, **changes)


def _with_output(session: Session, found: Fields | None) -> Session:
    if found is None:
        return session
    changes: Json = {}
    if (form := found.child("format")) is not None:
        changes["output"] = _format(form)
    if found.has("voice"):
        named = found.child("voice") if isinstance(found.raw("voice"), dict) else None
        changes["voice"] = found.text("voice", LONGEST_NAME) if named is None else named.needed("id", LONGEST_NAME)
    if (speed := found.number("speed", *_SPEEDS)) is not None:
        changes["speed"] = speed
    return replace(session, **changes)


def _format(found: Fields) -> Format:
    kind = found.choice("type", (PCM, PCMU, PCMA)) or PCM
    return Format(kind, (found.whole("rate", *_RATES) or 24_000) if kind == PCM else 8000)


def _transcription(found: Fields) -> Transcription:
    language = found.text("language", LONGEST_NAME) or next(
        iter(found.texts("languages", MOST_TOOLS, LONGEST_NAME) or ()), ""
    )
    keywords = tuple(found.texts("keywords", MOST_WORDS, LONGEST_NAME) or ())
    return Transcription(
        found.text("model", LONGEST_NAME) or "", language, found.text("prompt", LONGEST_TEXT) or "", keywords
    )


def _detection(found: Fields) -> Detection | None:
    kind = found.choice("type", ("server_vad", "semantic_vad", "none"))
    if kind == "none":
        return None
    creates = found.flag("create_response") is not False
    interrupts = found.flag("interrupt_response") is not False
    if kind == "semantic_vad":
        eager = found.choice("eagerness", tuple(_EAGER)) or "auto"
        return Detection(True, silence=_EAGER[eager], creates=creates, interrupts=interrupts, eagerness=eager)
    threshold = found.number("threshold", 0, 1)
    padding, silence = found.whole("prefix_padding_ms", 0, 5000), found.whole("silence_duration_ms", 50, 10_000)
    return Detection(
        threshold=0.5 if threshold is None else threshold,
        padding=300 if padding is None else padding,
        silence=500 if silence is None else silence,
        creates=creates,
        interrupts=interrupts,
        idle=found.whole("idle_timeout_ms", 1000, 600_000),
    )


def _speech(found: Fields) -> bool:
    kinds = found.texts("output_modalities", 2, LONGEST_NAME) or []
    if not kinds or not {*kinds} <= {"text", "audio"}:
        raise found.wrong("output_modalities", "supported are ['audio'] and ['text']")
    return "audio" in kinds


def _most_tokens(found: Fields) -> int | None:
    return None if found.raw("max_output_tokens") == "inf" else found.whole("max_output_tokens", 1, 1_000_000)
