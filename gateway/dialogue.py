"""One client's conversation: what every surface needs of it, and no engine gives.

Rule 1: each turn ends exactly once, and nothing of it comes after its end, whatever the engine does.
Rule 2: what the client does returns at once, whatever the engine is busy with.
Rule 3: the client's connection outlives the engine's session. One that breaks ends the turns that ran in it, and the
next word opens another, on another replica if need be.

An engine counts turns within its session, the dialogue within the connection; only here both are known.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import structlog

from gateway.endpointing import Started
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineLoading,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
    TooLarge,
)
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Resumable, ToolCall, Transcript
from gateway.events import Turn as Progress
from gateway.hearing import Hearing
from gateway.metrics import Metrics
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.uplink import Turn, Uplink, merged
from gateway.verbs import Cancel, Change, Converse, Converser, End, Said, ToolResult, Write
from gateway.wire import opus as codec

log = structlog.get_logger(__name__)

MOST_TURNS = 16
"""That may run or wait at a time; the next one is refused."""
_OUT_BYTES = 1024 * 1024
"""Of events that the surface has not taken; then the engine has to wait. 20 s of PCM, minutes of Opus: an engine is
done with a turn long before it has been heard."""
_OVERHEAD = 200
"""Bytes that an event costs besides its audio."""
_RETRY = 1.0
"""Seconds after a failed session before audio alone opens the next one."""
_ERRORS = {kind.code: kind for kind in (EngineBroke, EngineBusy, EngineLoading, EngineTimeout, EngineUnavailable)}


@dataclass(frozen=True, slots=True)
class Speech:
    """Hands-free: somebody begins to speak, or has ended."""

    turn: int
    started: bool
    at: float
    """Seconds of the connection's audio."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Exactly one for each turn that was begun by End, Write, or the last of its tools' results."""

    turn: int
    status: str
    """completed, cancelled or failed."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds, named as in gateway/wire/turns.py ReplyDone."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something failed; the dialogue goes on."""

    error: GatewayError
    turn: int = 0
    """0 where it belongs to none."""


Out = Progress | Transcript | ReplyAudio | ReplyText | ToolCall | Resumable | Speech | Ended | Trouble
"""Of a Progress only QUEUED and WORKING: Ended tells the rest."""


class Dialogue:
    """One client's conversation with whichever engine serves `converse`, for any surface. One task acts for the client,
    one reads `events`; they may be the same."""

    def __init__(
        self,
        converse: Replicas[Converse, Conversed],
        settings: Settings,
        metrics: Metrics,
        *,
        opus: bool = False,
        resume: str = "",
        wishes: Change = Change(persona="", language="", speech=True, tools=()),
        hands_free: bool = False,
    ) -> None:
        """opus: whether the surface has audio as Ogg Opus pages, and would like replies so."""
        self._converse, self._settings, self._metrics = converse, settings, metrics
        self.packed = opus and all(cast(Converser, one.engine).packed for one in converse.members)
        """Whether replies come as Opus; else as PCM. What is said may be either."""
        self._token, self._wishes = resume, wishes
        self._out: deque[Out] = deque()
        self._out_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        """The surface's, waiting for something to read."""
        self._writer: asyncio.Future[None] | None = None
        """The engine's, waiting for room."""
        self._over = False
        self._session: _Session | None = None
        self._turns: dict[int, Turn] = {}
        """Those that were begun and have not ended, in order."""
        self._number = 0
        """Of the last turn begun."""
        self.recording = not hands_free
        """Whether what is heard is kept."""
        self._recorded = 0.0
        """Seconds since the last Begin, End or Write."""
        self._lost: GatewayError | None = None
        """Why something of that did not reach the engine."""
        self._retry_at = 0.0
        self._hands_free = hands_free
        self._hearing: Hearing | None = None
        self._hearing_since = 0.0
        self._heard = 0.0
        """Seconds of the connection's audio."""
        self._unpacker: codec.Unpacker | None = None
        self._headers: tuple[Opus, ...] = ()
        """The pages that the client's stream began with; each engine must see them."""
        self._unsent: list[Opus] = []
        """Headers of the engine's stream that were dropped with an unwanted reply."""
        self._calls: dict[str, str | None] = {}
        """What the last turn wants called, and what that gave."""
        self._calls_of: int = 0
        self._interrupted: dict[str, float] | None = None
        """Timings of the reply that was interrupted last."""

    def __repr__(self) -> str:
        return f"<dialogue: turns {list(self._turns)} of {self._number}, {len(self._out)} events, {self._session!r}>"

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Scope of all that runs for it; leaving it ends the engine's session at once."""
        self._metrics.conversations.inc()
        try:
            async with task_group() as self._tasks:
                try:
                    yield
                finally:
                    self._leave()
        finally:
            self._metrics.conversations.dec()

    # What the client does.

    async def hear(self, piece: Audio | Opus) -> None:
        """Raises TooLarge(code="too_far_ahead") where the engine takes no more, and BadRequest for pages that are no
        Opus."""
        if isinstance(piece, Opus) and codec.is_header(piece.page):
            self._begin_stream(piece)
            return
        pcm = self._unpacked(piece)
        if isinstance(piece, Opus) and not self.packed:
            piece = Audio(pcm, codec.RATE)
        seconds = codec.seconds(piece.page) if isinstance(piece, Opus) else len(piece.pcm) / 2 / piece.sample_rate
        if not seconds:
            return
        self._heard += seconds
        if self._hands_free:
            await self._listen(piece, pcm)
        elif self.recording:
            self._keep(piece, seconds)

    async def begin(self) -> None:
        """The user begins to speak: replies that run or wait end now, and nothing of them comes out any more."""
        self._interrupt()
        self.recording, self._recorded, self._lost = True, 0.0, None
        self._opened().uplink.restart()

    async def end(self) -> None:
        """The user has finished. Raises BadRequest(code="nothing_recorded"), and TooLarge(code="too_many_turns")."""
        self.recording, recorded = False, self._recorded
        if not recorded:
            raise BadRequest("nothing was recorded", code="nothing_recorded")
        self._begun(End())

    async def write(self, text: str) -> None:
        """A turn that is written. Raises TooLarge(code="too_many_turns")."""
        self._begun(Write(text))

    async def cancel(self) -> None:
        """Replies that run or wait are not wanted any more; what is being recorded is."""
        if self._turns:
            self._interrupt()
            if self._session is not None:
                self._session.uplink.say(Cancel())

    async def change(self, change: Change) -> None:
        self._wishes = merged(self._wishes, change)
        if self._session is not None:
            self._session.uplink.say(change)

    async def tool_result(self, id: str, output: str) -> None:  # noqa: A002
        """The last one of a turn's begins the next turn. Raises BadRequest(code="unknown_tool_call")."""
        if self._calls.get(id, "") is not None:
            raise BadRequest("no such tool call waits for a result", code="unknown_tool_call")
        self._calls[id] = output
        self._go_on()

    async def hands_free(self, on: bool) -> None:
        """Whether turns begin and end by themselves. What is being said when it is turned off is recorded on."""
        if on != self._hands_free:
            self._hands_free, self._hearing = on, None
            if on:
                self.recording = False

    def silenced(self, seconds: float) -> None:
        """How long after begin() the last byte of the old reply left the surface."""
        if self._interrupted is not None:
            self._interrupted["barge_in"] = seconds
            self._metrics.timed(self._converse.adapter, "barge_in", seconds)
            self._interrupted = None

    # What the client is to be told.

    async def events(self) -> AsyncGenerator[Out]:
        """In order; ends only with the dialogue. For one reader."""
        while True:
            while self._out:
                event = self._out.popleft()
                self._out_bytes -= _size(event)
                if self._writer is not None and self._out_bytes < _OUT_BYTES:
                    _wake(self._writer)
                yield event
            if self._over:
                return
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    # Private: the engine's session

    def _opened(self) -> "_Session":
        """The engine's session; a new one where there is none."""
        if self._session is None:
            session = self._session = _Session()
            for page in self._headers:
                session.uplink.hear(page, 0.0)
            session.task = self._tasks.create_task(self._converse_in(session))
        return self._session

    async def _converse_in(self, session: "_Session") -> None:
        """The whole life of an engine's session."""
        error: GatewayError = EngineBroke("the engine has ended the conversation")
        try:
            job = Converse(session, self.packed, self._token, self._wishes)
            async with self._converse.session(job) as events:
                async for event in events:
                    if self._out_bytes >= _OUT_BYTES:
                        await self._room(session)
                    session.alive = asyncio.get_running_loop().time()
                    self._note(session, event)
        except GatewayError as exc:
            error = exc
        except Exception:
            log.exception("conversation failed", adapter=self._converse.adapter)
            error = GatewayError()
        self._break(session, error)

    async def _room(self, session: "_Session") -> None:
        """Waits until the surface has taken enough."""
        session.held = True
        try:
            while self._out_bytes >= _OUT_BYTES:
                self._writer = asyncio.get_running_loop().create_future()
                await self._writer
        finally:
            session.held = False

    def _break(self, session: "_Session", error: GatewayError) -> None:
        """A session that is of no use any more: whatever ran in it has failed."""
        if session is not self._session:
            return
        self._session = None
        self._retry_at = asyncio.get_running_loop().time() + _RETRY
        session.close()
        troubled = list(self._turns.values())
        for turn in troubled:
            self._finish(turn, "failed", error)
        if self._recorded and self._lost is None:
            self._lost = error
            if not troubled:
                self._tell(Trouble(error))
        self._calls = {}
        if troubled or self._lost:
            log.warning("conversation broken", adapter=self._converse.adapter, code=error.code, turns=len(troubled))

    def _watch(self, session: "_Session") -> None:
        """Ends a session whose engine shows no sign of life while it has something to do."""
        session.watch = None
        if session is not self._session or not self._turns:
            return
        loop = asyncio.get_running_loop()
        if session.held:
            session.alive = loop.time()
        oldest = next(iter(self._turns.values()))
        queued = oldest.queued_since is not None
        patience = self._settings.engine_total_timeout if queued else self._settings.converse_timeout
        left = max(session.alive, oldest.since) + patience - loop.time()
        if left > 0:
            session.watch = loop.call_later(min(left, self._settings.converse_timeout), self._watch, session)
            return
        task = session.task
        self._break(session, EngineTimeout(f"the engine has shown no sign of life for {patience:g} s"))
        if task is not None:
            task.cancel()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
            if session.task is not None:
                session.task.cancel()
        for turn in list(self._turns.values()):
            self._finish(turn, "cancelled")
        self._over = True
        _wake(self._reader)

    # Private: what is said

    def _keep(self, piece: Audio | Opus, seconds: float) -> None:
        if self._lost is not None:
            return
        if self._session is None and asyncio.get_running_loop().time() < self._retry_at:
            self._lost = EngineUnavailable("the engine could not be reached when this was said")
            self._recorded += seconds
            return
        self._opened().uplink.hear(piece, seconds)
        self._recorded += seconds

    def _begin_stream(self, page: Opus) -> None:
        """Header pages; those of a stream come in a row."""
        self._headers = (page,) if codec_head(page) else (*self._headers[:1], page)
        if not self.packed or self._hands_free:
            self._unpack(page)
        if self._session is not None and self.packed:
            self._session.uplink.hear(page, 0.0)

    def _begun(self, item: End | Write | ToolResult) -> None:
        """A turn begins with `item`."""
        if len(self._turns) >= MOST_TURNS or self._out_bytes > 2 * _OUT_BYTES:
            raise TooLarge("too many turns wait for their answer", code="too_many_turns")
        loop = asyncio.get_running_loop()
        lost, self._lost, self._recorded = self._lost, None, 0.0
        self._number += 1
        self._calls = {}
        turn = self._turns[self._number] = Turn(self._number, loop.time())
        if lost is not None and isinstance(item, End):
            self._finish(turn, "failed", lost)
            return
        session = self._opened()
        session.uplink.say(item, turn)
        if session.watch is None:
            session.watch = loop.call_later(self._settings.converse_timeout, self._watch, session)

    def _go_on(self) -> None:
        """Gives the engine what its calls gave, once that is everything and their turn has ended."""
        if not self._calls or None in self._calls.values() or self._calls_of in self._turns:
            return
        *first, last = [ToolResult(id, output or "") for id, output in self._calls.items()]  # noqa: A001
        for result in first:
            self._opened().uplink.say(result)
        self._begun(last)

    # Private: hands-free

    async def _listen(self, piece: Audio | Opus, pcm: bytes) -> None:
        rate = codec.RATE if isinstance(piece, Opus) else piece.sample_rate
        hearing = self._hearing
        if hearing is None or hearing.sample_rate != rate:
            hearing = self._hearing = Hearing(self._settings, rate)
            self._hearing_since = self._heard - len(pcm) / 2 / rate
        for moment in await hearing.feed(piece, pcm):
            if isinstance(moment, Started):
                await self._started(hearing, moment.at)
            else:
                await self._stopped(hearing, moment.at)
        if self.recording:
            self._pass_on(hearing)
        else:
            hearing.silent()

    async def _started(self, hearing: Hearing, at: float) -> None:
        hearing.forget(at) if not self.recording else None
        self._tell(Speech(self._number + 1, True, self._hearing_since + at))
        if not self.recording:
            await self.begin()

    async def _stopped(self, hearing: Hearing, at: float) -> None:
        if not self.recording:
            return
        self._pass_on(hearing, at + self._settings.endpoint_silence)
        try:
            await self.end()
        except GatewayError as exc:
            self._tell(Trouble(exc))
        else:
            self._tell(Speech(self._number, False, self._hearing_since + at))

    def _pass_on(self, hearing: Hearing, until: float | None = None) -> None:
        for piece, seconds in hearing.take(until):
            self._keep(piece, seconds)

    def _unpacked(self, piece: Audio | Opus) -> bytes:
        """PCM, where anybody needs it."""
        if isinstance(piece, Audio):
            return piece.pcm
        return self._unpack(piece) if self._hands_free or not self.packed else b""

    def _unpack(self, page: Opus) -> bytes:
        if self._unpacker is None:
            self._unpacker = codec.Unpacker()
            for header in self._headers:
                self._unpacker.feed(header.page)
        try:
            return self._unpacker.feed(page.page)
        except codec.NotOpus as exc:
            raise BadRequest(str(exc), code="audio_undecodable") from None

    # Private: what is told

    def _tell(self, event: Out) -> None:
        self._out.append(event)
        self._out_bytes += _size(event)
        _wake(self._reader)

    def _interrupt(self) -> None:
        """Ends all turns, and takes back what the surface has not read of them."""
        self._calls = {}
        if not self._turns:
            self._drop_replies()
            return
        turns = list(self._turns.values())
        self._interrupted = turns[0].timings
        self._drop_replies()
        for turn in turns:
            self._finish(turn, "cancelled")

    def _drop_replies(self) -> None:
        """Out of what waits: a reply may have ended at the engine and not yet at the client."""
        kept = [event for event in self._out if not isinstance(event, ReplyAudio | ReplyText | ToolCall | Progress)]
        for event in self._out:
            if isinstance(event, ReplyAudio):
                self._dropped(event)
        self._out.clear()
        self._out.extend(kept)
        self._out_bytes = sum(map(_size, kept))
        _wake(self._writer)

    def _dropped(self, event: ReplyAudio) -> None:
        if isinstance(event.audio, Opus) and codec.is_header(event.audio.page):
            self._unsent = [event.audio] if codec_head(event.audio) else [*self._unsent, event.audio]

    def _finish(self, turn: Turn, status: str, error: GatewayError | None = None) -> None:
        del self._turns[turn.number]
        if error is not None:
            self._tell(Trouble(error, turn.number))
        self._metrics.turn_ended(self._converse.adapter, status, turn.timings)
        self._tell(Ended(turn.number, status, turn.timings))

    def _note(self, session: "_Session", event: Conversed) -> None:
        """What an engine says, in the dialogue's numbers; of turns that have ended, nothing."""
        if session is not self._session:
            return
        if isinstance(event, Resumable):
            self._token = event.token
            self._tell(event)
        elif isinstance(event, Transcript):
            self._note_transcript(session, event)
        else:
            turn = session.turns.get(event.number if isinstance(event, Progress) else event.turn)
            if turn is None or turn.number not in self._turns:
                if isinstance(event, ReplyAudio):
                    self._dropped(event)
            elif isinstance(event, Progress):
                self._note_progress(turn, event)
            else:
                self._note_reply(turn, event)

    def _note_transcript(self, session: "_Session", event: Transcript) -> None:
        turn = session.turns.get(event.utterance) or session.uplink.turn
        if turn is not None and turn.number in self._turns:
            if event.final:
                turn.timings["recognition"] = asyncio.get_running_loop().time() - turn.since
            self._tell(replace(event, utterance=turn.number))
        elif turn is None and event.utterance == session.count + 1 and self._recorded and not session.uplink.restarts:
            self._tell(replace(event, utterance=self._number + 1))

    def _note_progress(self, turn: Turn, event: Progress) -> None:
        now = asyncio.get_running_loop().time()
        if event.phase is Phase.QUEUED:
            turn.queued_since = now if turn.queued_since is None else turn.queued_since
        elif turn.queued_since is not None:
            turn.timings["queued"] = turn.timings.get("queued", 0.0) + now - turn.queued_since
            turn.queued_since = None
        if event.phase in (Phase.QUEUED, Phase.WORKING):
            self._tell(replace(event, number=turn.number))
        elif event.phase is Phase.FAILED:
            self._finish(
                turn, "failed", _ERRORS.get(event.code, EngineError)(event.reason, code=event.code, quotes=True)
            )
        else:
            self._finish(turn, "completed" if event.phase is Phase.DONE else "cancelled")
            self._go_on()

    def _note_reply(self, turn: Turn, event: ReplyAudio | ReplyText | ToolCall) -> None:
        if isinstance(event, ToolCall):
            self._calls[event.id], self._calls_of = None, turn.number
        else:
            name = "first_audio" if isinstance(event, ReplyAudio) else "first_token"
            if name not in turn.timings:
                turn.timings[name] = asyncio.get_running_loop().time() - turn.since
        if self._unsent and isinstance(event, ReplyAudio):
            for page in self._unsent:
                self._tell(ReplyAudio(turn.number, page))
            self._unsent = []
        self._tell(event if event.turn == turn.number else replace(event, turn=turn.number))


