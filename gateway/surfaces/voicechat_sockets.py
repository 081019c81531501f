"""The WebSockets of the voice chat backend: `/ws`, which recognises, and `/chatting`, which answers.

/ws        in: s16le, mono, 16 kHz, binary frames of any size. Out: plain text, only what is new (gateway/deltas.py),
           or with ?format=json (or the subprotocol `json`) an asr_update for each state of an utterance. An empty
           binary frame, {"type": "end"} or {"is_speaking": false} ends it: the rest is said, then it closes with 1000.
           ?language= names the language. Other text is passed over; with JSON it is answered by an error.
/chatting  ?id= names the chat, which begins where nobody has it; ?user= whose it is then. Everybody who is connected to
           a chat is told each message in it, whoever wrote it.
"""

import asyncio
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from gateway.chats import Chat, Message, Speaker, new_message
from gateway.deltas import Appended
from gateway.dialogue import Dialogue, Ended, Trouble
from gateway.dictation import Microphone, dictate
from gateway.errors import BadRequest, ClientGone, GatewayError
from gateway.events import ReplyText, Resumable, Transcript
from gateway.rooms import Outbox, Room, TooSlow
from gateway.socket import Socket
from gateway.state import State
from gateway.tasks import shielded, task_group
from gateway.verbs import Change
from gateway.wire import voice_chat as wire

HISTORY = 50
"""Messages of a chat that a client is shown when it connects."""
ANYBODY = "anonymous"
LONGEST_REPLY = 50_000
"""Characters of a reply that are shown and kept."""
MOST_MISTAKES = 100
"""Unreadable messages in a row; then the client is not one of ours."""


def _now() -> datetime:
    return datetime.now(UTC)


# /ws


async def listen(socket: Socket) -> None:
    """WS /ws: audio → words, until the client ends it or leaves."""
    state: State = socket.state
    language = socket.query("language").strip()[:50]
    offered = wire.JSON_FORMAT in socket.scope.get("subprotocols", ())
    await socket.accept(wire.JSON_FORMAT if offered else None)
    pen: _Pen = _Json() if offered or socket.query("format") == wire.JSON_FORMAT else _Plain()
    listener = _Listener(socket, pen, state["settings"].client_idle_timeout)
    with state["rooms"].connected():
        try:
            async with task_group() as tasks:
                reading = tasks.create_task(listener.read())
                while await listener.microphone.spoken():
                    async with aclosing(listener.microphone.pieces()) as pieces:
                        await dictate(
                            state["transcribe"], state["settings"], state["scratch"], pieces, language, listener.heard
                        )
                    await listener.send(pen.pause())
                reading.cancel()
        except (ClientGone, TooSlow):
            raise
        except GatewayError as exc:
            await listener.send(pen.failed(exc))
            raise


class _Pen(Protocol):
    """How a client of /ws is written to; what it gives may be empty, and is not sent then."""

    def heard(self, said: Transcript) -> str: ...

    def pause(self) -> str:
        """No more is recognised of the utterance that runs."""
        ...

    def failed(self, exc: GatewayError) -> str: ...

    def pong(self) -> str: ...


class _Plain:
    def __init__(self) -> None:
        self._page = Appended()

    def heard(self, said: Transcript) -> str:
        return self._page.final(said.text) if said.final else self._page.partial(said.text)

    def pause(self) -> str:
        return self._page.end()

    def failed(self, exc: GatewayError) -> str:
        return ""

    def pong(self) -> str:
        return ""


class _Json:
    def __init__(self) -> None:
        self._id = ""
        """Of the utterance that runs; empty between two."""
        self._revision = 0
        self._text = ""

    def heard(self, said: Transcript) -> str:
        if said.text == self._text and not said.final:
            return ""
        if not self._id:
            if not said.text:
                return ""
            self._id, self._revision = str(uuid.uuid4()), -1
        self._revision += 1
        self._text = said.text
        update = wire.asr_update(self._id, self._revision, said.text, _now(), final=said.final)
        if said.final:
            self._id = self._text = ""
        return update

    def pause(self) -> str:
        return self.heard(Transcript(self._text, "")) if self._id else ""

    def failed(self, exc: GatewayError) -> str:
        return wire.failure(exc.code, str(exc), _now(), exc.retry_after)

    def pong(self) -> str:
        return wire.pong(_now())


class _Listener:
    """One client of /ws."""

    def __init__(self, socket: Socket, pen: _Pen, idle: float) -> None:
        self._socket, self._pen, self._idle = socket, pen, idle
        self.microphone = Microphone()
        self._mistakes = 0

    async def read(self) -> None:
        """Until the client leaves: also after its end, so that its leaving is seen."""
        while True:
            frame = await self._socket.receive()
            if self.microphone.ended:
                continue
            if isinstance(frame, str):
                await self._take_text(frame)
            elif frame:
                self._mistakes = 0
                await self.microphone.put(frame)
            else:
                self.microphone.end()

    async def heard(self, said: Transcript) -> None:
        await self.send(self._pen.heard(said))

    async def send(self, text: str) -> None:
        if text:
            try:
                async with asyncio.timeout(self._idle):
                    await self._socket.send(text)
            except TimeoutError:
                raise TooSlow(f"you have read nothing for {self._idle:g} s") from None

    async def _take_text(self, frame: str) -> None:
        try:
            asked = wire.read_listener(frame)
        except ValueError as exc:
            self._mistakes = one_more(self._mistakes)
            await self.send(self._pen.failed(BadRequest(str(exc))))
            return
        self._mistakes = 0
        if isinstance(asked, wire.End):
            self.microphone.end()
        elif isinstance(asked, wire.Ping):
            await self.send(self._pen.pong())


