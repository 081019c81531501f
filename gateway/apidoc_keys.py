"""What the API document says of keys: where a request carries one, and how it is refused."""

from gateway import apidoc_avatar, apidoc_nls, apidoc_openai
from gateway.apidoc_parts import Document, says
from gateway.surfaces import avatar, nls, openai, voicechat

SCHEMES: Document = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "nlsToken": {"type": "apiKey", "in": "header", "name": "X-NLS-Token"},
    "token": {"type": "apiKey", "in": "query", "name": "token"},
}
ASKED: list[Document] = [{}, *({name: []} for name in SCHEMES)]
"""Any one of them; none where the gateway has no keys."""
_NEVER = ("/health",)
_REFUSED = {
    "401": "no key, where one is asked for, or one that is not good",
    "403": "the key is not for this",
    "429": "the key has asked too often, has too much running, or has used its seconds of audio",
}


def complete(path: str, responses: Document) -> None:
    """The refusals of keys, in the shape of the path's family."""
    if path in _NEVER:
        return
    if nls.owns(path):  # whose own statuses say it, within HTTP 200 or 400
        responses.setdefault("400", _refused("The key or a parameter is wrong.", apidoc_nls.SCHEMA))
        return
    for status, why in _REFUSED.items():
        responses[status] = _refused(why, _schema(path))
    responses["401"]["headers"] = says("WWW-Authenticate")
    responses["429"]["headers"] = says("Retry-After")


# Private


def _schema(path: str) -> str:
    if voicechat.owns(path):
        return "Detail"
    if avatar.owns(path):
        return apidoc_avatar.SCHEMA
    if openai.owns(path):
        return apidoc_openai.SCHEMA
    return "ApiError" if path.startswith("/api/") else "Error"


def _refused(why: str, schema: str) -> Document:
    return {
        "description": why,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
