"""The API document of OpenAI's paths."""

from gateway.apidoc_parts import BYTES, TEXT, Document, an_object, error, errors, json_body, says
from gateway.encoding import FORMATS
from gateway.surfaces import openai_speech

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
_STAMPS = ("X-Request-Id", "OpenAI-Processing-Ms")


def paths() -> Document:
    """Those that FastAPI does not serve."""
    return {"/v1/audio/speech": {"post": _speech()}}


def complete(path: str, responses: Document) -> None:
    """What FastAPI says of its own routes: our errors instead of its own, and the headers of every answer."""
    if responses.pop("422", None) and "{" not in path:
        responses["400"] = error(400, SCHEMA)
    if "{" in path:
        responses["404"] = error(404, SCHEMA)
    responses["200"]["headers"] = says(*_STAMPS)


def _speech() -> Document:
    kinds = {form.content_type.decode() for form in FORMATS.values()}
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
