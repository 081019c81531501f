"""The API document of the paths that FastAPI does not serve itself: /openapi.json shows one API."""

from collections.abc import Callable

from gateway import apidoc_avatar, apidoc_keys, apidoc_nls, apidoc_nls_async, apidoc_openai
from gateway.apidoc_parts import (
    BYTES,
    MEANINGS,
    TEXT,
    Document,
    an_object,
    error,
    errors,
    form,
    header,
    json_answer,
    json_body,
    says,
)
from gateway.files import TYPES
from gateway.surfaces import desktop, funaudio, openai, voicechat, voices

_FILE = {"name": "name", "in": "path", "required": True, "schema": TEXT}

_ERROR = {
    "type": "object",
    "required": ["code", "message", "error"],
    "properties": {"code": TEXT, "message": TEXT, "error": TEXT},
}
_API_ERROR = {
    "type": "object",
    "required": ["error", "success"],
    "properties": {"error": TEXT, "success": {"type": "boolean", "const": False}},
}
_DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}


def with_direct_paths(document: Callable[[], Document]) -> Callable[[], Document]:
    """`document`, with the raw paths in it; made once."""
    made: list[Document] = []

    def whole() -> Document:
        if not made:
            made.append(_merged(document()))
        return made[0]

    return whole


def _merged(document: Document) -> Document:
    for path, operations in _paths().items():
        document["paths"].setdefault(path, {}).update(operations)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _errors_of(path)(path, operation["responses"])
            apidoc_keys.complete(path, operation["responses"])
    document["security"] = apidoc_keys.ASKED
    components = document.setdefault("components", {})
    components["securitySchemes"] = apidoc_keys.SCHEMES
    schemas = components.setdefault("schemas", {})
    schemas |= {
        apidoc_nls.SCHEMA: apidoc_nls.RESULT,
        apidoc_nls_async.SCHEMA: apidoc_nls_async.ERROR,
        apidoc_avatar.SCHEMA: apidoc_avatar.ANSWER,
        "Error": _ERROR,
        "ApiError": _API_ERROR,
        "Detail": _DETAIL,
        apidoc_openai.SCHEMA: apidoc_openai.ERROR,
    }
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _errors_of(path: str) -> Callable[[str, Document], None]:
    """What makes the errors of FastAPI's routes those of the path's client family."""
    if voicechat.owns(path):
        return _detail_errors
    return apidoc_openai.complete if openai.owns(path) else _json_errors


def _json_errors(path: str, responses: Document) -> None:
    """FastAPI documents its own 422; the gateway answers wrong requests with 400 in the surface's shape."""
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
        responses["400"] = error(400)
        if "{voice_id}" in path:
            responses["404"] = error(404)
    if path == "/ready":
        responses["503"] = error(503)


def _detail_errors(path: str, responses: Document) -> None:
    """The voice chat backend's, whose clients know FastAPI's own."""
    detail = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Detail"}}}}
    if "422" in responses:
        responses["422"] = {"description": "a name is missing, empty or too long", **detail}
    if "{chat_id}" in path:
        responses["404"] = {"description": "nobody has begun this chat", **detail}


def _paths() -> Document:
    return {
        "/v1/voices/train": {"post": _train()},
        "/v1/tts": {"post": _tts()},
        "/files/{name}": {"get": _download(), "head": _download_head()},
        "/api/transcribe": {"post": _transcribe()},
        "/api/synthesize": {"post": _synthesize()},
        **apidoc_openai.paths(),
        **apidoc_nls.paths(),
        **apidoc_nls_async.paths(),
        **apidoc_avatar.paths(),
    }


def _train() -> Document:
    fields = {
        "device_id": {**TEXT, "minLength": 1, "maxLength": 200},
        "name": {**TEXT, "minLength": 1, "maxLength": 200},
        "audio": {**BYTES, "description": "Any recording that ffmpeg reads; the cleanest 30 s are kept."},
        "prompt_text": {**TEXT, "maxLength": 2000, "description": "What is said in the recording, if known."},
    }
    answer = an_object(voiceId=TEXT, message=TEXT, data=voices.VoiceBody.model_json_schema())
    return {
        "tags": ["voices"],
        "summary": "Register a voice from a recording.",
        "description": "Ready when answered. The same recording and name again is the same voice.",
        "requestBody": form(fields, required=["device_id", "name", "audio"]),
        "responses": {"200": json_answer(answer), **errors(400, 413, 422, 503)},
    }


def _tts() -> Document:
    answer = an_object(audioUrl=TEXT, message=TEXT, data=an_object(audioUrl=TEXT, voiceId=TEXT))
    return {
        "tags": ["speech"],
        "summary": "Synthesise a text with a registered voice, into a file.",
        "description": "audioUrl is relative to the gateway. The same request again within a while is the same file.",
        "requestBody": json_body(desktop.TtsBody),
        "responses": {"200": json_answer(answer), **errors(400, 404, 413, 502, 503, 504)},
    }


def _download() -> Document:
    asked = [header("Range", "bytes=first-last"), header("If-Range", "An earlier ETag or Last-Modified.")]
    content = {kind.decode(): {"schema": BYTES} for kind in sorted(set(TYPES.values()))}
    sound = {"description": "The audio", "content": content}
    whole = says("Accept-Ranges", "Content-Length", "ETag", "Last-Modified")
    part = whole | says("Content-Range")
    return {
        "tags": ["speech"],
        "summary": "Download synthesised audio.",
        "parameters": [_FILE, *asked],
        "responses": {
            "200": {**sound, "headers": whole},
            "206": {**sound, "description": "The part that was asked for", "headers": part},
            "416": {"description": MEANINGS[416], "headers": says("Content-Range")},
            **errors(404),
        },
    }


def _download_head() -> Document:
    found = {"description": "It is there", "headers": says("Accept-Ranges", "Content-Length", "ETag", "Last-Modified")}
    return {
        "tags": ["speech"],
        "summary": "Ask for the size of synthesised audio.",
        "parameters": [_FILE],
        "responses": {"200": found, "404": {"description": "no such file, or it has expired"}},
    }


def _transcribe() -> Document:
    fields = {
        "audio": {**BYTES, "description": "Any recording that ffmpeg reads."},
        "language": {**TEXT, "description": "ISO 639 code or Chinese name; empty leaves it to the engine."},
        "hotwords": {**TEXT, "description": "Words to expect, separated by commas."},
    }
    answer = an_object(text=TEXT, language=TEXT, success={"type": "boolean"})
    return {
        "tags": ["recognition"],
        "summary": "Recognise a recording.",
        "requestBody": form(fields, required=["audio"]),
        "responses": {"200": json_answer(answer), **errors(400, 413, 422, 502, 503, 504, schema="ApiError")},
    }


def _synthesize() -> Document:
    wav = {
        "description": "WAV, mono s16le, streamed as it is made; broken off when the engine fails in the middle",
        "headers": says("X-Sample-Rate"),
        "content": {"audio/wav": {"schema": BYTES}},
    }
    return {
        "tags": ["speech"],
        "summary": "Synthesise a text, streamed.",
        "requestBody": json_body(funaudio.SynthesizeBody),
        "responses": {"200": wav, **errors(400, 404, 413, 502, 503, 504, schema="ApiError")},
    }
