"""One WebSocket connection of a client, over raw ASGI: opened, read, written, closed with a reason.

The server reads no further message before the last one was taken, and a write waits while too much is unsent; so
whatever is not read here is held back at the client. What web pages may connect, the setting cors_origins says.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any, Protocol
from urllib.parse import parse_qs

import structlog

from gateway import caller
from gateway.caller import Right
from gateway.errors import ClientGone, GatewayError
from gateway.exchange import Receive, Scope, Send, hints

log = structlog.get_logger(__name__)
_REASON_BYTES = 123
"""Longest reason that a close frame has room for."""
_CLOSE_SECONDS = 2.0
"""Longest wait for a client that reads nothing to have its close frame sent."""

DIRECT = "voxgate.direct"
"""Extension of the scope: the connection itself, where the server is ours (gateway/serve.py)."""


class Direct(Protocol):
    """A short way past queues and tasks."""

    direct: Callable[[bytes], bool] | None

    def send_now(self, data: bytes) -> bool: ...


class Close(IntEnum):
    """RFC 6455, and those registered after it."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED = 1003
    INVALID = 1007
    POLICY = 1008
    TOO_BIG = 1009
    FAILED = 1011
    RESTARTING = 1012
    TRY_LATER = 1013


class Socket:
    """The connection as a handler wants it. Raises ClientGone from every method once the client has left."""

    __slots__ = ("_closed", "_direct", "_receive", "_send", "opened", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.opened = self._closed = False
        self._receive, self._send = receive, send
        self._direct: Direct | None = scope.get("extensions", {}).get(DIRECT)

    @property
    def state(self) -> Any:
        """What the lifespan built (gateway/state.py State)."""
        return self.scope["state"]

    def query(self, name: str) -> str:
        """The first value of that name in the address; empty without one. An address has 8 kB at most."""
        found = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        value: str = found.get(name, [""])[0]
        return value

    async def accept(self, subprotocol: str | None = None) -> None:
        if (await self._receive())["type"] != "websocket.connect":
            self._closed = True
            raise ClientGone("the client left before it was let in")
        self.opened = True
        await self._put({"type": "websocket.accept", "subprotocol": subprotocol})

    async def refuse(self, status: int, reason: str, more: dict[str, str] | None = None) -> None:
        """Instead of accept: an HTTP answer, which browsers show to nobody. more: headers."""
        if self.opened or self._closed or (await self._receive())["type"] != "websocket.connect":
            return
        self._closed = True
        body = reason.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        headers += [(name.encode(), value.encode()) for name, value in (more or {}).items()]
        with suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await self._send({"type": "websocket.http.response.body", "body": body})

    async def receive(self) -> bytes | str:
        """The next message."""
        if self._closed:
            raise ClientGone("the connection is closed")
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            raise ClientGone("the client has closed the connection")
        data: bytes | None = message.get("bytes")
        text: str = message.get("text") or ""
        return text if data is None else data

    def take(self, heard: Callable[[bytes], bool]) -> None:
        """From now on `heard` is given each short binary message that comes while `receive` waits; `receive` gives what
        it does not take, and everything where the server has no such way."""
        if self._direct is not None:
            self._direct.direct = heard

    def send_now(self, data: bytes) -> bool:
        """Whether it was sent: False where the client would have to be waited for, or `send` waits already."""
        return self._direct is not None and not self._closed and self._direct.send_now(data)

    async def send(self, data: bytes | str) -> None:
        """Waits while the client reads too slowly."""
        kind = "text" if isinstance(data, str) else "bytes"
        await self._put({"type": "websocket.send", kind: data})

    async def close(self, code: Close = Close.NORMAL, reason: str = "") -> None:
        """Nothing where it is closed already. Waits for no client that does not read."""
        if self._closed or not self.opened:
            return
        self._closed = True
        short = reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")
        with suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._send({"type": "websocket.close", "code": int(code), "reason": short})

    async def _put(self, message: dict[str, Any]) -> None:
        if self._closed:
            raise ClientGone("the connection is closed")
        try:
            await self._send(message)
        except (OSError, RuntimeError) as exc:  # uvicorn: ClientDisconnected, or "after close"
            # What the client said before it left can still be read.
            raise ClientGone("the client has left") from exc


Talk = Callable[[Socket], Awaitable[None]]
Farewell = Callable[[Socket, GatewayError], Awaitable[None]]
"""Tells a client in its own protocol why its connection ends. Where none is open yet it may open it for that; where it
does not, the client gets an HTTP status."""


class SocketEndpoint:
    """A handler as an ASGI application. What it raises becomes a close with the right code; words of ours as reason."""

    public, lasts = False, True
    """Whether it may be opened without a key; whether it can be ended in the middle (gateway/caller.py Caller.end)."""

    def __init__(self, handler: Talk, right: Right | None, farewell: Farewell | None = None) -> None:
        """right: what a key must be for to get here; None for any key, where the verb asks for more. farewell: to whom
        the door does not let in, or shows out."""
        self._handler, self._farewell = handler, farewell
        self.right = right

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = Socket(scope, receive, send)
        try:
            if not _welcome(scope):
                await socket.refuse(403, "web pages of this origin may not connect (setting cors_origins)")
                return
            await self._handler(socket)
            await socket.close()
        except ClientGone:
            log.debug("client gone", path=scope["path"])
        except asyncio.CancelledError:  # shown out, or the server has waited long enough: the end of its task anyway
            if (shown_out := caller.current().ended()) is None:
                await socket.close(Close.RESTARTING, "the gateway is restarting")
            else:
                await self._show_out(socket, shown_out)
        except GatewayError as exc:
            log.debug("refused", path=scope["path"], code=exc.code)
            await self._failed(socket, exc)
        except Exception:
            log.exception("conversation failed", path=scope["path"])
            await self._failed(socket, GatewayError("the gateway failed on this connection"))

    async def refuse(self, scope: Scope, receive: Receive, send: Send, exc: GatewayError) -> None:
        """Instead of a call, to whom the door does not let in."""
        log.debug("refused", path=scope["path"], code=exc.code)
        await self._show_out(Socket(scope, receive, send), exc)

    async def _show_out(self, socket: Socket, exc: GatewayError) -> None:
        if self._farewell is not None and (socket.opened or _welcome(socket.scope)):
            with suppress(ClientGone, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._farewell(socket, exc)
        await self._failed(socket, exc)

    async def _failed(self, socket: Socket, exc: GatewayError) -> None:
        reason = exc.code if exc.quotes else str(exc)
        if socket.opened:
            await socket.close(code_of(exc), reason)
        else:
            await socket.refuse(exc.status, reason, hints(exc))


def code_of(exc: GatewayError) -> Close:
    if exc.status in (503, 429):
        return Close.TRY_LATER
    if exc.status == 413:
        return Close.TOO_BIG
    return Close.POLICY if exc.status < 500 else Close.FAILED


# Private


def _welcome(scope: Scope) -> bool:
    """Whether the web page that connects may. Browsers name its origin and ask no further, so that is for us to check;
    other programs name none. Pages of this very host and port always may."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    origin: str = headers.get(b"origin", b"").decode("latin-1")
    allowed: tuple[str, ...] = scope["state"]["settings"].cors_origins
    if not origin or "*" in allowed or origin in allowed:
        return True
    return origin.partition("://")[2].lower() == headers.get(b"host", b"").decode("latin-1").lower()
