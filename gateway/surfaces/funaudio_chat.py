"""WS /api/chat, and /api/simplex, which upstream's web page opens: Fun-Audio-Chat's protocol, for its stock clients.

What they rely on is kept: `00` first, recording from the start, END_TURN the same as PAUSE, START before each later
turn, `[Processing...]`, text in pieces, whole pages. RESTART does nothing, as upstream.

What clients may add, in `04` JSON (gateway/wire/turns.py) or in the address: hands_free, language, voice (a preset's
name), and resume, the token of an earlier session; in `04` alone also system_prompt at any time, speech, tools and
tool_results. Other fields, such as those that upstream's page sends, are passed over.

`02` from a client is a written turn once it has sent a `04` with "speech"; before that nothing, as upstream.

The session is announced by `04` right after the handshake, and again when it changes: the resume token comes with the
first turn, when the engine has been asked.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from gateway.dialogue import Dialogue, Ended, Out, Speech, Trouble
from gateway.errors import BadRequest, ClientGone, EngineBusy, GatewayError, TooLarge, TooSlow
from gateway.events import Opus, Phase, ReplyAudio, ReplyText, Resumable, ToolCall, Transcript, Turn
from gateway.playout import Playout
from gateway.socket import Socket
from gateway.state import State
from gateway.tasks import task_group
from gateway.verbs import Change, Preset
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns

_MOST_ERRORS = 100
"""Unusable messages in a row; then the connection ends."""
_METADATA_BYTES = 256 * 1024
_HELD_SECONDS = 5.0
"""How long in a turn a client that sends faster than the engine takes is held back; then it is told."""
_PIECE_BYTES, _BURST = 64 * 1024, 16
"""Of a message, and pages, that are heard in a row before others have their turn."""
_ON = ("1", "true", "yes", "on")


async def chat(socket: Socket) -> None:
    """Accepts everybody, because clients of this protocol understand no HTTP status; whom it cannot serve it tells."""
    await socket.accept()
    await socket.send(wire.encode(wire.Handshake()))
    gate = socket.state["converse"].gate
    if gate.running >= gate.slots and gate.waiting >= gate.queue:
        busy = EngineBusy(f"all {gate.slots} conversations are taken; try again later")
        for message in _failure(busy):
            await socket.send(message)
        raise busy
    await _Conversation(socket).run()


async def farewell(socket: Socket, exc: GatewayError) -> None:
    """To whom the door does not let in, or shows out."""
    if not socket.opened:
        await socket.accept()
        await socket.send(wire.encode(wire.Handshake()))
    for message in _failure(exc):
        await socket.send(message)


class _Conversation:
    """One connection."""

    def __init__(self, socket: Socket) -> None:
        state: State = socket.state
        self._socket, self._settings = socket, state["settings"]
        self._session = turns.Session(
            secrets.token_hex(8), hands_free=socket.query("hands_free").strip().lower() in _ON
        )
        self._dialogue = Dialogue(
            state["converse"],
            self._settings,
            state["metrics"],
            opus=True,
            resume=socket.query("resume")[: turns.LONGEST_NAME],
            wishes=Change(
                persona="", language=socket.query("language")[: turns.LONGEST_NAME].strip(), speech=True, tools=()
            ),
            hands_free=self._session.hands_free,
            interrupted=self._cut,
        )
        self._dialogue.direct(self._play_now)
        self._playout = Playout(self._send, _page, self._settings.client_idle_timeout)
        self._pages = opus.Pages()
        self._writes = self._ahead = False
        """Whether `02` is a written turn; whether the client knows that it is too far ahead in this one."""
        self._errors = 0
        """Unusable messages in a row."""
        self._cut_at, self._audible = 0.0, False
        """Of the last interruption: time.monotonic(), and whether the client was still hearing a reply."""
        self._patience = _HELD_SECONDS
        """What is left of them in this turn."""
        self._processing = 0
        """The last turn that it was told of."""
        self._sending = 0
        self._sent_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Until the client leaves. Raises ClientGone, TooSlow, BadRequest."""
        async with self._at_work() as tasks:
            await self._announce(self._session)
            if name := self._socket.query("voice"):
                await self._attempt(self._take_wish(turns.Wish(voice=name[: turns.LONGEST_NAME])))
            tasks.create_task(_until_gone(self._tell_all()))
            tasks.create_task(_until_gone(self._playout.run()))
            tasks.create_task(_until_gone(self._keep()))
            self._socket.take(self._take_now)
            await self._listen()

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[asyncio.TaskGroup]:
        """Scope of all that runs for it, and of the sound that waits."""
        try:
            async with self._dialogue.at_work(), task_group(failure=0) as tasks:
                yield tasks
        finally:
            del self._playout  # which has our `_send`: both would wait for the garbage collector, with their sound

    # Private: from the client

    async def _listen(self) -> None:
        while True:
            data = await self._socket.receive()
            self._errors = 0 if await self._attempt(self._take(data)) else self._errors + 1
            if self._errors >= _MOST_ERRORS:
                raise BadRequest(f"{self._errors} messages in a row could not be used", code="too_many_errors")

    def _take_now(self, data: bytes) -> bool:
        """Whether nothing is left to do about it: a page of sound that the engine has already."""
        page = data[1:]
        if data[:1] != b"\1" or not self._pages.empty or not opus.is_page(page):
            return False
        try:
            seconds = opus.check(page)
        except opus.NotOpus:
            return False
        if not seconds or not self._dialogue.hear_now(Opus(page), seconds):
            return False
        self._errors = 0
        return True

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether it succeeded; if not, the client has been told."""
        try:
            await work
        except ClientGone:
            raise
        except GatewayError as exc:
            for message in _failure(exc):
                await self._send(message)
            return False
        return True

    async def _take(self, data: bytes | str) -> None:
        if isinstance(data, str):
            raise BadRequest("this protocol has binary messages only", code="text_frame")
        if data[:1] == b"\4" and len(data) > _METADATA_BYTES:
            raise TooLarge(f"metadata has at most {_METADATA_BYTES} bytes")
        try:
            message = wire.decode(data)
        except wire.Unreadable as exc:
            raise BadRequest(str(exc), code="unreadable_message") from None
        match message:
            case wire.Audio(pages):
                await self._hear(pages)
            case wire.Control(action):
                await self._turn(action)
            case wire.Metadata():
                await self._wish(message)
            case wire.Text(text) if self._writes:
                await self._write(text)

    async def _hear(self, data: bytes) -> None:
        """Every page that is good is heard, whatever the others are. Raises the first thing that is wrong."""
        wrong: GatewayError | None = None
        for at in range(0, len(data), _PIECE_BYTES):
            try:
                pages = self._pages.feed(data[at : at + _PIECE_BYTES])
            except opus.NotOpus as exc:
                raise wrong or _undecodable(exc) from None
            for count, page in enumerate(pages, 1):
                wrong = await self._heard(page) or wrong
                if count % _BURST == 0:
                    await asyncio.sleep(0)
        if wrong is not None:
            raise wrong

    async def _heard(self, page: bytes) -> GatewayError | None:
        """Gives what the client is to be told of it."""
        try:
            if self._dialogue.packed:  # else it is unpacked, which tells as well
                opus.check(page)
            if self._patience > 0:
                self._patience -= await self._dialogue.room(self._patience)
            await self._dialogue.hear(Opus(page))
        except opus.NotOpus as exc:
            return _undecodable(exc)
        except BadRequest as exc:
            return exc
        except TooLarge as exc:
            told, self._ahead = self._ahead, True
            return None if told else exc
        return None

    async def _turn(self, action: wire.Action) -> None:
        if action is wire.Action.START:
            self._ahead, self._patience = False, _HELD_SECONDS
            await self._dialogue.begin()
            await self._hush()
        elif action in (wire.Action.PAUSE, wire.Action.END_TURN):
            self._ahead, self._patience = False, _HELD_SECONDS
            await self._dialogue.end()

    def _cut(self) -> None:
        """The dialogue has heard an interruption."""
        if not self._audible:
            self._cut_at = time.monotonic()  # the loop's time stands still while it is at work
        self._audible = self._playout.cut() or self._audible

    async def _hush(self) -> None:
        """After an interruption."""
        audible, self._audible = self._audible, False
        await self._playout.hush()
        if audible:
            self._dialogue.silenced(time.monotonic() - self._cut_at)

    async def _write(self, text: str) -> None:
        if not text.strip():
            raise BadRequest("the text is empty", code="empty_text")
        self._bound("text", text)
        await self._dialogue.write(text)

    async def _wish(self, message: wire.Metadata) -> None:
        try:
            wish = turns.wish_of(message.fields)
        except ValueError as exc:
            raise BadRequest(str(exc), code="bad_metadata") from None
        self._writes = self._writes or wish.speech is not None
        await self._take_wish(wish)

    async def _take_wish(self, wish: turns.Wish) -> None:
        voice = self._preset(wish.voice)
        change = Change(wish.system_prompt, voice, wish.language, wish.speech, wish.tools)
        if change != Change():
            await self._dialogue.change(change)
        if wish.hands_free is not None:
            await self._dialogue.hands_free(wish.hands_free)
            await self._announce(
                turns.Session(self._session.id, self._session.resume, self._session.resumed, wish.hands_free)
            )
        wrong: GatewayError | None = None
        for result in wish.tool_results:
            try:
                await self._take_result(result)
            except GatewayError as exc:
                wrong = wrong or exc
        if wrong is not None:
            raise wrong

    async def _take_result(self, result: turns.ToolResult) -> None:
        self._bound("result of a tool", result.output)
        await self._dialogue.tool_result(result.id, result.output)

    def _bound(self, what: str, text: str) -> None:
        """Raises TooLarge for what no engine takes."""
        most = self._settings.text_max_chars
        if len(text) > most:
            raise TooLarge(f"a {what} has at most {most} characters", code="text_too_long")

    def _preset(self, name: str | None) -> Preset | None:
        if name is None:
            return None
        found = self._settings.default_voice if name.strip() in ("", "default") else name.strip()
        if found not in self._settings.presets:
            raise BadRequest(f"no such voice; there are {', '.join(self._settings.presets)}", code="unknown_voice")
        return Preset(found)

    # Private: to the client

    async def _send(self, data: bytes) -> None:
        self._sending += 1
        if self._sending == 1:
            self._sent_at = asyncio.get_running_loop().time()
        try:
            await self._socket.send(data)
        finally:
            self._sending -= 1
        self._sent_at = asyncio.get_running_loop().time()

    def _play_now(self, event: ReplyAudio) -> bool:
        if self._sending or not isinstance(event.audio, Opus):
            return False
        return self._playout.play_now(event.turn, event.audio.page, self._send_now)

    def _send_now(self, data: bytes) -> bool:
        if not self._socket.send_now(data):
            return False
        self._sent_at = asyncio.get_running_loop().time()
        return True

    async def _announce(self, session: turns.Session) -> None:
        self._session = session
        await self._send(_event(session))

    async def _tell_all(self) -> None:
        async for event in self._dialogue.events():
            if isinstance(event, ReplyAudio):
                await self._playout.play(event.turn, event.audio)
            else:
                await self._tell(event)

    async def _tell(self, event: Out) -> None:
        say = self._playout.say
        match event:
            case ReplyText(turn, text):
                await say(turn, wire.encode(wire.Text(text)), reply=True)
            case Turn(turn, Phase.QUEUED):
                await say(turn, _event(turns.Queued(turn, event.position, round(event.seconds, 3))))
            case Turn(turn, Phase.WORKING) if turn != self._processing:
                self._processing = turn
                await say(turn, wire.encode(wire.Text(wire.PROCESSING)), reply=True)
                await say(turn, _event(turns.ReplyStarted(turn)), reply=True)
            case Transcript():
                await say(event.utterance, _event(turns.Heard(event.utterance, event.text, event.final)))
            case ToolCall(turn, id, name, arguments):
                await say(turn, _event(turns.ToolCall(turn, id, name, arguments)), reply=True)
            case Ended(turn):
                self._playout.end(turn, partial(_done, event))
            case Trouble(error, turn):
                for message in _failure(error, turn):
                    await (say(turn, message) if turn else self._send(message))
            case Resumable(token, resumed):
                await self._announce(turns.Session(self._session.id, token, resumed, self._session.hands_free))
            case Speech():
                await self._tell_speech(event)

    async def _tell_speech(self, event: Speech) -> None:
        """The dialogue has begun or ended the turn already."""
        self._ahead, self._patience = False, _HELD_SECONDS
        at = round(event.at, 3)
        if not event.started:
            await self._send(_event(turns.SpeechStopped(event.turn, at)))
            return
        await self._send(_event(turns.SpeechStarted(event.turn, at)))
        await self._hush()

    async def _keep(self) -> None:
        """Keeps the client by a sign of life, for as long as it reads. Raises TooSlow."""
        ping, patience = self._settings.socket_ping, self._settings.client_idle_timeout
        loop = asyncio.get_running_loop()
        while True:
            silent = loop.time() - self._sent_at
            if self._sending:
                if silent >= patience:
                    raise TooSlow(f"you have read nothing for {patience:g} s")
            elif silent >= ping:
                await self._send(wire.encode(wire.Ping()))
                silent = 0.0
            left = patience / 4 if self._sending else min(ping - silent, patience / 4)
            await asyncio.sleep(max(left, 0.02))


def _page(page: bytes) -> bytes:
    return wire.encode(wire.Audio(page))


def _event(event: turns.Event) -> bytes:
    return wire.encode(wire.metadata(turns.fields_of(event)))


def _done(ended: Ended, seconds: float, cut: bool) -> bytes:
    """cut: the engine had ended it, and the client did not want to hear the rest."""
    status = "cancelled" if cut and ended.status == "completed" else ended.status
    timings = {name: round(value, 4) for name, value in ended.timings.items()}
    return _event(turns.ReplyDone(ended.turn, status, round(seconds, 3), timings))


def _failure(exc: GatewayError, turn: int = 0) -> tuple[bytes, bytes]:
    """For people, one line; and for programs."""
    line = " ".join(str(exc).split())
    failed = turns.Failed(exc.code, line, turn, exc.retry_after)
    return wire.encode(wire.Error(line)), _event(failed)


def _undecodable(exc: opus.NotOpus) -> BadRequest:
    return BadRequest(str(exc), code="audio_undecodable")


async def _until_gone(work: Coroutine[Any, Any, None]) -> None:
    """A client that has left is for the one who listens to it to notice."""
    with suppress(ClientGone):
        await work
