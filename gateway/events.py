"""What a session yields: the outward half of every verb.

A session that ends normally is complete; one that raises is broken. There is no separate end event to forget.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Audio:
    """A piece of audio: mono s16le PCM, whole samples, never empty."""

    pcm: bytes
    sample_rate: int
    """Hz."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Recognised words."""

    text: str
    language: str
    """As the engine names it ("英文", "en", …); empty where it does not say."""
    final: bool = True
    """A partial, which is not, is replaced by the next Transcript of the same utterance."""
    utterance: int = 0
    """Counts from 0 within a session."""
    start: float | None = None
    end: float | None = None
    """Seconds from the start of the audio, where the engine knows."""
    words: tuple["Word", ...] = ()
    """Where the engine knows when each was said."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a character of a script without spaces."""

    text: str
    start: float
    end: float
    """Seconds from the start of the audio."""


@dataclass(frozen=True, slots=True)
class Opus:
    """Audio still packed: one whole page of an Ogg Opus stream (gateway/wire/opus.py), headers among them. Passed on
    as it is between two sides that both speak it: packing costs ten times what all else about a page does."""

    page: bytes = field(repr=False)


# What a conversation yields besides Transcript, which is what the user said; its `utterance` is the turn.


class Phase(StrEnum):
    """How far a turn is. Each turn ends with exactly one of DONE, CANCELLED and FAILED."""

    QUEUED = "queued"
    """It waits for the engine; said again when its place changes."""
    WORKING = "working"
    """The engine has taken it."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Turn:
    number: int
    """Which End or Write of the conversation it answers, counted from 1."""
    phase: Phase
    position: int = 0
    """In the queue, from 1."""
    seconds: float = 0.0
    """In the queue: an estimate."""
    code: str = ""
    """FAILED: as gateway/errors.py has them."""
    reason: str = field(default="", repr=False)
    """FAILED: one line for the client."""


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    turn: int
    audio: Audio | Opus
    text: str = field(default="", repr=False)
    """What is said from here on, where the engine knows: a sentence, with its first piece."""


@dataclass(frozen=True, slots=True)
class ReplyText:
    """The next piece of the reply as text: what goes behind the pieces before it."""

    turn: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The engine wants a function called, and to be given its result."""

    turn: int
    id: str
    name: str
    arguments: str = field(repr=False)
    """JSON."""


@dataclass(frozen=True, slots=True)
class Resumable:
    """The conversation can be taken up again by this token, for a while after its session has ended."""

    token: str
    resumed: bool
    """Whether this one was."""


# What an animation yields.


@dataclass(frozen=True, slots=True)
class Rendering:
    """How far it is; the percentage never falls."""

    percent: float


@dataclass(frozen=True, slots=True)
class Video:
    """The result: a whole file that the engine has made. It lives until the job is discarded."""

    path: Path


Animated = Rendering | Video
Conversed = Turn | Transcript | ReplyAudio | ReplyText | ToolCall | Resumable
