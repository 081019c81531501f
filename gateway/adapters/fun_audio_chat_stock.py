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
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State as Connected

from gateway.adapters.connections import Client
from gateway.adapters.fun_audio_chat_line import Packing, Unpacking, dial, hang_up, is_page, lost, pages_of
from gateway.admission import Gate
from gateway.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Turn
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import Begin, Cancel, Change, Converse, End, EngineHealth, Said, State, Write
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus

log = structlog.get_logger(__name__)

_START, _PAUSE = (wire.encode(wire.Control(action)) for action in (wire.Action.START, wire.Action.PAUSE))
_PROCESSING = wire.encode(wire.Text(wire.PROCESSING))
_SPEAK = "You are asked to generate both text and speech tokens at the same time."
"""What its model was trained to be told when it is to speak; a system prompt of one's own takes the place of it."""
_FINAL = "\n[Final: "
"""Begins a text that repeats the whole reply; ends with a bracket."""

_MESSAGE_BYTES = 4000
"""Of audio; its decoder fails on 20,000."""
_PER_MESSAGE = 0.01
"""Seconds in which it works off a message of audio."""
_START_SECONDS, _PAUSE_SECONDS = 0.05, 0.02
"""From a pong until what came before it has been acted upon."""
_SILENCE, _TEXT_SILENCE, _ERROR_SILENCE = 1.5, 1.0, 0.3
"""Seconds after the last audio, text or error in which nothing comes: the reply is over. Texts are 0.2 s apart."""
_PATIENCE = 0.9
"""Of the time after which a conversation is given up: the connection goes first, and the session stays."""
_MOST_WAITING = 4
"""Turns of one session."""
_BYTES_PER_SECOND = 16_000
"""Of Opus in a recording, at most."""
_PAGE_OVERHEAD = 64
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
        self.line: _Line | None = None
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

    async def take(self, session: "_Session") -> "_Line":
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

    async def _connect(self, session: "_Session") -> "_Line":
        patience = _PATIENCE * self._settings.converse_timeout
        self.line = _Line(await dial(self._url, self._settings), session, patience)
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


class _Recording:
    """What is said in one turn: the latest of it, as pages."""

    def __init__(self, most_seconds: float) -> None:
        self.pages: list[bytes] = []
        self.cut = 0
        """How many pages were dropped at its beginning."""
        self._lengths: deque[float] = deque()
        self.seconds, self._most_seconds = 0.0, most_seconds
        self._bytes = 0

    def add(self, page: bytes, seconds: float) -> None:
        self.pages.append(page)
        self._lengths.append(seconds)
        self.seconds += seconds
        self._bytes += len(page) + _PAGE_OVERHEAD
        most_bytes = self._most_seconds * _BYTES_PER_SECOND
        while len(self.pages) > 1 and (self.seconds > self._most_seconds or self._bytes > most_bytes):
            self.seconds -= self._lengths.popleft()
            self._bytes -= len(self.pages.pop(0)) + _PAGE_OVERHEAD
            if not self.cut:
                log.info("turn too long", kept_seconds=round(self.seconds))
            self.cut += 1