class _Session:
    """One session of an engine; also what the engine reads of it, Converse.said."""

    __slots__ = ("_closed", "alive", "count", "held", "task", "turns", "uplink", "watch")

    def __init__(self) -> None:
        self.uplink = Uplink()
        self.turns: dict[int, Turn] = {}
        """By the engine's numbers."""
        self.count = 0
        """The engine's number of the last turn that it has taken."""
        self.alive = 0.0
        """Loop time of its last sign of life."""
        self.held = False
        """Whether it waits for the surface, so that its silence is not its own."""
        self.task: asyncio.Task[None] | None = None
        self.watch: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<session: {self.count} turns, {self.uplink!r}>"

    def __aiter__(self) -> AsyncIterator[Said]:
        return self

    async def __anext__(self) -> Said:
        if self._closed:
            raise StopAsyncIteration
        item, turn = await self.uplink.take()
        if turn is not None:
            self.count += 1
            self.turns[self.count] = turn
        return item

    def close(self) -> None:
        self._closed = True
        if self.watch is not None:
            self.watch.cancel()
            self.watch = None


def codec_head(page: Opus) -> bool:
    """Whether it is the first page of its stream."""
    return bool(page.page[5] & 2)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _size(event: Out) -> int:
    if isinstance(event, ReplyAudio):
        return _OVERHEAD + len(event.audio.page if isinstance(event.audio, Opus) else event.audio.pcm)
    return _OVERHEAD + (len(event.text) if isinstance(event, ReplyText | Transcript) else 0)
