"""The desktop voice client's JSON (port 9090): what it sends, and the bodies that it reads.

It takes an id from `data.voiceId`, a URL from `data.audioUrl`, a voice from `data`; of an error it reads `message`, and
older versions `error`, so both are there.
"""

import json
from datetime import datetime

MODES = ("", "cross_lingual", "zero_shot")
AUDIO, DEVICE, NAME, PROMPT_TEXT = "audio", "device_id", "name", "prompt_text"


def error(code: str, text: str) -> bytes:
    return _json({"code": code, "message": text, "error": text})


def voice(voice_id: str, name: str, prompt_text: str, created: datetime, updated: datetime) -> dict[str, str]:
    """A voice as the client's list shows it. A voice exists only once it can be used, so it is always ready."""
    return {
        "id": voice_id,
        "voiceId": voice_id,
        "name": name,
        "status": "ready",
        "promptText": prompt_text,
        "createdAt": created.isoformat(),
        "updatedAt": updated.isoformat(),
    }


def trained(body: dict[str, str]) -> bytes:
    return _json({"message": "ok", "voiceId": body["id"], "data": body})


def spoken(audio_url: str, voice_id: str) -> bytes:
    return _json({"message": "ok", "audioUrl": audio_url, "data": {"audioUrl": audio_url, "voiceId": voice_id}})


def _json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
