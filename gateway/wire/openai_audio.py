"""OpenAI's speech, models and voices as JSON: the events of `/v1/audio/speech`, and the objects of `/v1/models`,
`/v1/audio/voices` and `/v1/audio/voice_consents`.

Rule 1: an event of a stream has its type both as the event's name and in its data, as OpenAI sends it.
Rule 2: a time is a Unix timestamp in whole seconds.
Rule 3: what other servers of this API add (the names in `voices`, a model's `task`) is added beside OpenAI's fields.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Any

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
PCM_RATE = 24_000
"""Hz, of `pcm`, where the request names no other."""
EVENT_STREAM = b"text/event-stream; charset=utf-8"
SPEECH_TOKENS = 20
"""In a second of speech, one for each 50 ms, as OpenAI counts a reply's audio in its Realtime API."""

ALIASES = {
    "tts-1": "text-to-speech",
    "tts-1-hd": "text-to-speech",
    "gpt-4o-mini-tts": "text-to-speech",
    "whisper-1": "automatic-speech-recognition",
    "gpt-4o-transcribe": "automatic-speech-recognition",
    "gpt-4o-mini-transcribe": "automatic-speech-recognition",
    "gpt-realtime": "speech-to-speech",
}
"""Names that OpenAI's clients ask for, and what answers to them: the engine of that task, whatever it is called."""


def delta(audio: bytes) -> bytes:
    """The next piece of a stream."""
    return _event("speech.audio.delta", {"audio": b64encode(audio).decode()})


def done(characters: int, seconds: float) -> bytes:
    """The end of a stream, with what it took: a token is a character of the text, or 50 ms of speech."""
    spoken = ceil(round(seconds * SPEECH_TOKENS, 6))
    usage = {"input_tokens": characters, "output_tokens": spoken, "total_tokens": characters + spoken}
    return _event("speech.audio.done", {"usage": usage})


def model(name: str, task: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "voxgate", "task": task}


def voice(name: str, called: str, created: datetime) -> dict[str, Any]:
    """name: its id; called: its name."""
    return {
        "id": name,
        "object": "audio.voice",
        "created_at": int(created.timestamp()),
        "name": called,
        "type": "audio_sample",
    }


def consent(name: str, called: str, language: str, created: datetime) -> dict[str, Any]:
    """name: its id; called: its name."""
    return {
        "id": name,
        "object": "audio.voice_consent",
        "created_at": int(created.timestamp()),
        "name": called,
        "language": language,
    }


def deleted(name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "deleted": True, "success": True}


def listed(items: Sequence[dict[str, Any]], *, more: bool = False) -> dict[str, Any]:
    """A page of a list. more: whether something comes after it."""
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return {"object": "list", "data": list(items), **ends, "has_more": more}


# Private


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
