"""Conversation by Fun-Audio-Chat's server, upstream's or ours.

Ours says in `04` messages what happens to each turn (gateway/wire/turns.py), queues turns itself, and stops a reply
when it is interrupted: little is left to do here. Upstream's has no /health, and answers 404 there, which is what tells
the two apart before anything is said; gateway/adapters/fun_audio_chat_stock.py lives with what it does not do.

Of what is wished for, ours is told everything but the recording of a voice, which its protocol has no words for.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress

import structlog
from websockets.exceptions import ConnectionClosed

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.adapters.fun_audio_chat_line import Line, Packing, Unpacking, dial, hang_up, lost, pages_of
from gateway.adapters.fun_audio_chat_stock import Stock
from gateway.errors import EngineBroke, EngineUnavailable
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Resumable, ToolCall, Transcript, Turn
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import (
    Begin,
    Cancel,
    Change,
    Converse,
    Converser,
    Direct,
    End,
    EngineHealth,
    Preset,
    Said,
    State,
    ToolResult,
    Write,
)
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns

log = structlog.get_logger(__name__)

_START, _PAUSE = (wire.encode(wire.Control(action)) for action in (wire.Action.START, wire.Action.PAUSE))
_ENDS = {"completed": Phase.DONE, "cancelled": Phase.CANCELLED}
_NO_SUCH_PATH = 404
_NO_TURN = ("nothing_recorded", "too_large")
"""Codes of what would have been a turn, were there anything in it, or less."""
_MOST_RECORDED, _MOST_RECORDED_BYTES = 7500, 4 * 1024 * 1024
"""Pages: five minutes of the usual 40 ms."""


class FunAudioChat:
    packed = True
    follows = False

    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._http, self._settings = http, settings
        self._stock = Stock(self.url, http, settings)
        self._is_stock: bool | None = None
        """None before anybody has asked."""

    def session(self, job: Converse) -> AbstractAsyncContextManager[AsyncIterator[Conversed]]:
        return self._session(job)

    async def health(self) -> EngineHealth:
        found = await self._look()
        if found.state is State.DOWN:
            self._stock.gone()
            return found
        return await self._stock.health() if self._is_stock else found

    # Private

    async def _look(self) -> EngineHealth:
        """What it says of itself, and which of the two it is."""
        status, found = await engine_http.health_answer(self._http, self.url)
        if status:
            self._is_stock = status == _NO_SUCH_PATH
        return found

    @asynccontextmanager
    async def _session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        if self._is_stock is None:
            await self._look()
        if self._is_stock:
            async with self._stock.session(job) as events:
                yield events
            return
        socket = await dial(self.url, self._settings, job.resume)
        try:
            conversation = _Conversation(socket, job, self._settings.persona)
            await conversation.open(self._settings.engine_connect_timeout)
            async with task_group() as tasks:
                hearing = tasks.create_task(conversation.hear())
                async with aclosing(conversation.events()) as events:
                    yield events
                hearing.cancel()  # the reader has left, or has everything
            if conversation.over:
                await hang_up(socket)
        finally:
            socket.direct = None
            socket.transport.abort()  # whoever left early leaves at once: the engine sees it, and stops


class _Conversation:
    """With our server: what is said, and what comes back."""

    def __init__(self, socket: Line, job: Converse, persona: str) -> None:
        """persona: of conversations that name none."""
        self._socket, self._job, self._persona = socket, job, persona
        self._packing, self._unpacking = Packing(), Unpacking(job.opus)
        self._direct = job.said if job.opus and isinstance(job.said, Direct) else None
        self._number = 0
        """Of the last turn said."""
        self._asked: list[int] = []
        """Their numbers: what the engine calls turn 1 is the first."""
        self._open: dict[int, None] = {}
        """Those that have not ended, in order."""
        self._calls: set[str] = set()
        """What the last reply wants called, and has no result yet."""
        self._unwanted = 0
        """Turns up to this one are not wanted any more."""
        self._current = 0
        """Whose reply comes now."""
        self._paused = False
        """Whether the engine records nothing: it was told to reply, and not to listen since."""
        self._recorded: list[bytes] = []
        """Pages of the next turn that came while another is open."""
        self._recorded_bytes = 0
        self._headers: list[bytes] = []
        """Pages that the engine's stream began with, when nobody wanted what came with them."""
        self._error = ""
        """The last one that the engine named."""
        self._resumable: Resumable | None = None
        self._said_all = self.over = False
        """Whether nothing more will be said; whether all of it has been answered."""

    async def open(self, wait: float) -> None:
        """Reads until the engine has named the session. Raises EngineBusy, EngineUnavailable, EngineBroke."""
        try:
            async with asyncio.timeout(wait):
                while not isinstance(found := _event(await self._socket.recv()), turns.Session):
                    if isinstance(found, turns.Failed):
                        self._error = found.message
        except TimeoutError:
            raise EngineUnavailable(f"the engine does not name the session within {wait:g} s") from None
        except ConnectionClosed as exc:
            raise lost(exc, self._error) from exc
        if found.resume:
            self._resumable = Resumable(found.resume, found.resumed)
        with suppress(ConnectionClosed):
            await self._wish(self._job.wishes)

    async def hear(self) -> None:
        """A closed connection is for the reader to explain."""
        if self._direct is not None:
            self._direct.direct(self._hear_now)
            self._socket.direct = self._arrived
        with suppress(ConnectionClosed):
            async for one in self._job.said:
                if isinstance(one, Opus):
                    await self._send_page(one.page)
                else:
                    await self._take(one)
            self._said_all = True
            if not self._open:
                self.over = True
                await self._socket.close()

    async def events(self) -> AsyncGenerator[Conversed]:
        """Raises EngineBroke, EngineBusy, EngineUnavailable."""
        if self._resumable is not None:
            yield self._resumable
        while not self.over:
            try:
                data = await self._socket.next()
            except ConnectionClosed as exc:
                if self.over:
                    return
                raise lost(exc, self._error) from exc
            if isinstance(data, bytes) and data[:1] == b"\1":
                for audio in self._heard(pages_of(data[1:])):
                    yield audio
            elif (event := self._told(data)) is not None:
                yield event
                self.over = self._said_all and not self._open

    # Private: the short way

    def _hear_now(self, page: Opus) -> bool:
        return not self._open and not self._paused and self._socket.send_now(b"\1" + page.page)

    def _arrived(self, data: bytes) -> bool:
        """A message that the reader of `events` waits for. Gives whether that is done with it."""
        page = data[1:]
        if data[:1] != b"\1" or self._current <= self._unwanted or self._headers or not opus.is_page(page):
            return False
        return self._direct is not None and self._direct.reply(ReplyAudio(self._current, Opus(page)))

    # Private: what is said

    async def _take(self, one: Said) -> None:
        match one:
            case Audio():
                await self._send_pages(await self._packing.feed(one))
            case Begin():
                self._packing.drop()
                self._forget_recorded()
                await self._interrupt()
            case End():
                await self._send_pages(self._packing.end())
                if self._paused:
                    await self._start()
                await self._ask(_PAUSE)
                self._paused = True
            case Write(text):
                await self._ask(wire.encode(wire.Text(text)))
                self._paused = False
            case Cancel():
                if self._open:
                    await self._interrupt()
            case Change():
                await self._wish(one)
            case ToolResult(id=call, output=output):
                self._calls.discard(call)
                if not self._calls:
                    self._begin_turn()
                await self._metadata(turns.Wish(tool_results=(turns.ToolResult(call, output),)))

    async def _send_pages(self, pages: list[bytes]) -> None:
        for page in pages:
            await self._send_page(page)

    async def _send_page(self, page: bytes) -> None:
        if self._open and len(self._recorded) < _MOST_RECORDED and self._recorded_bytes < _MOST_RECORDED_BYTES:
            self._recorded.append(page)
            self._recorded_bytes += len(page)
        if self._paused:
            if self._open:  # START would interrupt it
                return
            await self._start()
        await self._socket.send(b"\1" + page)

    async def _interrupt(self) -> None:
        self._unwanted = self._number
        self._calls.clear()
        await self._start()

    async def _start(self) -> None:
        """It makes the engine forget what it has heard of the next turn."""
        self._paused = False
        await self._socket.send(_START)
        for page in self._recorded:
            await self._socket.send(b"\1" + page)

    async def _ask(self, message: bytes) -> None:
        self._begin_turn()
        self._calls.clear()
        self._forget_recorded()
        await self._socket.send(message)

    def _forget_recorded(self) -> None:
        self._recorded.clear()
        self._recorded_bytes = 0

    def _begin_turn(self) -> None:
        self._number += 1
        self._open[self._number] = None
        self._asked.append(self._number)

    async def _wish(self, change: Change) -> None:
        voice = change.voice.name if isinstance(change.voice, Preset) else None
        persona = None if change.persona is None else change.persona or self._persona
        wish = turns.Wish(persona, voice, change.language, speech=change.speech, tools=change.tools)
        await self._metadata(wish)

    async def _metadata(self, wish: turns.Wish) -> None:
        if fields := turns.wish_fields(wish):
            await self._socket.send(wire.encode(wire.metadata(fields)))

    # Private: what comes back

    def _heard(self, pages: list[bytes]) -> Iterator[ReplyAudio]:
        for page in pages:
            if self._current <= self._unwanted:
                if opus.is_header(page):
                    self._headers = [*self._headers[-1:], page]
                continue
            if self._headers:
                for header in self._headers:
                    if (audio := self._unpacking.feed(header)) is not None:
                        yield ReplyAudio(self._current, audio)
                self._headers = []
            if (audio := self._unpacking.feed(page)) is not None:
                yield ReplyAudio(self._current, audio)

    def _told(self, data: bytes | str) -> Conversed | None:
        if isinstance(data, str) or data[:1] != b"\2":
            return self._said(_event(data))
        text = data[1:].decode(errors="replace")
        wanted = text and text != wire.PROCESSING and self._current > self._unwanted
        return ReplyText(self._current, text) if wanted else None

    def _said(self, event: turns.Event | None) -> Conversed | None:
        """What the engine says of a turn. One that is unwanted has only an end."""
        if event is None or isinstance(event, turns.Session):
            return None
        if isinstance(event, turns.Failed):
            return self._failed(event)
        number = self._asked[event.turn - 1] if 0 < event.turn <= len(self._asked) else 0
        if isinstance(event, turns.ReplyDone):
            return self._ended(number, _ENDS.get(event.status, Phase.FAILED), EngineBroke.code)
        if isinstance(event, turns.ReplyStarted):
            self._current = number
        if number <= self._unwanted:
            return None
        match event:
            case turns.Queued(_, position, seconds):
                return Turn(number, Phase.QUEUED, position, seconds)
            case turns.ReplyStarted():
                return Turn(number, Phase.WORKING)
            case turns.Heard(_, text, final):
                return Transcript(text, "", final, number)
            case turns.ToolCall(_, call, name, arguments):
                self._calls.add(call)
                return ToolCall(number, call, name, arguments)
        return None

    def _failed(self, error: turns.Failed) -> Conversed | None:
        """Of a turn in which nothing was heard, or too much written, the engine may say that it is none."""
        self._error = error.message
        number = self._asked[error.turn - 1] if 0 < error.turn <= len(self._asked) else 0
        if not number and error.code in _NO_TURN:
            number = next((one for one in self._open if one > self._current), 0)
            if number:
                self._asked.remove(number)
        if not number:
            log.warning("engine refused", code=error.code)
            return None
        return self._ended(number, Phase.FAILED, error.code, error.message)

    def _ended(self, number: int, phase: Phase, code: str, reason: str = "") -> Turn | None:
        """None where it had ended before."""
        if number not in self._open:
            return None
        del self._open[number]
        if number <= self._unwanted:
            return Turn(number, Phase.CANCELLED)
        return Turn(number, phase, code=code, reason=reason) if phase is Phase.FAILED else Turn(number, phase)


def _event(data: bytes | str) -> turns.Event | None:
    """What a message says about turns; None where it says nothing about them."""
    if isinstance(data, str) or data[:1] != b"\4":
        return None
    try:
        found = wire.decode(data)
    except wire.Unreadable as exc:
        raise EngineBroke(f"the engine's message cannot be read: {exc}") from None
    return turns.read(found.fields) if isinstance(found, wire.Metadata) else None


_: type[Converser] = FunAudioChat
