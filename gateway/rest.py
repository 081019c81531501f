"""The JSON routes behind the door, and every path that nobody serves: which key each asks for, and what is open."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from gateway.caller import Right
from gateway.errors import GatewayError
from gateway.exchange import Exchange, Receive, Scope, Send, Shape
from gateway.socket import Socket

JSON_BYTES = 64 * 1024
"""Largest body of a JSON route."""
Application = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a path asks for. One that has no rule asks for any key."""

    path: str
    """With a slash at its end, whatever begins with it."""
    right: Right | None = None
    """What the key must be for; None for any key."""
    surface: str = ""
    """The name in `public_surfaces` that opens it to everybody; where it is empty nothing does."""

    def of(self, path: str) -> bool:
        return path.startswith(self.path) if self.path.endswith("/") else path == self.path


ALWAYS = "health"
"""The surface that is open whatever the settings say: it tells strangers no more than that the gateway lives."""


class Rest:
    """The routes of one rule."""

    lasts = False

    def __init__(
        self,
        application: Application,
        rule: Rule,
        shape: Callable[[str], Shape],
        public: bool,
        refused: Callable[[str], int | None],
    ) -> None:
        """shape: the error body of a path; refused: the status for whom the door does not let in, where the family of
        a path has one of its own."""
        self._application, self._rule, self._shape, self._refused = application, rule, shape, refused
        self.right, self.public = rule.right, public

    def of(self, path: str) -> bool:
        return self._rule.of(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, _bounded(receive), send)

    async def refuse(self, scope: Scope, receive: Receive, send: Send, exc: GatewayError) -> None:
        """Instead of a call, to whom the door does not let in."""
        if scope["type"] == "websocket":
            await Socket(scope, receive, send).refuse(exc.status, str(exc))
        else:
            path = scope["path"]
            await Exchange(scope, receive, send).refuse(exc, self._shape(path), status=self._refused(path))


# Private


def _bounded(receive: Receive) -> Receive:
    """`receive` for routes that hold a body in memory: one that is too large ends in 413."""
    left = JSON_BYTES

    async def bounded() -> dict[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413)
        return message

    return bounded
