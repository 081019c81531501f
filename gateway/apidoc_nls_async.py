"""The API document of FunSpeech's asynchronous synthesis."""

from gateway.apidoc_parts import TEXT, Document, an_object, errors, json_answer, json_body
from gateway.surfaces import nls_async
from gateway.wire import nls_async as wire

_NUMBER = {"type": "integer"}
SCHEMA = "NlsAsyncError"
ERROR = an_object(error_message=TEXT, error_code=_NUMBER, request_id=TEXT, url=TEXT, status=_NUMBER)


def paths() -> Document:
    """Those that FastAPI does not serve."""
    return {wire.PATH: {"post": _submit(), "get": _query()}}


def _submit() -> Document:
    return {
        "tags": ["NLS"],
        "summary": "Synthesise a long text in the background.",
        "description": "The answer names a task, which a GET asks for, or a webhook tells the end of.",
        "requestBody": json_body(nls_async.AsyncBody),
        "responses": {"200": json_answer(_task()), **errors(400, 413, 503, schema=SCHEMA)},
    }


def _query() -> Document:
    names = {"task_id": True, "appkey": False, "token": False}
    return {
        "tags": ["NLS"],
        "summary": "Ask how far a task is.",
        "parameters": [
            {"name": name, "in": "query", "required": needed, "schema": TEXT} for name, needed in names.items()
        ],
        "responses": {"200": json_answer(_task()), **errors(400, schema=SCHEMA)},
    }


def _task() -> Document:
    maybe = {"type": ["string", "null"]}
    sentences = {
        "type": ["array", "null"],
        "items": an_object(text=TEXT, begin_time=TEXT, end_time=TEXT),
        "description": "Times in milliseconds, as texts.",
    }
    data = an_object(task_id=TEXT, audio_address=maybe, notify_custom=maybe, sentences=sentences)
    data["properties"]["notify_status"] = {
        "type": "string",
        "enum": ["PENDING", "DELIVERED", "FAILED"],
        "description": "What became of the webhook, where there is one, once the task has ended.",
    }
    return an_object(status=_NUMBER, error_code=_NUMBER, error_message=TEXT, request_id=TEXT, data=data)