@dataclass(slots=True)
class _Reply:
    """When it is over. Loop times."""

    patience: float
    """Seconds that it may take to begin."""
    since: float
    """Of PAUSE, and then of the server's taking the turn."""
    taken: bool = False
    audible: bool = False
    _wait: float = 0.0
    """Seconds until its first sound."""
    _gap: float = 0.0
    """Longest between two messages of audio."""
    _audio_at: float = 0.0
    _over_at: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether anything has come of it."""
        return self._over_at > 0

    @property
    def deadline(self) -> float:
        """When silence until then means that it is over."""
        return self._over_at or self.since + self.patience

    def note(self, data: bytes, now: float) -> None:
        """A message of it has come."""
        if data == _PROCESSING:
            self.since, self.taken = now, True
        elif data[:1] == b"\5":
            self._over_at = now + _ERROR_SILENCE
        elif data[:1] == b"\1" and self.taken:
            if self.audible:
                self._gap = max(self._gap, now - self._audio_at)
            else:
                self._wait = now - self.since
            self._audio_at, self.audible = now, True
            # the first sound takes more than twice as long as the next
            silence = min(max(_SILENCE, 0.75 * self._wait, 2 * self._gap), self.patience)
            self._over_at = max(self._over_at, now + silence)
        elif self.audible:
            self._over_at = max(self._over_at, now + _TEXT_SILENCE)


class _Line:
    """The connection. One task uses it at a time."""

    def __init__(self, socket: ClientConnection, owner: "_Session", patience: float) -> None:
        self.owner: _Session | None = owner
        self.unpacking = Unpacking(owner.packed)
        self._socket, self._patience = socket, patience
        self._loop = asyncio.get_running_loop()
        self._given: _Recording | None = None
        self._cut = self._sent = 0
        """Of what was given: how many pages had been dropped at its beginning, and how many were sent."""
        self._records = True
        """Whether the server records already: it does from the start."""
        self._told = False
        """Whether it has seen the headers of the stream."""
        self._remembers = False
        """Whether it has had a turn."""
        self._idle_at = 0.0
        """Loop time at which it will have worked off all audio."""
        self._reply: _Reply | None = None

    def __repr__(self) -> str:
        return f"<line: {'replying' if self.running else 'silent'}, {'owned' if self.owner else 'abandoned'}>"

    @property
    def usable(self) -> bool:
        return self._socket.state is Connected.OPEN

    @property
    def running(self) -> bool:
        """Whether there is a reply that is not over."""
        return self._reply is not None

    @property
    def age(self) -> float:
        """Seconds since the reply that runs was asked for."""
        return self._loop.time() - self._reply.since if self._reply else 0.0

    def has(self, recording: _Recording) -> bool:
        """Whether all of it was sent."""
        return self._given is recording and self._sent == len(recording.pages) and self._cut == recording.cut

    async def give(self, recording: _Recording, headers: list[bytes]) -> None:
        """Sends what the server does not have of it. Raises ConnectionClosed, EngineTimeout."""
        new = self._given is not recording or self._cut != recording.cut
        self._given = None  # unless all of it gets there
        if new:
            await self._start()
            self._sent, self._cut = 0, recording.cut
        pages = recording.pages[self._sent :]
        data = b"".join(pages if self._told else [*headers, *pages])
        self._told = True
        for at in range(0, len(data), _MESSAGE_BYTES):
            await self._socket.send(b"\1" + data[at : at + _MESSAGE_BYTES])
            self._idle_at = max(self._idle_at, self._loop.time()) + _PER_MESSAGE
        if self._cut == recording.cut:
            self._given, self._sent = recording, self._sent + len(pages)

    async def settle(self) -> None:
        """Waits until what was given has been recorded. Raises ConnectionClosed, EngineTimeout."""
        await self._pong()
        await asyncio.sleep(max(self._idle_at - self._loop.time(), 0) + _PAUSE_SECONDS)

    async def ask(self, persona: str) -> None:
        """For a reply to what was given. Raises ConnectionClosed."""
        self._reply = _Reply(self._patience, self._loop.time())
        self._given = None
        if persona and not self._remembers:
            await self._socket.send(wire.encode(wire.metadata({"system_prompt": f"{_SPEAK} {persona}"})))
        self._remembers = True
        await self._socket.send(_PAUSE)

    async def next(self) -> bytes | None:
        """The next message of the reply; None when it is over. Raises EngineTimeout where none begins, and
        ConnectionClosed."""
        reply = self._reply
        while reply is not None:
            try:
                async with asyncio.timeout_at(reply.deadline):
                    data = await self._socket.recv()
            except TimeoutError:
                self._reply = None
                if not reply.begun:
                    what = "taken the turn, and then said" if reply.taken else "taken no turn, and said"
                    raise EngineTimeout(f"the engine has {what} nothing for {reply.patience:g} s") from None
                return None
            except ConnectionClosed:
                self._reply = None
                raise
            if isinstance(data, bytes) and data:
                reply.note(data, self._loop.time())
                if reply.taken or data[:1] == b"\5":  # what comes earlier is of a reply that was over too soon
                    return data
        return None

    async def rest(self) -> bool:
        """Returns when no reply runs any more; False where the one that did never began."""
        with suppress(ConnectionClosed):
            try:
                while await self.next() is not None:
                    pass
            except EngineTimeout:
                return False
        return True

    async def close(self) -> None:
        await hang_up(self._socket)

    def abort(self) -> None:
        self._socket.transport.abort()

    # Private

    async def _start(self) -> None:
        if not self._records:
            await self._socket.send(_START)
            await self._pong()
            await asyncio.sleep(_START_SECONDS)
        self._records = False

    async def _pong(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await (await self._socket.ping())
        except TimeoutError:
            raise EngineTimeout(f"the engine has taken no audio for {self._patience:g} s") from None


@dataclass(eq=False, slots=True)
class _Turn:
    number: int
    recording: _Recording
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
        self._recording = _Recording(self._most_seconds)
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
                self._recording = _Recording(self._most_seconds)
                await self._cancel()
            case End():
                for page in self._packing.end():
                    self._keep(page)
                await self._ask()
            case Write():
                self._number += 1
                self._recording = _Recording(self._most_seconds)
                why = "this engine hears turns, and reads none"
                await self._out.put(Turn(self._number, Phase.FAILED, code="text_unsupported", reason=why))
            case Cancel():
                await self._cancel()
            case Change(persona=persona, speech=speech):
                self._persona = self._persona if persona is None else persona or self._usual_persona
                self._speech = self._speech if speech is None else speech

    def _keep(self, page: bytes) -> None:
        """Only what the server's decoder will read: one page that it does not would end the connection."""
        if not is_page(page):
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
        self._recording = _Recording(self._most_seconds)
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
            turn.recording = _Recording(self._most_seconds)  # the server has it; ours is not needed any more
            await self._read(turn, line)
        except (EngineTimeout, ConnectionClosed) as exc:
            await self._stock.drop()
            if isinstance(exc, ConnectionClosed):
                raise
            self._stock.answered(0)
            await self._end(turn, Phase.FAILED, exc.code, str(exc))

    async def _read(self, turn: _Turn, line: _Line) -> None:
        words, began = _Words(), asyncio.get_running_loop().time()
        while (data := await line.next()) is not None:
            if data[:1] == b"\1":
                await self._speak(turn, line, pages_of(data[1:]))
            elif data == _PROCESSING:
                await self._say(turn, Turn(turn.number, Phase.WORKING))
            elif data[:1] == b"\2":
                await self._write(turn, words.piece(data[1:].decode(errors="replace")))
            elif data[:1] == b"\5":
                why = f"the engine: {data[1:].decode(errors='replace')}"
                await self._end(turn, Phase.FAILED, EngineError.code, why[:300])
        await self._write(turn, words.end())
        self._stock.answered(asyncio.get_running_loop().time() - began)

    async def _speak(self, turn: _Turn, line: _Line, pages: list[bytes]) -> None:
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


class _Words:
    """A reply's text, of which the server may send torn characters and a repetition."""

    def __init__(self) -> None:
        self._shown = self._held = ""

    def piece(self, text: str) -> str:
        """What is to be shown of it. From a torn character on all is held: the repetition has it whole."""
        if text.startswith(_FINAL):
            whole = re.sub(r"<\|\w+\|>", "", text.removeprefix(_FINAL).removesuffix("]"))
            rest = _behind(self._shown, whole)
            self._shown, held = whole, self.end()
            return held if rest is None else rest.rstrip()
        if self._held or "\ufffd" in text:
            self._held += text
            return ""
        self._shown += text
        return text

    def end(self) -> str:
        """What no repetition came for."""
        held, self._held = self._held, ""
        return held.replace("\ufffd", "")


def _behind(shown: str, whole: str) -> str | None:
    """What comes in `whole` behind what was shown of it, white space aside; None where that was something else."""
    at = 0
    for character in shown:
        if character.isspace():
            continue
        while at < len(whole) and whole[at].isspace():
            at += 1
        if whole[at : at + 1] != character:
            return None
        at += 1
    return whole[at:].lstrip() if shown[-1:].isspace() else whole[at:]
