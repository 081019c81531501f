"""Upstream's own Fun-Audio-Chat server, and how to live with what it does not do (seen at its commit 8ba984b).

1. Every connection, silent or not, takes from the one queue that all speech comes out of, and throws away what is not
   its own. So there is one connection to it at a time. It stays with a session until another one has a turn: that one
   then begins anew, and what the server remembered of the first is lost with its connection.
2. Audio still on its way through the server is forgotten when PAUSE or START comes. It answers pings in order with all
   else, so that a pong, and a moment more, tells that it has arrived.
3. It reads START only when a reply is over, and cannot be interrupted, not even by leaving: the next turn would be
   computed over the one that still runs. A reply that nobody wants is read to its end; what is said meanwhile is kept
   here, and nothing of it is lost.
4. It does not say that a reply is over. Silence decides, longer silence where it has been slow.
5. It may take a turn and never answer. Then its connection is given up, and after two of those in a row its health
   says so for a while.
6. Its system prompt can be chosen before the first turn only; there is nothing else to choose.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed

from gateway.adapters.connections import Client
from gateway.adapters.fun_audio_chat_line import Packing, dial, hang_up, lost, pages_of
from gateway.adapters.fun_audio_chat_stock_line import PROCESSING, Line, Recording
from gateway.adapters.fun_audio_chat_stock_words import Words
from gateway.admission import Gate
from gateway.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Turn
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import Begin, Cancel, Change, Converse, End, EngineHealth, Said, State, Write
from gateway.wire import opus

_PATIENCE = 0.9
"""Of the time after which a conversation is given up: the connection goes first, and the session stays."""
_MOST_WAITING = 4
"""Turns of one session."""
_EVENTS = 256
_MUTE, _MUTE_SECONDS = 2, 30.0
"""So many silent turns in a row, and the server counts as failed for so long."""
_USUAL_SECONDS, _LEAST_WAIT, _WEIGHT = 10.0, 2.0, 0.2
"""What a reply is taken to last before one has ended, what is still to come of a long one; weight of the last one."""


class Stock:
    """One such server, and the only connection to it."""

    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self._url, self._settings = url, settings
        self.gate = Gate("converse", 1, settings.converse_queue)
        """Whoever is inside may take the connection, and have its turn answered."""
        self.line: Line | None = None
        self._door = asyncio.Lock()
        """Held while a connection is made."""
        self._seen = False
        """Whether it has been found to speak the protocol since it last went away."""
        self._mute, self._mute_at = 0, 0.0
        self._usual = _USUAL_SECONDS
        http.owns(self._close)

    def __repr__(self) -> str:
        return f"<stock server: {self.line!r}, {self.gate!r}>"

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        session = _Session(self, job, self._settings)
        try:
            if self.line is None:  # else the door may be held for as long as a reply runs
                async with self._door:
                    if self.line is None:
                        await self._connect(session)
            async with task_group() as tasks:
                working = [tasks.create_task(session.hear()), tasks.create_task(session.work(tasks))]
                async with aclosing(session.events()) as events:
                    yield events
                for task in working:
                    task.cancel()
        finally:
            self._left(session)

    async def take(self, session: "_Session") -> Line:
        """The connection, for one who is inside the gate; a new one where another session had it. Raises what `dial`
        does."""
        async with self._door:
            line = self.line
            if line is not None:
                if not await line.rest():
                    self.answered(0)
                if line.owner is session and line.usable:
                    return line
                await self.drop()
            return await self._connect(session)

    async def drop(self) -> None:
        """The connection is of no use any more."""
        if self.line is not None:
            await self.line.close()
            self.line = None

    def answered(self, seconds: float) -> None:
        """A turn was, in that time; 0 where only silence came."""
        self._mute = 0 if seconds else self._mute + 1
        self._mute_at = asyncio.get_running_loop().time()
        if seconds:
            self._usual += _WEIGHT * (seconds - self._usual)

    @property
    def wait(self) -> float:
        """About how many seconds the reply that runs will take on; 0 where none does."""
        if self.line is None or not self.line.running:
            return 0.0
        return round(max(_LEAST_WAIT, self._usual - self.line.age), 1)

    async def health(self) -> EngineHealth:
        """Of a server that has just answered something to HTTP. Each new connection costs a reply that runs some of
        its sound, so one is made only to find out what kind of server it is."""
        if not self._seen and self.line is None and not self._door.locked():
            try:
                async with self._door:
                    await hang_up(await dial(self._url, self._settings))
            except EngineUnavailable as exc:
                return EngineHealth(State.DOWN, reason=str(exc))
            except EngineError as exc:
                return EngineHealth(State.FAILED, reason=str(exc))
            self._seen = True
        if self._mute >= _MUTE and asyncio.get_running_loop().time() < self._mute_at + _MUTE_SECONDS:
            reason = f"its last {self._mute} turns made no sound: look at its TTS process (--tts-gpu) and its memory"
            return EngineHealth(State.FAILED, _MODEL, reason=reason)
        return EngineHealth(State.READY, _MODEL)

    def gone(self) -> None:
        """It does not answer any more; what answers next may be another server."""
        self._seen = False

    # Private

    async def _connect(self, session: "_Session") -> Line:
        patience = _PATIENCE * self._settings.converse_timeout
        self.line = Line(await dial(self._url, self._settings), session, session.packed, patience)
        self._seen = True
        return self.line

    def _left(self, session: "_Session") -> None:
        """A reply that still runs is left to whoever comes next, who has to wait for it."""
        if self.line is not None and self.line.owner is session:
            self.line.owner = None
            if not self.line.running:
                self.line.abort()
                self.line = None

    async def _close(self) -> None:
        if self.line is not None:
            self.line.abort()


_MODEL = "Fun-Audio-Chat (upstream's server)"


@dataclass(eq=False, slots=True)
class _Turn:
    number: int
    recording: Recording
    ended: bool = False
    asked: bool = False
    """Whether the server has it; then it cannot be taken back."""
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class _Session:
    """One conversation, with the connection or without it."""

    def __init__(self, stock: Stock, job: Converse, settings: Settings) -> None:
        self.packed = job.opus
        self._stock, self._job, self._most_seconds = stock, job, settings.converse_turn_seconds
        self._usual_persona = settings.persona
        self._persona = job.wishes.persona or settings.persona
        self._speech = job.wishes.speech is not False
        self._packing, self._checking = Packing(), opus.Unpacker()
        self._recording = Recording(self._most_seconds)
        self._headers: list[bytes] = []
        """That the client's stream began with."""
        self._reply_headers: list[bytes] = []
        """That the server's stream began with, and that nobody has seen yet."""
        self._number = self._unwanted = 0
        """Of the last turn; of the last one that is not wanted any more."""
        self._turns: deque[_Turn] = deque()
        """Those that wait."""
        self._running: _Turn | None = None
        self._said_all = False
        self._wake = asyncio.Event()
        self._out: asyncio.Queue[Conversed | EngineError | None] = asyncio.Queue(_EVENTS)
        """None is the end."""

    async def events(self) -> AsyncGenerator[Conversed]:
        """Raises EngineError."""
        while (event := await self._out.get()) is not None:
            if isinstance(event, EngineError):
                raise event
            if not isinstance(event, ReplyAudio | ReplyText) or event.turn > self._unwanted:
                yield event

    async def hear(self) -> None:
        """Takes all that is said at once; `work` does what follows from it."""
        async for one in self._job.said:
            await self._take(one)
            self._wake.set()
        self._said_all = True
        self._wake.set()

    async def work(self, tasks: asyncio.TaskGroup) -> None:
        """Answers turns, one after the other; between them, sends what is being said."""
        while True:
            self._wake.clear()
            if self._turns:
                turn = self._running = self._turns.popleft()
                turn.task = tasks.create_task(self._answer(turn))
                try:
                    await asyncio.wait([turn.task])
                finally:
                    turn.task.cancel()
                self._running = None
            elif self._said_all:
                await self._out.put(None)
                return
            elif not await self._stream():
                await self._wake.wait()

    # Private: what is said

    async def _take(self, one: Said) -> None:
        match one:
            case Opus(page):
                self._keep(page)
            case Audio():
                for page in await self._packing.feed(one):
                    self._keep(page)
            case Begin():
                self._packing.drop()
                self._recording = Recording(self._most_seconds)
                await self._cancel()
            case End():
                for page in self._packing.end():
                    self._keep(page)
                await self._ask()
            case Write():
                self._number += 1
                self._recording = Recording(self._most_seconds)
                why = "this engine hears turns, and reads none"
                await self._out.put(Turn(self._number, Phase.FAILED, code="text_unsupported", reason=why))
            case Cancel():
                await self._cancel()
            case Change(persona=persona, speech=speech):
                self._persona = self._persona if persona is None else persona or self._usual_persona
                self._speech = self._speech if speech is None else speech

    def _keep(self, page: bytes) -> None:
        """Only what the server's decoder will read: one page that it does not would end the connection."""
        if not opus.is_page(page):
            return
        try:
            pcm = self._checking.feed(page)
        except opus.NotOpus:
            return
        if opus.is_header(page):
            self._headers = [*self._headers[-1:], page]
        else:
            self._recording.add(page, len(pcm) / 2 / opus.RATE)

    async def _ask(self) -> None:
        self._number += 1
        turn = _Turn(self._number, self._recording)
        self._recording = Recording(self._most_seconds)
        if not turn.recording.seconds:
            await self._end(turn, Phase.FAILED, "nothing_recorded", "nothing was recorded")
        elif len(self._turns) >= _MOST_WAITING:
            await self._end(turn, Phase.FAILED, EngineBusy.code, "too many turns wait for their answer")
        else:
            self._turns.append(turn)
            if self._running is not None and (wait := self._stock.wait):
                await self._out.put(Turn(turn.number, Phase.QUEUED, self._stock.gate.waiting + 1, wait))

    async def _cancel(self) -> None:
        self._unwanted = self._number
        turns = [*([self._running] if self._running else ()), *self._turns]
        self._turns.clear()
        for turn in turns:
            if not turn.asked and turn.task is not None:
                turn.task.cancel()
            await self._end(turn, Phase.CANCELLED)

    # Private: what follows

    async def _stream(self) -> bool:
        """Sends what has been said; False where there is nothing to send, or no connection to send it on."""
        line, recording = self._stock.line, self._recording
        if line is None or line.owner is not self or line.running or not line.usable:
            return False
        if not recording.pages or recording.cut or line.has(recording):
            return False
        with suppress(ConnectionClosed, EngineTimeout):  # the turn will find out
            await line.give(recording, self._headers)
        return True

    async def _answer(self, turn: _Turn) -> None:
        try:
            async with self._stock.gate.enter(lambda place, seconds: self._queued(turn, place, seconds)):
                await self._converse(turn)
            await self._end(turn, Phase.DONE)
        except EngineBusy as exc:
            await self._end(turn, Phase.FAILED, exc.code, str(exc))
        except EngineError as exc:
            await self._out.put(exc)
        except ConnectionClosed as exc:
            await self._out.put(lost(exc))

    async def _converse(self, turn: _Turn) -> None:
        """Inside the gate."""
        if wait := self._stock.wait:  # for what somebody has left behind
            self._queued(turn, 1, wait)
        line = await self._stock.take(self)
        try:
            await line.give(turn.recording, self._headers)
            await line.settle()
            turn.asked = True
            await line.ask(self._persona)
            turn.recording = Recording(self._most_seconds)  # the server has it; ours is not needed any more
            await self._read(turn, line)
        except (EngineTimeout, ConnectionClosed) as exc:
            await self._stock.drop()
            if isinstance(exc, ConnectionClosed):
                raise
            self._stock.answered(0)
            await self._end(turn, Phase.FAILED, exc.code, str(exc))

    async def _read(self, turn: _Turn, line: Line) -> None:
        words, began = Words(), asyncio.get_running_loop().time()
        while (data := await line.next()) is not None:
            if data[:1] == b"\1":
                await self._speak(turn, line, pages_of(data[1:]))
            elif data == PROCESSING:
                await self._say(turn, Turn(turn.number, Phase.WORKING))
            elif data[:1] == b"\2":
                await self._write(turn, words.piece(data[1:].decode(errors="replace")))
            elif data[:1] == b"\5":
                why = f"the engine: {data[1:].decode(errors='replace')}"
                await self._end(turn, Phase.FAILED, EngineError.code, why[:300])
        await self._write(turn, words.end())
        self._stock.answered(asyncio.get_running_loop().time() - began)

    async def _speak(self, turn: _Turn, line: Line, pages: list[bytes]) -> None:
        for page in pages:
            if opus.is_header(page):
                self._reply_headers = [*self._reply_headers[-1:], page]
            elif not turn.ended and self._speech:
                for one in (*self._reply_headers, page):
                    if (audio := line.unpacking.feed(one)) is not None:
                        await self._out.put(ReplyAudio(turn.number, audio))
                self._reply_headers = []

    async def _write(self, turn: _Turn, text: str) -> None:
        if text:
            await self._say(turn, ReplyText(turn.number, text))

    def _queued(self, turn: _Turn, place: int, seconds: float) -> None:
        if not turn.ended:
            with suppress(asyncio.QueueFull):
                self._out.put_nowait(Turn(turn.number, Phase.QUEUED, place, seconds))

    async def _say(self, turn: _Turn, event: Conversed) -> None:
        if not turn.ended:
            await self._out.put(event)

    async def _end(self, turn: _Turn, phase: Phase, code: str = "", reason: str = "") -> None:
        if not turn.ended:
            turn.ended = True
            await self._out.put(Turn(turn.number, phase, code=code, reason=reason))
