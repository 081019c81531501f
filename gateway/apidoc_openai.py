"""The API document of OpenAI's paths."""

from pydantic import BaseModel

from gateway import apidoc_transcription
from gateway.apidoc_parts import BYTES, TEXT, Document, an_object, error, errors, form, json_answer, json_body, says
from gateway.encoding import FORMATS
from gateway.surfaces import openai_speech, openai_voices
from gateway.wire import openai_audio as wire

SCHEMA = "OpenAIError"
ERROR = an_object(
    error={
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": TEXT,
            "type": TEXT,
            "param": {"type": ["string", "null"], "description": "The field that is wrong, where it is one."},
            "code": {"type": ["string", "null"]},
        },
    }
)
_NAME = {**TEXT, "minLength": 1, "maxLength": 200}
_DEVICE = {**TEXT, "maxLength": 200, "description": "Whose it is, where it belongs to a device."}
_STAMPS = ("X-Request-Id", "OpenAI-Processing-Ms")


def paths() -> Document:
    """Those that FastAPI does not serve."""
    return {
        "/v1/audio/speech": {"post": _speech()},
        "/v1/audio/voices": {"post": _voice()},
        "/v1/audio/voice_consents": {"post": _consent()},
        **apidoc_transcription.paths(SCHEMA, _STAMPS),
    }


def complete(path: str, responses: Document) -> None:
    """What FastAPI says of its own routes: our errors instead of its own, and the headers of every answer."""
    if responses.pop("422", None):
        responses["400"] = error(400, SCHEMA)
    if "{" in path:
        responses["404"] = error(404, SCHEMA)
    responses["200"]["headers"] = says(*_STAMPS)


def _voice() -> Document:
    fields = {
        "name": _NAME,
        "audio_sample": {**BYTES, "description": "Any recording that ffmpeg reads; the cleanest 30 s are kept."},
        "consent": {**TEXT, "maxLength": 100, "description": "The id of a consent."},
        "type": {**TEXT, "enum": ["audio_sample"], "default": "audio_sample"},
        "ref_text": {**TEXT, "maxLength": 2000, "description": "What is said in the recording, if known."},
        "device_id": _DEVICE,
    }
    return {
        "tags": ["voices"],
        "summary": "Register a voice from a recording and a consent.",
        "requestBody": form(fields, required=["name", "audio_sample", "consent"]),
        "responses": {"200": _made(openai_voices.VoiceBody), **errors(400, 413, 422, 503, schema=SCHEMA)},
    }


def _consent() -> Document:
    fields = {
        "name": _NAME,
        "recording": {**BYTES, "description": "Any recording that ffmpeg reads, in which somebody speaks."},
        "language": {**TEXT, "description": "BCP 47, such as en-US."},
        "device_id": _DEVICE,
    }
    return {
        "tags": ["voices"],
        "summary": "Record somebody's consent to a voice made of theirs.",
        "requestBody": form(fields, required=["name", "recording", "language"]),
        "responses": {"200": _made(openai_voices.ConsentBody), **errors(400, 413, 422, 503, schema=SCHEMA)},
    }


def _made(model: type[BaseModel]) -> Document:
    return {**json_answer(model.model_json_schema()), "headers": says(*_STAMPS)}


def _speech() -> Document:
    kinds = {FORMATS[name].content_type.decode() for name in wire.FORMATS}
    spoken = {
        "description": "Speech in the format that was asked for, streamed as it is made, or as events "
        "(speech.audio.delta, speech.audio.done); broken off when the engine fails in the middle.",
        "headers": says("X-Sample-Rate", *_STAMPS),
        "content": {kind: {"schema": BYTES} for kind in sorted(kinds)} | {"text/event-stream": {"schema": TEXT}},
    }
    return {
        "tags": ["OpenAI"],
        "summary": "Synthesise a text, streamed.",
        "requestBody": json_body(openai_speech.SpeechBody),
        "responses": {"200": spoken, **errors(400, 413, 502, 503, 504, schema=SCHEMA)},
    }
