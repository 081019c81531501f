"""What the descriptions of paths in the API document are made of."""

from typing import Any

from pydantic import BaseModel

Document = dict[str, Any]
BYTES = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}
MEANINGS = {
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


def an_object(**properties: Document) -> Document:
    return {"type": "object", "required": list(properties), "properties": properties}


def json_answer(schema: Document) -> Document:
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def json_body(model: type[BaseModel]) -> Document:
    """The body that `model` reads. Its parts are written out: a reference to them would lead nowhere from here."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    return {"required": True, "content": {"application/json": {"schema": _written_out(schema, parts)}}}


def form(properties: Document, required: list[str]) -> Document:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def error(status: int, schema: str = "Error") -> Document:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    headers = {"headers": says("Retry-After")} if status == 503 else {}
    return {"description": MEANINGS[status], **headers, "content": content}


def errors(*statuses: int, schema: str = "Error") -> Document:
    return {str(status): error(status, schema) for status in statuses}


def header(name: str, description: str) -> Document:
    return {"name": name, "in": "header", "schema": TEXT, "description": description}


def says(*headers: str) -> Document:
    numbers = ("Content-Length", "Retry-After", "X-Sample-Rate")
    return {name: {"required": True, "schema": {"type": "integer"} if name in numbers else TEXT} for name in headers}


# Private


def _written_out(schema: Any, parts: Document) -> Any:
    if isinstance(schema, list):
        return [_written_out(one, parts) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _written_out(one, parts) for name, one in schema.items() if name != "$ref"}
    if "$ref" in schema:
        found = _written_out(parts[schema["$ref"].rpartition("/")[2]], parts) | found
    return found
