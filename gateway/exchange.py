"""One HTTP request and its answer on the streaming paths, over raw ASGI.

Rule 1: an answer that has begun either ends complete or is broken off; it never ends early as if complete.
Rule 2: a failure before the first byte is a status in the surface's own error shape.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from gateway import caller
from gateway.caller import Right
from gateway.errors import BadRequest, ClientGone, GatewayError, ShuttingDown, TooLarge
from gateway.tasks import task_group, until_gone

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
Shape = Callable[[GatewayError], bytes]
"""A surface's error body, JSON."""
M = TypeVar("M", bound=BaseModel)

log = structlog.get_logger(__name__)
JSON = b"application/json"
_DRAIN_BYTES, _DRAIN_SECONDS = 256 * 1024 * 1024, 10.0
"""How much of a refused upload is read and dropped, so that its client gets to see the answer."""


class Exchange:
    """The request's parts as a handler wants them, and the answer's, in order: start, write…, end.

    started: whether any of the answer was sent; blank: whether that are blanks of a pulse; complete: all of it."""

    __slots__ = ("_body_read", "_receive", "_send", "blank", "complete", "scope", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.started = self.complete = self.blank = False
        self._body_read = False
        self._receive, self._send = receive, send

    @property
    def state(self) -> Any:
        """What the lifespan built (gateway/app.py State)."""
        return self.scope["state"]

    def header(self, name: bytes) -> bytes:
        """The first header of that (lower-case) name; empty without one."""
        return next((value for key, value in self.scope["headers"] if key == name), b"")

    async def chunks(self, limit: int, idle: float) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises TooLarge above `limit` bytes, BadRequest after `idle` silent seconds."""
        declared = self.header(b"content-length")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge(f"{int(declared)} bytes are too many; the limit is {limit}")
        size = 0
        while not self._body_read:
            try:
                async with asyncio.timeout(idle):
                    piece = await self._piece()
            except TimeoutError:
                raise BadRequest(f"the upload paused for more than {idle:g} s", code="upload_stalled") from None
            size += len(piece)
            if size > limit:
                raise TooLarge(f"more than {limit} bytes")
            if piece:
                yield piece

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client hung up in its upload")
        self._body_read = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def json(self, model: type[M], limit: int, idle: float = 30.0) -> M:
        """The body as `model`. Raises BadRequest naming the first wrong field."""
        body = await self.whole(limit, idle)
        try:
            return model.model_validate_json(body)
        except ValidationError as exc:
            raise BadRequest(wrong_field(exc), param=".".join(_place(exc)) or None) from None

    async def whole(self, limit: int, idle: float = 30.0) -> bytes:
        """The body. Raises TooLarge above `limit` bytes, BadRequest where it is not complete within `idle` seconds."""
        body = bytearray()
        try:
            async with asyncio.timeout(idle):
                while not self._body_read:
                    body += await self._piece()
                    if len(body) > limit:
                        raise TooLarge(f"more than {limit} bytes")
        except TimeoutError:
            raise BadRequest(f"the request was not complete within {idle:g} s", code="upload_stalled") from None
        return bytes(body)

    def until_gone(self) -> until_gone:
        """Scope of the answer: its block is cancelled when the client hangs up. The body must have been read."""
        return until_gone(self._hangup)

    async def _hangup(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        self.started = True
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *headers]}
        )

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    @asynccontextmanager
    async def pulse(self, every: float) -> AsyncIterator[None]:
        """Scope of a long wait for a JSON answer: from `every` seconds on, a blank is sent each time, so that no idle
        timer between here and the client ends it. JSON allows blanks in front. What fails after that is broken off."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(every)
                if not self.started:
                    self.blank = True
                    await self.start(200, JSON)
                await self.write(b" ")

        async with task_group() as tasks:
            beating = tasks.create_task(beat())
            yield
            beating.cancel()

    async def answer(self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()) -> None:
        """A whole answer at once; after a pulse, the rest of it."""
        if self.started:
            await self.end(body)
            return
        await self.start(status, content_type, [(b"content-length", b"%d" % len(body)), *headers])
        await self.end(body)

    async def refuse(
        self, exc: GatewayError, shape: Shape, *, status: int | None = None, headers: Headers = ()
    ) -> None:
        """The whole answer to a failed request; after blanks, the rest of it. status: in place of the failure's own."""
        status = exc.status if status is None else status
        headers = [*headers, *((name.encode(), value.encode()) for name, value in hints(exc).items())]
        body = shape(exc)
        if self.started or self._body_read or not self._has_body() or isinstance(exc, ShuttingDown):
            await self.answer(status, body, headers=headers)
            return
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await self.start(status, JSON, headers)
        await self.write(body)
        await self._drain()
        await self.end()

    def _has_body(self) -> bool:
        return self.header(b"content-length") not in (b"", b"0") or bool(self.header(b"transfer-encoding"))

    async def _drain(self) -> None:
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


Handler = Callable[[Exchange], Awaitable[None]]


class Endpoint:
    """A handler as an ASGI application: every failure becomes the surface's error or a broken-off transfer."""

    lasts = True
    """Whether it can be ended in the middle (gateway/caller.py Caller.end)."""

    def __init__(
        self, handler: Handler, shape: Shape, right: Right | None, *, public: bool = False, refused: int | None = None
    ) -> None:
        """right: what a key must be for to get here; None for any key, where the verb or the handler asks for more.
        public: whether it may come without one; then the handler asks (gateway/access.py Access.admit), or nobody.
        refused: the status for whom the door does not let in, where the family has one of its own."""
        self._handler, self.shape = handler, shape
        self.right, self.public, self._refused = right, public, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = Exchange(scope, receive, send)
        try:
            await self._handler(http)
        except ClientGone:
            log.debug("client gone", path=_shown(scope))
        except asyncio.CancelledError:  # shown out, or the server has waited long enough: the end of its task anyway
            await self._failed(http, caller.current().ended() or ShuttingDown("the gateway is restarting"))
        except GatewayError as exc:
            await self._failed(http, exc)
        except Exception:
            log.exception("request failed", path=_shown(scope))
            await self._failed(http, GatewayError())

    async def refuse(self, scope: Scope, receive: Receive, send: Send, exc: GatewayError) -> None:
        """Instead of a call, to whom the door does not let in."""
        log.debug("refused", path=_shown(scope), code=exc.code)
        await Exchange(scope, receive, send).refuse(exc, self.shape, status=self._refused)

    async def _failed(self, http: Exchange, exc: GatewayError) -> None:
        """After the first byte nothing is sent: the server closes an unfinished answer without its end mark."""
        if http.started:
            why = {} if exc.quotes else {"reason": str(exc)}
            log.warning("broken off", path=_shown(http.scope), code=exc.code, **why)
        else:
            log.debug("refused", path=_shown(http.scope), code=exc.code)
            await http.refuse(exc, self.shape)


def _shown(scope: Scope) -> str:
    """The path for a log line; the name of a file is the key to it."""
    path: str = scope["path"]
    return "/files/…" if path.startswith("/files/") else path[:200]


def hints(exc: GatewayError) -> dict[str, str]:
    """The headers that go with a refusal, whatever its shape."""
    found = {} if exc.retry_after is None else {"retry-after": str(exc.retry_after)}
    return found | ({"www-authenticate": 'Bearer realm="voxgate"'} if exc.status == 401 else {})


def wrong_field(exc: ValidationError) -> str:
    """One line about the first thing that pydantic found wrong; never the value, which may be a user's words."""
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(_place(exc))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _place(exc: ValidationError) -> list[str]:
    """The parts of the name of the first thing that is wrong."""
    return [str(part) for part in exc.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]]


def compact(body: object) -> bytes:
    """JSON bytes, Chinese left readable."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
