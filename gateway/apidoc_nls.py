"""The API document of the NLS family's paths."""

from gateway.apidoc_parts import BYTES, TEXT, Document, an_object, json_body, says
from gateway.encoding import FORMATS
from gateway.surfaces import nls_asr, nls_tts

SCHEMA = "NlsResult"
RESULT: Document = {
    "type": "object",
    "required": ["task_id", "result", "status", "message"],
    "properties": {
        "task_id": {"type": "string", "description": "Empty where the request began no task."},
        "result": TEXT,
        "status": {"type": "integer", "description": "20000000, or what failed: 4… the caller's, 5… ours."},
        "message": TEXT,
        "model": {"type": "string", "description": "What recognised it."},
        "duration": {"type": "integer", "description": "Of the audio, in milliseconds."},
        "words": {
            "type": "array",
            "items": an_object(text=TEXT, startTime={"type": "integer"}, endTime={"type": "integer"}),
        },
    },
}
_FLAG = {"type": "string", "enum": ["true", "false"]}


def paths() -> Document:
    """Those that FastAPI does not serve."""
    return {nls_asr.PATH: {"post": _asr()}, nls_tts.PATH: {"post": _tts()}}


def _asr() -> Document:
    fields = nls_asr.AsrQuery.model_json_schema()["properties"]
    return {
        "tags": ["NLS"],
        "summary": "Recognise a recording: the body, or what audio_address leads to.",
        "parameters": [_parameter(name, schema) for name, schema in fields.items()],
        "requestBody": {"content": {"application/octet-stream": {"schema": BYTES}}},
        "responses": {
            "200": _result("Done, or the caller's mistake in the audio; `status` says which.", "task_id"),
            "400": _result("A parameter is wrong."),
            **_FAILURES,
        },
    }


def _tts() -> Document:
    kinds = {nls_tts.COMPATIBLE} | {form.content_type for form in FORMATS.values()}
    spoken = _result("The audio, streamed as it is made; or, as JSON, the caller's mistake.", "task_id")
    spoken["content"] |= {kind.decode(): {"schema": BYTES} for kind in sorted(kinds)}
    return {
        "tags": ["NLS"],
        "summary": "Synthesise a text, streamed.",
        "requestBody": json_body(nls_tts.TtsBody),
        "responses": {
            "200": spoken,
            "400": _result("The body is wrong."),
            "413": _result("The body is too large."),
            **_FAILURES,
        },
    }


def _parameter(name: str, schema: Document) -> Document:
    description = schema.get("description", "")
    said = {key: value for key, value in schema.items() if key not in ("title", "description")}
    if said.get("type") == "boolean":
        said = _FLAG
    return {"name": name, "in": "query", "schema": said, **({"description": description} if description else {})}


def _result(description: str, *headers: str) -> Document:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{SCHEMA}"}}}
    return {"description": description, "content": content, "headers": says(*headers)}


_FAILURES = {
    "502": _result("The engine failed.", "task_id"),
    "503": _result("The engine is loading, busy or down; see Retry-After.", "task_id", "Retry-After"),
    "504": _result("The engine fell silent.", "task_id"),
}
