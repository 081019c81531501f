"""What OpenAI's `/v1/audio/transcriptions` and `/v1/audio/translations` answer, as JSON and as events.

Rule 1: times are seconds. Beside OpenAI's fields `timestamps` says whose they are: the engine's, or estimated.
Rule 2: no score is invented. Those that no engine gives (avg_logprob, no_speech_prob) are 0.0 and `tokens` is empty,
because clients want them to be there; compression_ratio is measured, as Whisper does it.
Rule 3: an event of a stream has its type both as the event's name and in its data, as OpenAI sends it.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from gateway.wire.funasr_http import LANGUAGES, code_of
from gateway.wire.openai_transcription_form import Asked

SPEAKER = "A"
"""The one that there is: nobody tells speakers apart."""
AUDIO_TOKENS = 10
"""In a second of what is heard, as OpenAI counts them in its Realtime API."""
_LETTERS = 4
"""In a token of text, about."""
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    start: float
    end: float
    words: Sequence[tuple[str, float, float]]
    """(word, start, end)."""
    measured: bool
    """Whether the times are the engine's."""
    seek: float
    """Where what was recognised together with it begins. All times in seconds."""


def name_of(language: str) -> str:
    """Its English name in lower case, as Whisper answers it, whatever an engine calls it."""
    code = code_of(language)
    return next((name for name in LANGUAGES.get(code, ()) if name.isascii()), code) or _UNKNOWN


def result(text: str, seconds: float, languages: Sequence[str]) -> bytes:
    """`json`. seconds: of audio; languages: as the engine calls them."""
    codes = [{"code": code_of(one)} for one in languages]
    return _compact({"text": text, **({"languages": codes} if codes else {}), "usage": _duration(seconds)})


def verbose(asked: Asked, task: str, text: str, seconds: float, language: str, found: Sequence[Segment]) -> bytes:
    """`verbose_json`. task: transcribe or translate."""
    body: dict[str, Any] = {"task": task, "language": name_of(language), "duration": round(seconds, 3), "text": text}
    if asked.words:
        words = [word for segment in found for word in segment.words]
        body["words"] = [{"word": word, "start": start, "end": end} for word, start, end in words]
    if asked.segments:
        body["segments"] = [_segment(number, one, asked.temperature) for number, one in enumerate(found)]
    return _compact({**body, "timestamps": source(found), "usage": _duration(seconds)})


def diarized(text: str, seconds: float, found: Sequence[Segment]) -> bytes:
    """`diarized_json`."""
    return _compact(
        {
            "task": "transcribe",
            "duration": round(seconds, 3),
            "text": text,
            "segments": [_spoken(number, one) for number, one in enumerate(found)],
            "timestamps": source(found),
            "usage": _duration(seconds),
        }
    )


def delta(text: str) -> bytes:
    return _event({"type": "transcript.text.delta", "delta": text})


def segment(number: int, found: Segment) -> bytes:
    """number: counted from 0."""
    return _event(_spoken(number, found))


def done(text: str, seconds: float) -> bytes:
    """The end of a stream, with what it took: a token is 100 ms of audio, or four characters of text."""
    heard, written = ceil(round(seconds * AUDIO_TOKENS, 6)), ceil(len(text) / _LETTERS)
    usage = {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
        "output_tokens": written,
        "total_tokens": heard + written,
    }
    return _event({"type": "transcript.text.done", "text": text, "usage": usage})


def source(found: Sequence[Segment]) -> str:
    """Whose the times are."""
    return "engine" if all(one.measured for one in found) else "estimated"


# Private


def _segment(number: int, one: Segment, temperature: float) -> dict[str, Any]:
    written = one.text.encode()
    return {
        "id": number,
        "seek": round(one.seek * 100),
        "start": one.start,
        "end": one.end,
        "text": one.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": 0.0,
        "compression_ratio": round(len(written) / len(zlib.compress(written)), 3),
        "no_speech_prob": 0.0,
        "timestamps": source([one]),
    }


def _spoken(number: int, one: Segment) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "speaker": SPEAKER,
        "start": one.start,
        "end": one.end,
        "text": one.text,
        "timestamps": source([one]),
    }


def _duration(seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(seconds, 3)}


def _compact(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _event(data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), _compact(data))
