"""What a session yields: the outward half of every verb.

A session that ends normally is complete; one that raises is broken. There is no separate end event to forget.
"""

from dataclasses import dataclass


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
