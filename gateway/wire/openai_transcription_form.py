"""The form that OpenAI's `/v1/audio/transcriptions` and `/v1/audio/translations` take.

Rule 1: lists are written `name[]` or `name`, once for each value; an object is JSON, or one field `name[key]` for each
of its own, as OpenAI's SDK sends it.
Rule 2: an empty field is as if it was left out; fields of other names are ignored.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.wire.funasr_http import LANGUAGES, UNSPECIFIED, code_of, hotwords_of

FILE = "file"
_LISTS = ("languages", "keywords", "timestamp_granularities", "include")
LISTS = (*_LISTS, *(f"{name}[]" for name in _LISTS))
_SPEAKERS = ("known_speaker_names", "known_speaker_references")
DROPPED = (*_SPEAKERS, *(f"{name}[]" for name in _SPEAKERS))
"""Nobody tells speakers apart; what would help to may be long."""
MOST_KEYWORDS, LONGEST_KEYWORD = 1000, 64
"""Engines take no more, and no longer ones: characters."""
PROMPT_WORDS, PROMPT_CHARACTERS = 4, 16
"""Longer parts of a prompt, between its marks, are prose, and no words to expect; characters where there are no
blanks."""
_VAD = {"prefix_padding_ms": 5000, "silence_duration_ms": 10_000, "threshold": 1}
"""Most that each may be."""


class Format(StrEnum):
    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE = "verbose_json"
    DIARIZED = "diarized_json"


class WrongField(ValueError):
    """`param` is which; the text says what would be right."""

    def __init__(self, param: str, text: str) -> None:
        super().__init__(f"{param}: {text}")
        self.param = param


@dataclass(frozen=True, slots=True)
class Vad:
    """How to listen; None as the gateway does."""

    silence: float | None = None
    padding: float | None = None
    """Seconds."""
    threshold: float | None = None
    """Probability."""


@dataclass(frozen=True, slots=True)
class Asked:
    format: Format
    language: str
    """ISO 639 code; empty leaves it to the engine."""
    hotwords: tuple[str, ...]
    temperature: float
    words: bool
    segments: bool
    """Whether the times of each are wanted, in verbose_json."""
    stream: bool
    vad: Vad | None
    """None where the client leaves open how audio is cut."""

    @property
    def timed(self) -> bool:
        return self.format not in (Format.JSON, Format.TEXT)


def read(fields: Mapping[str, str], lists: Mapping[str, Sequence[str]], *, translate: bool) -> Asked:
    """Raises WrongField."""
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    several = {
        name: [value.strip() for key in (name, f"{name}[]") for value in lists.get(key, ()) if value.strip()]
        for name in _LISTS
    }
    formats = [one.value for one in Format if not (translate and one is Format.DIARIZED)]
    granularities = _each("timestamp_granularities", several, ("word", "segment"))
    _each("include", several, ("logprobs",))
    return Asked(
        Format(_one_of("response_format", given, formats) or Format.JSON),
        _language(given, several["languages"]),
        _hotwords(several["keywords"], given.get("prompt", "")),
        _number("temperature", given.get("temperature", "0"), 1),
        words="word" in granularities,
        segments="segment" in granularities or not granularities,
        stream=not translate and _one_of("stream", given, ("true", "false", "1", "0")) in ("true", "1"),
        vad=None if translate else _chunking(given),
    )


# Private


def _one_of(name: str, given: Mapping[str, str], known: Collection[str]) -> str:
    value = given.get(name, "").lower()
    if value and value not in known:
        raise WrongField(name, f"one of {', '.join(known)}")
    return value


def _each(name: str, several: Mapping[str, Sequence[str]], known: Collection[str]) -> Sequence[str]:
    for value in several[name]:
        if value not in known:
            raise WrongField(name, f"one of {', '.join(known)}")
    return several[name]


def _number(name: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:  # nor NaN
        raise WrongField(name, f"a number from 0 to {most:g}")
    return value


def _language(given: Mapping[str, str], possible: Sequence[str]) -> str:
    """Of several that are possible the engine tells which it is."""
    for name, value in [("language", given.get("language", "")), *(("languages", one) for one in possible)]:
        code = code_of(value)
        if code not in LANGUAGES and not (len(code) <= 20 and code.replace("-", "").isalnum()) and value:
            raise WrongField(name, "an ISO 639 code, such as en")
    asked = given.get("language", "") or (possible[0] if len({code_of(one) for one in possible}) == 1 else "")
    return "" if asked.lower() in UNSPECIFIED else code_of(asked)


def _hotwords(keywords: Sequence[str], prompt: str) -> tuple[str, ...]:
    """What to expect: every keyword, and of a prompt what is between its marks and no prose."""
    found = [part for one in keywords for part in hotwords_of(one)]
    if len(found) > MOST_KEYWORDS or any(len(one) > LONGEST_KEYWORD for one in found):
        raise WrongField("keywords", f"at most {MOST_KEYWORDS} of at most {LONGEST_KEYWORD} characters")
    for mark in ".。;；:：!！?？":
        prompt = prompt.replace(f"{mark} " if mark.isascii() else mark, "\n")
    for part in hotwords_of(prompt.rstrip(".;:!?")):
        most = LONGEST_KEYWORD if part.isascii() or " " in part else PROMPT_CHARACTERS
        if len(part) <= most and len(part.split()) <= PROMPT_WORDS:
            found.append(part)
    return tuple(dict.fromkeys(found))[:MOST_KEYWORDS]


def _chunking(given: Mapping[str, str]) -> Vad | None:
    name = "chunking_strategy"
    parts = {key[len(name) + 1 : -1]: value for key, value in given.items() if key.startswith(f"{name}[")}
    if name in given and given[name] != "auto":
        parts = _object(name, given[name])
    if not parts:
        return None
    if parts.get("type") != "server_vad":
        raise WrongField(name, 'auto, or an object whose type is "server_vad"')
    asked = {key: _number(f"{name}.{key}", str(parts[key]), most) for key, most in _VAD.items() if key in parts}
    silence, padding = asked.get("silence_duration_ms"), asked.get("prefix_padding_ms")
    threshold = asked.get("threshold")
    return Vad(
        None if silence is None else max(silence, 100) / 1000,
        None if padding is None else padding / 1000,
        None if threshold is None else min(max(threshold, 0.01), 0.99),
    )


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WrongField(name, "auto, or an object")
    return found
