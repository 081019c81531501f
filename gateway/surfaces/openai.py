"""What all of OpenAI's paths share: which they are, how they fail, what every answer says of itself, voices by name.

Errors are {"error": {"message", "type", "param", "code"}}.
"""

import secrets
import time
from typing import Any

from structlog.contextvars import bind_contextvars

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.exchange import Send
from gateway.state import State
from gateway.verbs import Preset, Reference
from gateway.wire import openai_errors as wire

OWNER = "openai"
"""Whose the voices of clients are that name no device."""
_PATHS = ("/v1/audio", "/v1/models", "/v1/realtime")


def owns(path: str) -> bool:
    """Whether its errors are this family's."""
    return any(path == one or path.startswith(f"{one}/") for one in _PATHS)


def shape(exc: GatewayError) -> bytes:
    return wire.error(exc.status, exc.code, str(exc), exc.param)


def stamped(send: Send) -> Send:
    """`send` of one request, whose answer gets an id, which our log lines about it have too, and how long it took until
    its first byte."""
    name, began = f"req_{secrets.token_hex(16)}", time.perf_counter()
    bind_contextvars(request_id=name)

    async def send_stamped(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            took = b"%d" % ((time.perf_counter() - began) * 1000)
            stamps = [(b"x-request-id", name.encode()), (b"openai-processing-ms", took)]
            message = message | {"headers": [*message.get("headers", ()), *stamps]}
        await send(message)

    return send_stamped


def owner(device_id: str | None) -> str:
    """Whose voices a request means: those of the device that it names, else everybody's who names none."""
    return device_id or OWNER


async def voice_named(state: State, name: str, device_id: str | None) -> Preset | Reference:
    """What a request calls a voice: `default`, a preset, one of OpenAI's names, or a registered voice's id or name.
    Raises BadRequest, which names the field `voice`."""
    settings = state["settings"]
    if name in settings.presets:
        return Preset(name)
    if name == "default" or name in settings.openai_presets:
        return Preset(settings.openai_presets.get(name, settings.default_voice))
    try:
        return await state["voices"].reference(await state["voices"].named(owner(device_id), name))
    except NotFound:
        known = ", ".join(("default", *settings.presets, *settings.openai_presets))
        raise BadRequest(
            f"there is no such voice; there are {known}, and the ids of registered voices",
            code="voice_not_found",
            param="voice",
        ) from None
