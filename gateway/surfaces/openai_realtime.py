"""WS /v1/realtime: OpenAI's Realtime protocol, for its stock clients, in the GA dialect and in the beta's.

The beta is asked for by the header `OpenAI-Beta: realtime=v1`, or by the subprotocol openai-beta.realtime-v1. ?model=
may name anything; ?intent=transcription begins a transcription session, and so does a session.update of that type
before anything else was said.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from gateway import caller
from gateway.caller import Right
from gateway.errors import BadRequest, ClientGone, GatewayError
from gateway.socket import Socket
from gateway.state import State
from gateway.surfaces.openai_realtime_conversation import Conversation
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.surfaces.openai_realtime_secrets import MODEL, Opens, first_session
from gateway.surfaces.openai_realtime_transcription import Transcribing
from gateway.tasks import task_group
from gateway.wire import credentials
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_beta import Dialect
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_session import Kind, Session, shown, updated
from gateway.wire.openai_realtime_tools import LONGEST_NAME

PATH = wire.PATH
_MOST_ERRORS = 100
"""Unusable messages in a row; then the connection ends."""
_LARGE = 64 * 1024
"""Characters from which a message is read in a thread."""


async def realtime(socket: Socket) -> None:
    """Until the client leaves."""
    name, session = _first(socket)
    caller.current().require(_right(session.kind))
    offered: list[str] = socket.scope.get("subprotocols", [])
    await socket.accept(wire.SUBPROTOCOL if wire.SUBPROTOCOL in offered else None)
    await _Connection(socket, _dialect(socket), name).run(session)


async def farewell(socket: Socket, exc: GatewayError) -> None:
    """To whom the door shows out; whom it does not let in gets an HTTP status, as OpenAI has it."""
    if socket.opened:
        line = Line(socket, _dialect(socket), 0.0)
        await socket.send(line.failure(exc))


def _dialect(socket: Socket) -> Dialect:
    header = next((value for name, value in socket.scope["headers"] if name == wire.BETA_HEADER), b"")
    asked = wire.BETA_VALUE in header or wire.BETA_PROTOCOL in socket.scope.get("subprotocols", ())
    return Dialect.BETA if asked else Dialect.GA


class _Connection:
    def __init__(self, socket: Socket, dialect: Dialect, name: str) -> None:
        self._socket, self._state = socket, _state(socket)
        self._line = Line(socket, dialect, self._state["settings"].client_idle_timeout)
        self._id = name
        self._errors = 0
        """Unusable messages in a row."""

    async def run(self, session: Session) -> None:
        """Raises ClientGone, TooSlow, BadRequest."""
        async with self._at_work():
            what = "created"
            while True:
                kind = Conversation if session.kind is Kind.REALTIME else Transcribing
                async with kind(self._state, self._line, session).at_work() as work:
                    self._tell(what, session)
                    session, what = await self._serve(work), "updated"

    # Private

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        async with task_group(failure=0) as tasks:
            sending = tasks.create_task(self._line.run())
            yield
            sending.cancel()

    async def _serve(self, work: Conversation | Transcribing) -> Session:
        """Until it is to be a session of another kind."""
        while True:
            await self._line.room()
            message = await self._read(await self._socket.receive())
            try:
                if isinstance(message.said, Wrong):
                    raise message.said
                if isinstance(message.said, wire.Update):
                    session = self._changed(work, message.said)
                    if session.kind is not work.session.kind:
                        return session
                    await work.update(session)
                    self._tell("updated", session)
                else:
                    await work.take(message.said)
            except ClientGone:
                raise
            except (Wrong, GatewayError) as exc:
                self._errors += 1
                self._line.fail(exc, message.id)
                if self._errors >= _MOST_ERRORS:
                    raise BadRequest(
                        f"{self._errors} messages in a row could not be used", code="too_many_errors"
                    ) from None
            else:
                self._errors = 0

    async def _read(self, data: bytes | str) -> wire.Message:
        if len(data) < _LARGE:
            return wire.read(data, self._line.dialect)
        return await asyncio.to_thread(wire.read, data, self._line.dialect)

    def _changed(self, work: Conversation | Transcribing, asked: wire.Update) -> Session:
        """Raises Wrong, Forbidden."""
        session = work.session
        if asked.transcription:
            session = replace(session, kind=Kind.TRANSCRIPTION)
        session = updated(session, asked.session, self._line.dialect)
        if session.kind is not work.session.kind:
            if not work.fresh:
                raise Wrong("The type of a session cannot be changed any more.", "invalid_value", "session.type")
            caller.current().require(_right(session.kind))
        return session

    def _tell(self, what: str, session: Session) -> None:
        beta = self._line.dialect is Dialect.BETA and session.kind is Kind.TRANSCRIPTION
        kind = f"{'transcription_' * beta}session.{what}"
        self._line.emit(kind, session=shown(session, self._id, self._line.dialect))


def _first(socket: Socket) -> tuple[str, Session]:
    """The id and the session to begin with: of the secret that the client shows, or as its address asks for."""
    state = _state(socket)
    for sent in credentials.given(socket.scope["headers"], socket.scope["query_string"]):
        secret = state["access"].ephemeral.find(sent, PATH)
        if secret is not None and isinstance(secret.content, Opens):
            return secret.content.id, secret.content.session
    kind = Kind.TRANSCRIPTION if socket.query("intent") == Kind.TRANSCRIPTION else Kind.REALTIME
    model = socket.query("model")[:LONGEST_NAME] or MODEL
    return new_id("sess"), first_session(state["settings"].default_voice, kind, model)


def _right(kind: Kind) -> Right:
    return Right.CONVERSE if kind is Kind.REALTIME else Right.TRANSCRIBE


def _state(socket: Socket) -> State:
    state: State = socket.state
    return state
