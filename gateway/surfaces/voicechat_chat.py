"""`WS /chatting` of the voice chat backend: messages in, replies of the converse verb out, all of them kept.

?id= names the chat, which begins where nobody has it; ?user= whose it is then. Everybody who is connected to a chat is
told each message in it, whoever wrote it; each has a conversation of its own with the engine.
"""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gateway.chats import Chat, Message, Speaker, new_message
from gateway.dialogue import Dialogue, Ended, Trouble
from gateway.errors import BadRequest, ClientGone, GatewayError
from gateway.events import ReplyText, Resumable
from gateway.rooms import Outbox, Room
from gateway.socket import Socket
from gateway.state import State
from gateway.surfaces.voicechat import one_more
from gateway.tasks import shielded, task_group
from gateway.verbs import Change
from gateway.wire import voice_chat as wire

HISTORY = 50
"""Messages of a chat that a client is shown when it connects."""
ANYBODY = "anonymous"
LONGEST_REPLY = 50_000
"""Characters of a reply that are shown and kept."""


def _now() -> datetime:
    return datetime.now(UTC)


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


async def farewell(socket: Socket, exc: GatewayError) -> None:
    """To whom the door does not let in, or shows out."""
    if not socket.opened:
        await socket.accept()
    await socket.send(wire.failure(exc.code, str(exc), _now(), exc.retry_after))


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
    """One client in one chat."""

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
                try:
                    await self._outbox.deliver(self._socket, settings.client_idle_timeout)
                except ClientGone:
                    await asyncio.wait(others[:1])  # what it said before it left is heard
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
                await shielded(self._end())  # also where the client leaves right behind it
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
            await shielded(self._state["chats"].add(message))  # it is told, and answered: also where the client leaves

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
