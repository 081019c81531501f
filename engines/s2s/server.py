"""Fun-Audio-Chat's WebSocket and /health, in front of one engine."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from engines import serving
from engines.s2s.conversation import Conversation, Lengths, Misbehaved, TooLong
from engines.s2s.engine import Engine
from engines.s2s.memory import Bounds, Memories, Memory
from engines.s2s.outbox import Outbox, Pace, TooSlow
from engines.s2s.reply import event, failed
from gateway.wire import engine_health, turns
from gateway.wire import fun_audio_chat as wire

log = logging.getLogger(__name__)

_TOO_BIG, _MISBEHAVED, _FAILED, _TRY_LATER = 1009, 1008, 1011, 1013
_FAREWELL = 2.0
"""Seconds that a close may take to leave."""
_LONGEST_TOKEN = 200


@dataclass(frozen=True, slots=True)
class Limits:
    connections: int = 256
    """At a time; the next one is told so and closed."""
    lengths: Lengths = field(default_factory=Lengths)
    memory: Bounds = field(default_factory=Bounds)
    pace: Pace = field(default_factory=Pace)


class _Over(Exception):
    """The connection ends."""

    def __init__(self, code: int = 0, reason: str = "") -> None:
        """code: 0 where the client has left."""
        super().__init__(reason)
        self.code = code


class Chat:
    """One for all connections."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._memories = Memories(limits.memory)
        self._open = 0

    def __repr__(self) -> str:
        return f"<{self._open}/{self._limits.connections} connections, {self._memories}, {self._engine}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        with suppress(WebSocketDisconnect):
            await socket.send_bytes(wire.encode(wire.Handshake()))
            if self._open >= self._limits.connections:
                await self._refuse(socket)
                return
            self._open += 1
            try:
                over = await self._converse(socket)
            finally:
                self._open -= 1
            await _close(socket, over)

    # Private

    async def _refuse(self, socket: WebSocket) -> None:
        reason = f"all {self._limits.connections} conversations are taken"
        for message in failed(reason, "engine_busy", retry_after=5):
            await socket.send_bytes(wire.encode(message))
        await socket.close(_TRY_LATER, reason)

    async def _converse(self, socket: WebSocket) -> _Over:
        memory, resumed = self._memories.open(socket.query_params.get("resume", "")[:_LONGEST_TOKEN])
        try:
            return await self._with_memory(socket, memory, resumed)
        finally:
            self._memories.close(memory)

    async def _with_memory(self, socket: WebSocket, memory: Memory, resumed: bool) -> _Over:
        """How it ended."""
        outbox = Outbox(socket.send_bytes, self._limits.pace)
        outbox.say(event(turns.Session(memory.id, memory.token, resumed)))
        try:
            async with asyncio.TaskGroup() as tasks:
                conversation = Conversation(self._engine, memory, outbox, tasks, self._limits.lengths)
                tasks.create_task(_write(outbox))
                try:
                    await _read(socket, conversation)
                finally:
                    conversation.end()
        except ExceptionGroup as group:
            over, others = group.split(_Over)
            if others is None and over is not None:
                return _first(over)
            log.error("a conversation failed", exc_info=others)
        finally:
            outbox.forget()
        return _Over(_FAILED, "the engine failed on this connection")


def _first(group: ExceptionGroup[_Over]) -> _Over:
    (first, *_) = group.exceptions
    assert isinstance(first, _Over), "our groups are one deep"
    return first


async def _read(socket: WebSocket, conversation: Conversation) -> None:
    """Raises _Over."""
    try:
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            await conversation.take(message.get("text", "") if data is None else data)
            await asyncio.sleep(0)  # the next one may be there already, and ten thousand after it
    except TooLong as exc:
        raise _Over(_TOO_BIG, str(exc)) from exc
    except Misbehaved as exc:
        raise _Over(_MISBEHAVED, str(exc)) from exc
    except TooSlow as exc:
        raise _Over(_TRY_LATER, str(exc)) from exc
    raise _Over


async def _write(outbox: Outbox) -> None:
    """Raises _Over."""
    try:
        await outbox.write()
    except TooSlow as exc:
        raise _Over(_TRY_LATER, str(exc)) from exc
    except WebSocketDisconnect:
        raise _Over from None


async def _close(socket: WebSocket, over: _Over) -> None:
    """Tells the client why, unless it has left, or reads nothing."""
    if over.code:
        log.info("a connection is closed with %d: %s", over.code, over)
        with suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(_FAREWELL):
                await socket.close(over.code, str(over))


def create_app(engine: Engine, limits: Limits) -> Starlette:
    async def health(_request: Request) -> Response:
        return serving.health(engine.report)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with engine.at_work():
            yield

    return Starlette(
        routes=[
            Route(engine_health.PATH, health),
            WebSocketRoute(wire.PATH, Chat(engine, limits)),
        ],
        lifespan=lifespan,
    )
