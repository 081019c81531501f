"""The WebSocket of live recognition: WebSocketRoute(wire.PATH, Live(models, limits)).

Three tasks share a connection: one reads, so that a hang-up is noticed whatever else is going on; one converses; one
writes, in order. The first to end ends the others.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from engines.asr.live.conversation import Answer, Conversation, Farewell, Patience
from engines.asr.live.intake import PIECE, Intake, TooSlow
from engines.asr.live.models import Models
from gateway.wire import funasr_2pass as wire
from gateway.wire import funasr_http

_AHEAD = 64
"""Answers that may wait for a client to read; then its audio waits as well."""
_FEATURES = [(wire.FEATURES.encode(), f"{wire.RESAMPLES}, {wire.ACKS}".encode())]


Answers = asyncio.Queue[Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Limits:
    connections: int = 64
    """At a time; the next one is refused with 503."""
    behind: float = 10.0
    """Seconds that audio may wait to be heard; then the connection ends with 1013."""
    unread: float = 20.0
    """Seconds that a client may read nothing."""
    patience: Patience = field(default_factory=Patience)


class _Over(Exception):
    """The connection has ended, or is as good as that."""


class Live:
    """One for all connections."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models, self._limits = models, limits
        self.open = 0

    def __repr__(self) -> str:
        return f"<live recognition: {self.open}/{self._limits.connections} connections>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        if refusal := self._refusal():
            await socket.send_denial_response(
                Response(funasr_http.error(refusal), 503, {"retry-after": "1"}, "application/json")
            )
            return
        self.open += 1
        try:
            offered = scope.get("subprotocols", [])
            await socket.accept(wire.SUBPROTOCOL if wire.SUBPROTOCOL in offered else None, _FEATURES)
            await self._converse(socket)
        finally:
            self.open -= 1

    # Private

    def _refusal(self) -> str:
        if self.open >= self._limits.connections:
            return f"all {self._limits.connections} places for live audio are taken"
        return self._models.refusal()

    async def _converse(self, socket: WebSocket) -> None:
        intake = Intake(self._limits.behind)
        answers: Answers = asyncio.Queue(_AHEAD)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_read(socket, intake, answers))
                tasks.create_task(_write(socket, answers, self._limits.unread))
                tasks.create_task(Conversation(self._models, intake, answers.put, tasks, self._limits.patience).run())
        except* _Over:
            pass


async def _read(socket: WebSocket, intake: Intake, answers: Answers) -> None:
    """Raises _Over when the client hangs up. Where the intake stays full a hang-up cannot be seen: it ends as well."""
    try:
        await _heard(socket, intake)
    except TooSlow as exc:
        await answers.put(Farewell(wire.TOO_SLOW, str(exc)))


async def _heard(socket: WebSocket, intake: Intake) -> None:
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        if (text := message.get("text")) is not None:
            await intake.put(text)
        data = message.get("bytes") or b""
        for at in range(0, len(data), PIECE):
            await intake.put(data[at : at + PIECE])
    raise _Over


async def _write(socket: WebSocket, answers: Answers, unread: float) -> None:
    """Raises _Over after a farewell, and where the client does not read it."""
    while True:
        answer = await answers.get()
        if isinstance(answer, Awaitable):
            answer = await answer
        try:
            async with asyncio.timeout(unread):
                if isinstance(answer, Farewell):
                    if answer.error:
                        await socket.send_text(wire.fault(wire.Fault(answer.error)))
                    await socket.close(answer.code)
                    raise _Over
                if answer:
                    await socket.send_text(answer)
        except (TimeoutError, WebSocketDisconnect):
            raise _Over from None
