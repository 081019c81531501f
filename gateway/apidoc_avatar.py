"""The API document of the digital human: Duix-Avatar's protocol, and what goes beyond it."""

from gateway.apidoc_parts import BYTES, TEXT, Document, an_object, error, errors, form, header, json_answer, says
from gateway.surfaces import avatar
from gateway.wire import duix

_NUMBER, _COUNT = {"type": "number"}, {"type": "integer"}
_SWITCH = {"type": "integer", "enum": [0, 1]}
SCHEMA = "DuixAnswer"
_CODES = (
    "10000: done; 9999: we or the engine failed; 10002: the request is wrong, and `msg` says how. These clients look "
    "at no status but 503."
)
ANSWER = an_object(
    code={**_COUNT, "description": _CODES},
    data={"type": "object"},
    msg={"description": "In words; a number where a submission is taken, as upstream has it."},
    success={"type": "boolean"},
)
_TAGS = ["digital human"]


def paths() -> Document:
    """Those that FastAPI does not serve. A video has an address of its own besides, /<name>.mp4."""
    return {
        avatar.UPLOAD: {"post": _upload()},
        duix.SUBMIT: {"post": _submit()},
        duix.QUERY: {"get": _query()},
        f"{avatar.CANCEL}{{code}}": {"delete": _cancel()},
        avatar.DOWNLOAD: {"get": _download(), "head": _head()},
        avatar.JOBS: {"get": _listed()},
    }


# Private


def _upload() -> Document:
    fields = {
        "video": {**BYTES, "description": "The template: a video of whoever is to speak."},
        "audio": {**BYTES, "description": "The recording."},
    }
    body = form(fields, required=[])
    body["content"]["multipart/form-data"]["schema"]["minProperties"] = 1
    body["content"]["multipart/form-data"]["schema"]["maxProperties"] = 1
    answer = an_object(code=_COUNT, path=TEXT, url=TEXT)
    answer["properties"] |= {"audio_path": TEXT, "video_path": TEXT}
    return {
        "tags": _TAGS,
        "summary": "Upload one file for a video.",
        "description": "Of any size up to VOXGATE_AVATAR_UPLOAD_MAX_BYTES, with or without Content-Length.",
        "requestBody": body,
        "responses": {"200": json_answer(answer), **errors(400, 413, 422, 503, schema=SCHEMA)},
    }


def _submit() -> Document:
    link = {**TEXT, "minLength": 1, "maxLength": duix.LONGEST_URL}
    named = {**link, "description": "The path that its upload was answered with."}
    schema = an_object(audio_url=named, video_url=named, code={**link, "maxLength": duix.LONGEST_CODE})
    schema["properties"] |= {
        "pn": {
            **_SWITCH,
            "default": 1,
            "description": "1: the template goes forward, then backward; 0: from its start.",
        },
        "chaofen": {**_SWITCH, "default": 0, "description": "Super-resolution, by engines that have it."},
        "watermark_switch": {**_SWITCH, "default": 0},
        "notify_url": {**TEXT, "maxLength": duix.LONGEST_URL, "description": "A webhook that is told the outcome."},
    }
    return {
        "tags": _TAGS,
        "summary": "Ask for a video.",
        "description": "The files are looked at first. The same `code` again is the same job.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": _answer(), **errors(503, schema=SCHEMA)},
    }


def _query() -> Document:
    data = an_object(status={**_COUNT, "enum": [1, 2, 3]}, progress=_NUMBER, result=TEXT, msg=TEXT)
    data["properties"] |= {"position": _COUNT, "estimated_seconds": _NUMBER}
    data["properties"] |= {"video_duration": _NUMBER, "width": _COUNT, "height": _COUNT}
    told = an_object(code=_COUNT, data={"anyOf": [data, {"type": "object", "maxProperties": 0}]}, msg={}, success={})
    return {
        "tags": _TAGS,
        "summary": "Ask how far a video is.",
        "description": "status 1: it waits or is made; 2: done, and `result` is its path; 3: failed, or no such job. "
        "As often as you like. `code=health_check` only says that somebody is there.",
        "parameters": [{"name": "code", "in": "query", "required": False, "schema": TEXT}],
        "responses": {"200": json_answer(told), **errors(503, schema=SCHEMA)},
    }


def _cancel() -> Document:
    return {
        "tags": _TAGS,
        "summary": "Cancel a video that is not done.",
        "parameters": [{"name": "code", "in": "path", "required": True, "schema": TEXT}],
        "responses": {"200": _answer(), **errors(503, schema=SCHEMA)},
    }


def _download() -> Document:
    asked = [header("Range", "bytes=first-last"), header("If-Range", "An earlier ETag or Last-Modified.")]
    kinds = ("video/mp4", "video/quicktime", "audio/wav", "audio/mpeg", "application/octet-stream")
    found: Document = {"description": "The file", "content": {kind: {"schema": BYTES} for kind in kinds}}
    whole = says("Accept-Ranges", "Content-Length", "ETag", "Last-Modified")
    part = whole | says("Content-Range")
    outside = {"description": "The range lies outside the file", "headers": says("Content-Range")}
    return {
        "tags": _TAGS,
        "summary": "Download a video, or an upload.",
        "parameters": [_path(), *asked],
        "responses": {
            "200": {**found, "headers": whole},
            "206": {**found, "description": "The part that was asked for", "headers": part},
            "416": outside,
            **_not_there(),
        },
    }


def _head() -> Document:
    whole = says("Accept-Ranges", "Content-Length", "ETag", "Last-Modified")
    answers = {
        status: {name: it for name, it in one.items() if name != "content"} for status, one in _not_there().items()
    }
    return {
        "tags": _TAGS,
        "summary": "Ask for the size of a video, or of an upload.",
        "parameters": [_path()],
        "responses": {"200": {"description": "It is there", "headers": whole}, **answers},
    }


def _path() -> Document:
    says_what = "`result` of a query, or `path` of an upload, in any of the forms that clients make of them."
    return {"name": "path", "in": "query", "required": True, "schema": TEXT, "description": says_what}


def _not_there() -> Document:
    missing = {**error(404, SCHEMA), "description": "no such file, or it has expired"}
    return {"404": missing, **errors(400, 503, schema=SCHEMA)}


def _listed() -> Document:
    moment = {"type": ["string", "null"], "format": "date-time"}
    status = {"type": "string", "enum": ["waiting", "running", "succeeded", "failed", "cancelled"]}
    job = an_object(
        code=TEXT,
        status=status,
        progress=_NUMBER,
        position={**_COUNT, "description": "In the queue, from 1; 0 where it does not wait."},
        estimated_seconds=_NUMBER,
        result=TEXT,
        error=TEXT,
        created_at=moment,
        ended_at=moment,
    )
    return {
        "tags": _TAGS,
        "summary": "The newest hundred videos that were asked for, the newest first.",
        "description": "A key's own; it is asked for where keys are, whatever VOXGATE_PUBLIC_SURFACES says.",
        "responses": {
            "200": json_answer(an_object(data={"type": "array", "items": job})),
            **errors(503, schema=SCHEMA),
        },
    }


def _answer() -> Document:
    return json_answer({"$ref": f"#/components/schemas/{SCHEMA}"})