def one_more(mistakes: int) -> int:
    """Counts an unreadable message. Raises BadRequest where there are too many in a row."""
    if mistakes >= MOST_MISTAKES:
        raise BadRequest("too many unreadable messages", code="unreadable")
    return mistakes + 1


# /chatting


async def chatting(socket: Socket) -> None:
    """WS /chatting: messages in, replies of the converse verb out, all of them kept."""
    state: State = socket.state
    await socket.accept()
    try:
        chat = await state["chats"].open(socket.query("id"), socket.query("user") or ANYBODY)
    except BadRequest as exc:
        await socket.send(wire.failure(exc.code, str(exc), _now()))
        raise
    outbox = Outbox()
    with state["rooms"].connected(), state["rooms"].enter(chat.id, outbox) as room:
        await _Visit(socket, state, chat, room, outbox).run()


@dataclass(slots=True)
class _Reply:
    """What the assistant has said so far in one turn."""

    message: Message
    pieces: list[str] = field(default_factory=list)
    length: int = 0

    def add(self, piece: str) -> None:
        piece = piece[: LONGEST_REPLY - self.length]
        self.pieces.append(piece)
        self.length += len(piece)

    @property
    def text(self) -> str:
        self.pieces = ["".join(self.pieces)]
        return self.pieces[0]


class _Visit:
    """One client in one chat. Each has a conversation of its own with the engine."""

    def __init__(self, socket: Socket, state: State, chat: Chat, room: Room, outbox: Outbox) -> None:
        self._socket, self._state, self._chat, self._room, self._outbox = socket, state, chat, room, outbox
        self._replies: dict[int, _Reply] = {}
        self._storing = asyncio.Lock()
        """One message after the other, in the order in which they were said."""
        self._token = ""
        self._over = chat.ended_at is not None

    async def run(self) -> None:
        settings = self._state["settings"]
        resume = self._state["rooms"].take_token(self._chat.id)
        wishes = Change(persona=settings.persona, language="", speech=False, tools=())
        self._dialogue = Dialogue(
            self._state["converse"], settings, self._state["metrics"], resume=resume, wishes=wishes
        )
        self._token = resume
        await self._greet()
        try:
            async with self._dialogue.at_work(), task_group() as tasks:
                others = (tasks.create_task(self._read()), tasks.create_task(self._answer()))
                await self._outbox.deliver(self._socket, settings.client_idle_timeout)
                for task in others:
                    task.cancel()
        finally:
            if self._token and not self._room.ended:
                self._state["rooms"].leave_token(self._chat.id, self._token)
            await shielded(self._keep_all())

    # Private

    async def _greet(self) -> None:
        self._outbox.put(wire.connection_established(self._chat.id, _now()))
        for said in await self._state["chats"].messages(self._chat.id, HISTORY):
            self._outbox.put(wire.message_history(said.chat_id, said.id, said.speaker, said.content, said.created_at))
        if self._over:
            self._outbox.put(self._ended_already())

    async def _read(self) -> None:
        """What the client says, until it leaves."""
        mistakes = 0
        while True:
            frame = await self._socket.receive()
            try:
                asked = wire.read_chat(frame)
            except ValueError as exc:
                mistakes = one_more(mistakes)
                self._fail(BadRequest(str(exc)))
                continue
            mistakes = 0
            if isinstance(asked, wire.Ping):
                self._outbox.put(wire.pong(_now()))
            elif isinstance(asked, wire.EndChat):
                await self._end()
            else:
                await self._say(asked.content)

    async def _say(self, content: str) -> None:
        if self._over or self._room.ended:
            self._outbox.put(self._ended_already())
            return
        message = new_message(self._chat.id, Speaker.USER, content)
        async with self._storing:
            try:
                await self._dialogue.write(content)
            except GatewayError as exc:
                self._fail(exc)
                return
            self._tell(message, content)
            await self._state["chats"].add(message)

    async def _answer(self) -> None:
        """What comes of it."""
        async for event in self._dialogue.events():
            if isinstance(event, ReplyText):
                reply = self._replies.get(event.turn)
                if reply is None:
                    reply = _Reply(new_message(self._chat.id, Speaker.ASSISTANT, ""))
                    self._replies[event.turn] = reply
                reply.add(event.text)
                self._tell(reply.message, reply.text, grows=True)
            elif isinstance(event, Ended) and event.turn in self._replies:
                await shielded(self._keep(self._replies.pop(event.turn)))
            elif isinstance(event, Trouble):
                self._fail(event.error)
            elif isinstance(event, Resumable):
                self._token = event.token

    async def _end(self) -> None:
        """The whole chat, for everybody in it."""
        self._over = True
        await self._dialogue.cancel()
        await self._keep_all()
        await self._state["chats"].end(self._chat.id)
        self._room.tell(wire.conversation_complete(self._chat.id, _now()))
        self._room.tell(wire.chat_ended(self._chat.id, _now()))
        self._room.end()

    async def _keep_all(self) -> None:
        """What was said of replies that go no further."""
        while self._replies:
            await self._keep(self._replies.pop(next(iter(self._replies))))

    async def _keep(self, reply: _Reply) -> None:
        if text := reply.text:
            async with self._storing:
                await self._state["chats"].add(replace(reply.message, content=text.replace("\0", "")))
            self._tell(reply.message, text)

    def _tell(self, message: Message, content: str, *, grows: bool = False) -> None:
        said = wire.new_message(self._chat.id, message.id, message.speaker, content, message.created_at, partial=grows)
        self._room.tell(said, message.id, grows=grows)

    def _fail(self, exc: GatewayError) -> None:
        self._outbox.put(wire.failure(exc.code, str(exc), _now(), exc.retry_after))

    def _ended_already(self) -> str:
        return wire.failure("chat_ended", "this chat has ended; it can be read, and takes no more", _now())
