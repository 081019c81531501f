"""The API document of the paths that FastAPI does not serve itself: /openapi.json shows one API."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from gateway.surfaces import desktop, funaudio, voicechat, voices

Document = dict[str, Any]
_PCM = {"type": "string", "format": "binary"}
_TEXTS = {"type": "string"}
_FILE = {"name": "name", "in": "path", "required": True, "schema": _TEXTS}

_ERROR = {
    "type": "object",
    "required": ["code", "message", "error"],
    "properties": {"code": _TEXTS, "message": _TEXTS, "error": _TEXTS},
}
_API_ERROR = {
    "type": "object",
    "required": ["error", "success"],
    "properties": {"error": _TEXTS, "success": {"type": "boolean", "const": False}},
}
_DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}
_MEANINGS = {
    400: "the request is wrong",
    404: "no such voice, or it is another device's",
    405: "the path has other methods",
    413: "too large",
    416: "the range lies outside the file",
    422: "the audio cannot be used: empty, undecodable, silent, too short or too long",
    502: "the engine failed before the first byte",
    503: "the engine is loading, busy or down; see Retry-After",
    504: "the engine fell silent",
}


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
            (_detail_errors if voicechat.owns(path) else _json_errors)(path, operation["responses"])
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"], schemas["ApiError"], schemas["Detail"] = _ERROR, _API_ERROR, _DETAIL
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _json_errors(path: str, responses: Document) -> None:
    """FastAPI documents its own 422; the gateway answers wrong requests with 400 in the surface's shape."""
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
        responses["400"] = _error(400)
        if "{voice_id}" in path:
            responses["404"] = _error(404)
    if path == "/ready":
        responses["503"] = _error(503)


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
    }


def _train() -> Document:
    fields = {
        "device_id": {**_TEXTS, "minLength": 1, "maxLength": 200},
        "name": {**_TEXTS, "minLength": 1, "maxLength": 200},
        "audio": {**_PCM, "description": "Any recording that ffmpeg reads; the cleanest 30 s are kept."},
        "prompt_text": {**_TEXTS, "maxLength": 2000, "description": "What is said in the recording, if known."},
    }
    answer = _object(voiceId=_TEXTS, message=_TEXTS, data=voices.VoiceBody.model_json_schema())
    return {
        "tags": ["voices"],
        "summary": "Register a voice from a recording.",
        "description": "Ready when answered. The same recording and name again is the same voice.",
        "requestBody": _form(fields, required=["device_id", "name", "audio"]),
        "responses": {"200": _json(answer), **_errors(400, 413, 422, 503)},
    }


def _tts() -> Document:
    answer = _object(audioUrl=_TEXTS, message=_TEXTS, data=_object(audioUrl=_TEXTS, voiceId=_TEXTS))
    return {
        "tags": ["speech"],
        "summary": "Synthesise a text with a registered voice, into a file.",
        "description": "audioUrl is relative to the gateway. The same request again within a while is the same file.",
        "requestBody": _body(desktop.TtsBody),
        "responses": {"200": _json(answer), **_errors(400, 404, 413, 502, 503, 504)},
    }


def _download() -> Document:
    asked = [_header("Range", "bytes=first-last"), _header("If-Range", "An earlier ETag or Last-Modified.")]
    wav = {"description": "WAV, mono s16le", "content": {"audio/wav": {"schema": _PCM}}}
    whole = _says("Accept-Ranges", "Content-Length", "ETag", "Last-Modified")
    part = whole | _says("Content-Range")
    return {
        "tags": ["speech"],
        "summary": "Download synthesised audio.",
        "parameters": [_FILE, *asked],
        "responses": {
            "200": {**wav, "headers": whole},
            "206": {**wav, "description": "The part that was asked for", "headers": part},
            "416": {"description": _MEANINGS[416], "headers": _says("Content-Range")},
            **_errors(404),
        },
    }


def _download_head() -> Document:
    found = {"description": "It is there", "headers": _says("Accept-Ranges", "Content-Length", "ETag", "Last-Modified")}
    return {
        "tags": ["speech"],
        "summary": "Ask for the size of synthesised audio.",
        "parameters": [_FILE],
        "responses": {"200": found, "404": {"description": "no such file, or it has expired"}},
    }


def _transcribe() -> Document:
    fields = {
        "audio": {**_PCM, "description": "Any recording that ffmpeg reads."},
        "language": {**_TEXTS, "description": "ISO 639 code or Chinese name; empty leaves it to the engine."},
        "hotwords": {**_TEXTS, "description": "Words to expect, separated by commas."},
    }
    answer = _object(text=_TEXTS, language=_TEXTS, success={"type": "boolean"})
    return {
        "tags": ["recognition"],
        "summary": "Recognise a recording.",
        "requestBody": _form(fields, required=["audio"]),
        "responses": {"200": _json(answer), **_errors(400, 413, 422, 502, 503, 504, schema="ApiError")},
    }


def _synthesize() -> Document:
    wav = {
        "description": "WAV, mono s16le, streamed as it is made; broken off when the engine fails in the middle",
        "headers": _says("X-Sample-Rate"),
        "content": {"audio/wav": {"schema": _PCM}},
    }
    return {
        "tags": ["speech"],
        "summary": "Synthesise a text, streamed.",
        "requestBody": _body(funaudio.SynthesizeBody),
        "responses": {"200": wav, **_errors(400, 404, 413, 502, 503, 504, schema="ApiError")},
    }


def _object(**properties: Document) -> Document:
    return {"type": "object", "required": list(properties), "properties": properties}


def _json(schema: Document) -> Document:
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _body(model: type[BaseModel]) -> Document:
    return {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}


def _form(properties: Document, required: list[str]) -> Document:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _error(status: int, schema: str = "Error") -> Document:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    headers = {"headers": _says("Retry-After")} if status == 503 else {}
    return {"description": _MEANINGS[status], **headers, "content": content}


def _errors(*statuses: int, schema: str = "Error") -> Document:
    return {str(status): _error(status, schema) for status in statuses}


def _header(name: str, description: str) -> Document:
    return {"name": name, "in": "header", "schema": _TEXTS, "description": description}


def _says(*headers: str) -> Document:
    numbers = ("Content-Length", "Retry-After", "X-Sample-Rate")
    return {name: {"required": True, "schema": {"type": "integer"} if name in numbers else _TEXTS} for name in headers}
