"""HTTP/1.1 with an engine, on one connection: one request at a time, its answer streamed.

Why our own: this is the hot path, and with a general client (aiohttp) the gateway stayed well below what it must reach
beside nginx in `make bench`. It does what engines need and no more: no redirects, cookies, compression or proxies.

Rule 1: an answer is complete only when its own framing says so; a connection that ends before that is EngineBroke.
Rule 2: leaving an answer before its end closes the connection, which is how the engine learns that nobody listens.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

import httptools

from gateway.errors import EngineBroke, EngineError, EngineTimeout, EngineUnavailable

_HIGH_WATER = 256 * 1024
"""Bytes read ahead of the consumer; above it the engine's connection is not read."""
_HEAD_BYTES = 64 * 1024


class Owner(Protocol):
    """Who made a connection, and is told when it lives and when it has died."""

    def remember(self, connection: "Connection") -> None: ...

    def forget(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """One connection, and on it one answer at a time."""

    def __init__(self, owner: Owner, base: str) -> None:
        self.base = base
        self.since = 0.0
        self.used = False
        """Whether it has carried an answer before this one."""
        self.patient = False
        """Whether this answer comes only once all its work is done: silence before it is then no sign of trouble."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._lost = self._busy = self._full = False

    def begin(self, now: float, more: int = 0) -> None:
        """Makes ready for one request, of which `more` bytes will come by `upload`."""
        self._parser = httptools.HttpResponseParser(self)
        self._buffer: list[bytes] = []
        self._buffered = self._head_bytes = 0
        self._owed = more
        self.patient = False
        self._error: EngineError | None = _no_answer() if self._lost else None
        self._reading = True
        self._busy, self.headed, self.complete, self._framed = True, False, False, False
        self.status, self.headers = 0, {}
        self.since = self._started = now

    headers: dict[bytes, bytes]

    def write(self, pieces: Sequence[bytes]) -> None:
        self._transport.writelines(pieces)

    async def upload(self, piece: bytes) -> bool:
        """The next piece of a body that is still to come; waits while the engine is slower. False once the engine
        wants no more of it: it has answered already, or is gone."""
        if not self._ended():
            self._owed -= len(piece)
            self._transport.write(piece)
        while self._full and not self._ended():
            await self._wait()
        return not self._ended()

    def _ended(self) -> bool:
        return self.headed or self._error is not None

    async def head(self) -> None:
        """Waits for status and headers. Raises EngineUnavailable where the connection ends without a byte of them,
        EngineBroke, EngineTimeout."""
        while not self.headed:
            await self._wait()

    async def read(self) -> bytes:
        """The next piece of the body, whatever has arrived; empty at its end. Raises EngineBroke, EngineTimeout."""
        while not self._buffer:
            if self.complete:
                return b""
            await self._wait()
        piece = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        if not self._reading and not self.complete:
            self._reading = True
            self._transport.resume_reading()
        return piece

    async def body(self, limit: int) -> bytes:
        """The first `limit` bytes of the body, or all of it."""
        found = bytearray()
        while len(found) < limit and (piece := await self.read()):
            found += piece
        return bytes(found[:limit])

    def reusable(self) -> bool:
        return self.complete and not self._lost and not self._owed and not self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def check(self, now: float, *, idle: float, total: float, kept: float) -> None:
        """Called about twice a second: ends what has been silent, or running, or kept, for too long."""
        thinking = self.patient and not self.headed and not self._owed
        if self._busy and self._waiter is not None and not thinking and now - self.since > idle:
            self._fail(EngineTimeout(f"the engine was silent for {idle:g} s"))
        elif self._busy and now - self._started > total:
            self._fail(EngineTimeout(f"the engine took longer than {total:g} s"))
        elif not self._busy and now - self.since > kept:
            self.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self.since = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: EngineError) -> None:
        if self._error is None and not self.complete:
            self._error = error
        self._transport.abort()
        self._wake()

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of it
        self.since = self._loop.time()  # it may be looked at before whoever opened it is told that it is there
        self._owner.remember(self)

    def data_received(self, data: bytes) -> None:
        if not self._busy:  # an answer that nobody asked for
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(EngineBroke(f"the engine's answer is not HTTP ({exc})"))
        if not self.headed:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._fail(EngineBroke("the engine's answer has an endless head"))
        if self._buffered > _HIGH_WATER and self._reading and not self.complete:
            self._reading = False
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._owner.forget(self)
        if self._busy and not self.complete and self._error is None:
            begun = self.headed or self._head_bytes
            self._error = EngineBroke("the engine broke off its answer") if begun else _no_answer()
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers[name] = value
        self._framed = self._framed or name in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self._framed or self.status in (204, 304):
            self.headed = True
        elif self.status >= 200:
            self._fail(EngineBroke("the engine's answer has no length: its end could not be told from a crash"))

    def on_body(self, body: bytes) -> None:
        self._buffer.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        if not self.headed:  # 100 Continue and its like come before the answer
            self.headers = {}
            return
        self.complete = True
        self._busy = False
        self.used = True
        if not self._parser.should_keep_alive():
            self._transport.close()


def _no_answer() -> EngineUnavailable:
    return EngineUnavailable("the engine closed the connection without an answer")
