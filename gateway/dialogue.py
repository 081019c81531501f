"""One client's conversation: what every surface needs of it, and no engine gives.

Rule 1: each turn ends exactly once, and nothing of it comes after its end, whatever the engine does.
Rule 2: what the client does returns at once, whatever the engine is busy with.
Rule 3: the client's connection outlives the engine's session. One that breaks ends the turns that ran in it, and the
next word opens another, on another replica if need be; until there is a word there is none.

An engine counts turns within its session, the dialogue within the connection; here both are known.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
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
from gateway.hearing import HandsFree as HandsFree
from gateway.hearing import Hearing
from gateway.memory import Message
from gateway.metrics import Metrics
from gateway.outbox import Ended as Ended
from gateway.outbox import Out as Out
from gateway.outbox import Outbox, opens_stream
from gateway.outbox import Speech as Speech
from gateway.outbox import Trouble as Trouble
from gateway.replicas import Replicas
from gateway.session import Owner, Session
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.uplink import Turn
from gateway.verbs import Cancel, Change, Converse, Converser, End, Reply, ToolResult, Write
from gateway.wire import opus as codec

log = structlog.get_logger(__name__)

_TICK = 0.01
MOST_TURNS = 16
"""That may run or wait at a time; the next one is refused."""
_ERRORS = {kind.code: kind for kind in (EngineBroke, EngineBusy, EngineLoading, EngineTimeout, EngineUnavailable)}


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
        hands_free: bool | HandsFree = False,
        interrupted: Callable[[], None] | None = None,
    ) -> None:
        """opus: whether the surface has audio as Ogg Opus pages, and would like replies so. interrupted: is called when
        replies that run, wait or sound are not wanted any more, before anything else of it is told."""
        self._converse, self._settings, self._metrics = converse, settings, metrics
        self.packed = opus and all(cast(Converser, one.engine).packed for one in converse.members)
        """Whether replies come as Opus; else as PCM. What is heard may be either."""
        self._token, self._wishes = resume, wishes
        self._out = Outbox()
        self._on_interrupt = interrupted or _nothing
        self._session: Session | None = None
        self._turns: dict[int, Turn] = {}
        """Those that were begun and have not ended, in order."""
        self._number = 0
        """Of the last turn begun."""
        self._hands_free = _how(hands_free)
        self.recording = self._hands_free is None
        """Whether what is heard is kept."""
        self._recorded = 0.0
        """Seconds since the last Begin, End or Write."""
        self._lost: GatewayError | None = None
        """Why some of that did not reach the engine."""
        self._hearing: Hearing | None = None
        self._heard = self._hearing_since = 0.0
        """Seconds of the connection's audio: of all, and of what was heard before `_hearing`."""
        self._headers: tuple[Opus, ...] = ()
        """The pages that the client's stream began with; each engine must see them."""
        self._unpacker: codec.Unpacker | None = None
        self._calls: dict[str, str | None] = {}
        """What the last turn wants called, and what that gave."""
        self._heard_last: Turn | None = None
        """The last turn whose words alone were wanted, until a reply is asked for."""
        self._timings: dict[str, float] = {}
        """Of the turn that ended last: what its surface still plays of it may be interrupted."""
        self._interrupted: dict[str, float] = {}
        """Of the reply that was interrupted last."""

    def __repr__(self) -> str:
        return f"<dialogue: turns {list(self._turns)} of {self._number}, {self._out!r}, {self._session!r}>"

    def runs(self, turn: int) -> bool:
        """Whether that turn has begun and has not ended."""
        return turn in self._turns

    @property
    def heard(self) -> float:
        """Seconds of the connection's audio."""
        return self._heard

    @property
    def recorded(self) -> float:
        """Seconds of what no turn has yet."""
        return self._recorded

    @property
    def follows(self) -> bool:
        """Whether its client may keep the conversation itself: `end` without a reply, `clear` and `reply`."""
        return all(cast(Converser, one.engine).follows for one in self._converse.members)

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

    async def room(self, most: float) -> float:
        """Waits, `most` seconds at most, while much of what was said has not been taken by the engine: who has sent a
        burst can be held back instead of losing the end of it. Gives how long it has waited."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        for _ in range(round(most / _TICK)):
            if self._session is None or not self._session.uplink.crowded:
                break
            await asyncio.sleep(_TICK)
        return loop.time() - since

    async def hear(self, piece: Audio | Opus) -> None:
        """Raises TooLarge(code="too_far_ahead") where the engine takes no more: this piece is lost then. Raises
        BadRequest(code="audio_undecodable") for a page that is no Opus, where that is seen."""
        if isinstance(piece, Opus) and codec.is_header(piece.page):
            self._begin_stream(piece)
            return
        pcm = self._unpacked(piece)
        if isinstance(piece, Opus) and not self.packed:
            if not pcm:
                return
            piece = Audio(pcm, codec.RATE)
        seconds = codec.seconds(piece.page) if isinstance(piece, Opus) else len(piece.pcm) / 2 / piece.sample_rate
        self._heard += seconds
        if self._hands_free is not None:
            await self._listen(self._hands_free, piece, pcm)
        elif self.recording:
            self._keep(piece, seconds)

    def hear_now(self, page: Opus, seconds: float) -> bool:
        """Whether the engine has it already; else it is for `hear`. For a page of sound that was checked."""
        if self._hands_free is not None or not self.recording or not self.packed or self._lost is not None:
            return False
        if self._session is None or not self._session.uplink.hear_now(page):
            return False
        self._heard += seconds
        self._recorded += seconds
        return True

    async def begin(self) -> None:
        """The user begins to speak: replies that run or wait end now, and nothing of them comes out any more."""
        self._interrupt()
        self.recording, self._recorded, self._lost = True, 0.0, None
        self._opened().uplink.restart()

    async def end(self, *, reply: bool = True, goes_on: bool = False) -> int:
        """The user has finished; gives the number of the turn. reply: False where only its words are wanted. goes_on:
        whether what follows is recorded without `begin`. Raises BadRequest(code="nothing_recorded"), and TooLarge
        (code "too_many_turns", "too_far_ahead")."""
        self.recording = goes_on and self._hands_free is None
        if not self._recorded:
            raise BadRequest("nothing was recorded", code="nothing_recorded")
        self._admit()
        if self._lost is None:
            return self._begun(End(reply))
        error = self._lost
        self._finish(self._next_turn(reply), "failed", error)
        return self._number

    async def write(self, text: str) -> int:
        """A turn that is written; gives its number. Raises TooLarge (code "too_many_turns", "too_far_ahead")."""
        self._admit()
        return self._begun(Write(text))

    async def reply(self, messages: tuple[Message, ...], wishes: Change = Change()) -> int:
        """A reply to exactly these messages, to no others (verbs.Reply); gives the number of its turn. What is being
        said goes on. Raises TooLarge as `write`."""
        self._admit()
        recorded, lost = self._recorded, self._lost
        number = self._begun(Reply(messages, wishes))
        self._recorded, self._lost = recorded, lost
        self._turns[number].answers, self._heard_last = self._heard_last, None
        return number

    async def clear(self) -> None:
        """What was said since the last turn is dropped, what follows is kept, and replies go on."""
        self.recording, self._recorded, self._lost, self._hearing = self._hands_free is None, 0.0, None, None
        if self._session is not None:
            self._session.uplink.clear()

    async def cancel(self) -> None:
        """Replies that run or wait are not wanted any more; what is being recorded is."""
        running = any(turn.replies for turn in self._turns.values())
        self._interrupt()
        if running and self._session is not None:
            self._session.uplink.say(Cancel())

    async def change(self, change: Change) -> None:
        """How replies are wanted from the next turn on."""
        self._wishes = self._wishes.then(change)
        if self._session is not None:
            self._session.uplink.say(change)

    async def tool_result(self, id: str, output: str) -> int:  # noqa: A002
        """What a ToolCall gave; the last one that its turn waits for begins the next turn. Gives the number of the
        last turn. Raises
        BadRequest(code="unknown_tool_call"), and TooLarge as `write`."""
        if self._calls.get(id, "") is not None:
            raise BadRequest("no tool call of this id waits for its result", code="unknown_tool_call")
        self._calls[id] = output
        self._go_on()
        return self._number

    async def hands_free(self, on: bool | HandsFree) -> None:
        """Whether turns begin and end by themselves, and how. What is being said when it is turned off is recorded
        on."""
        how, was = _how(on), self._hands_free
        self._hands_free = how
        if how is None or was is None or replace(how, replies=was.replies, interrupts=was.interrupts) != was:
            self._hearing = None
        if how is not None and was is None:
            self.recording = False

    def silenced(self, seconds: float) -> None:
        """How long after begin() the last byte of the old reply left the surface."""
        self._metrics.timed(self._converse.adapter, "barge_in", seconds)
        self._interrupted["barge_in"] = seconds

    # What the client is to be told.

    def direct(self, take: Callable[[ReplyAudio], bool]) -> None:
        """From now on sound that comes while the reader of `events` waits is given to `take`; what it does not take, it
        reads."""
        self._out.direct = take

    async def events(self) -> AsyncGenerator[Out]:
        """In order; ends only with the dialogue. For one reader."""
        while (event := await self._out.get()) is not None:
            yield event

    # Private: turns

    def _admit(self) -> None:
        """Whether another turn may begin."""
        if len(self._turns) >= MOST_TURNS or self._out.overfull:
            raise TooLarge("too many turns wait for their answers", code="too_many_turns")

    def _next_turn(self, replies: bool = True) -> Turn:
        self._number += 1
        self._recorded, self._lost, self._calls = 0.0, None, {}
        now = asyncio.get_running_loop().time()
        turn = self._turns[self._number] = Turn(self._number, now, replies=replies)
        if not replies:
            self._heard_last = turn
        return turn

    def _begun(self, item: End | Write | ToolResult | Reply) -> int:
        """The next turn begins with `item`; gives its number."""
        session = self._opened()
        if session.uplink.full:
            raise TooLarge("the engine takes no more turns", code="too_far_ahead")
        session.begin(item, self._next_turn(not isinstance(item, End) or item.reply))
        return self._number

    def _finish(self, turn: Turn, status: str, error: GatewayError | None = None) -> None:
        turn.ended, self._timings = True, turn.timings
        del self._turns[turn.number]
        if self._hearing is not None:
            self._hearing.answered()
        if status != "completed" and turn.number == self._number:
            self._calls = {}
        if error is not None:
            self._out.put(Trouble(error, turn.number))
        if turn.replies:
            self._metrics.turn_ended(self._converse.adapter, status, turn.timings)
        elif "recognition" in turn.timings:
            self._metrics.timed(self._converse.adapter, "recognition", turn.timings["recognition"])
        self._out.put(Ended(turn.number, status, turn.timings))

    def _interrupt(self) -> None:
        """Ends all turns, and takes back what the surface has not read of them; that may be all of one that has ended
        at the engine."""
        self._calls = {}
        self._on_interrupt()
        self._out.drop_replies()
        running = [turn for turn in self._turns.values() if turn.replies]
        self._interrupted = running[0].timings if running else self._timings
        for turn in running:
            self._finish(turn, "cancelled")

    def _go_on(self) -> None:
        """Gives the engine what its calls gave, once that is everything and their turn has ended."""
        if not self._calls or None in self._calls.values() or self._number in self._turns:
            return
        self._admit()
        *first, last = [ToolResult(name, output or "") for name, output in self._calls.items()]
        for result in first:
            self._opened().uplink.say(result)
        self._begun(last)

    @contextmanager
    def _troubling(self) -> Iterator[None]:
        """What the client did not ask for itself may fail too, and nobody else would tell."""
        try:
            yield
        except GatewayError as exc:
            self._out.put(Trouble(exc))

    # Private: the engine's session

    def _opened(self) -> Session:
        """The engine's session; a new one where there is none."""
        if self._session is None:
            session = self._session = Session(self._settings, self._out, Owner(self._note, self._broken))
            if self.packed:
                for page in self._headers:
                    session.uplink.hear(page, 0.0)
            running = session.run(self._converse, self.packed, self._token, self._wishes)
            session.task = self._tasks.create_task(running)
        return self._session

    def _broken(self, session: Session, error: GatewayError) -> None:
        """A session is of no use any more: whatever ran in it has failed."""
        self._session, self._calls = None, {}
        running = list(self._turns.values())
        for turn in running:
            self._finish(turn, "failed", error)
        if self._recorded and self._lost is None:
            self._lost = error
            self._out.put(Trouble(error))
        if running or self._lost is not None:
            log.warning("conversation broken", adapter=self._converse.adapter, code=error.code, turns=len(running))

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
        for turn in list(self._turns.values()):
            self._finish(turn, "cancelled")
        self._out.close()
        self._on_interrupt = _nothing  # the surface has the dialogue; both go at once where neither has the other

    # Private: what is heard

    def _keep(self, piece: Audio | Opus, seconds: float) -> None:
        """For the turn that is being recorded. One of which something was lost gets no more."""
        if self._lost is None:
            self._opened().uplink.hear(piece, seconds)
        self._recorded += seconds

    def _begin_stream(self, page: Opus) -> None:
        """One of the header pages."""
        self._headers = (page,) if opens_stream(page) else (*self._headers[:1], page)
        if self._unpacker is not None:
            self._unpack(page)
        if self._session is not None and self.packed:
            self._session.uplink.hear(page, 0.0)

    def _unpacked(self, piece: Audio | Opus) -> bytes:
        """PCM, where anybody needs it."""
        if isinstance(piece, Audio):
            return piece.pcm
        if self._hands_free is None and self.packed:
            return b""
        if self._unpacker is None:
            self._unpacker = codec.Unpacker()
            for page in self._headers:
                self._unpack(page)
        return self._unpack(piece)

    def _unpack(self, page: Opus) -> bytes:
        assert self._unpacker is not None
        try:
            return self._unpacker.feed(page.page)
        except codec.NotOpus as exc:
            raise BadRequest(str(exc), code="audio_undecodable") from None

    # Private: hands-free

    async def _listen(self, how: HandsFree, piece: Audio | Opus, pcm: bytes) -> None:
        rate = codec.RATE if isinstance(piece, Opus) else piece.sample_rate
        hearing = self._hearing
        if hearing is None or hearing.sample_rate != rate:
            hearing = self._hearing = Hearing(self._settings, rate, how)
            self._hearing_since = self._heard - len(pcm) / 2 / rate
        for moment in await hearing.feed(piece, pcm):
            if isinstance(moment, Started):
                await self._started(hearing, how, moment.at)
            else:
                await self._stopped(hearing, how, moment.at)
        if self.recording:
            self._pass_on(hearing)
        else:
            hearing.silent()

    async def _started(self, hearing: Hearing, how: HandsFree, at: float) -> None:
        self._out.put(Speech(self._number + 1, True, self._hearing_since + at))
        if self.recording:
            return
        hearing.forget(at)
        if not how.replies:
            self.recording, self._recorded, self._lost = True, 0.0, None
            hearing.answered()
            if how.interrupts:
                await self.cancel()
        else:
            if self._number in self._turns:  # and not answered yet: it was a pause in a sentence, not its end
                hearing.take_back()
            hearing.answered()
            await self.begin()

    async def _stopped(self, hearing: Hearing, how: HandsFree, at: float) -> None:
        if not self.recording:  # the client was quicker
            return
        self._out.put(Speech(self._number + 1, False, self._hearing_since + at))
        with self._troubling():
            self._pass_on(hearing, at + hearing.silence)
        with self._troubling():
            await self.end(reply=how.replies)
        if (turn := self._turns.get(self._number)) is not None:
            turn.since -= hearing.silence  # it took that long to be sure

    def _pass_on(self, hearing: Hearing, until: float | None = None) -> None:
        for piece, seconds in hearing.take(until):
            self._keep(piece, seconds)

    # Private: what the engine says, in the dialogue's numbers; of turns that have ended, nothing

    def _note(self, session: Session, event: Conversed) -> None:
        if isinstance(event, Resumable):
            self._token = event.token
            self._out.put(event)
        elif isinstance(event, Transcript):
            self._note_transcript(session, event)
        elif isinstance(event, Progress):
            if (turn := session.turn(event.number)) is not None:
                self._note_progress(turn, event)
        elif (turn := session.turn(event.turn)) is not None:
            self._note_reply(turn, event)
        elif isinstance(event, ReplyAudio):
            self._out.drop(event)

    def _note_transcript(self, session: Session, event: Transcript) -> None:
        if (turn := session.turn(event.utterance)) is not None:
            if event.final:
                turn.timings["recognition"] = asyncio.get_running_loop().time() - turn.spoken
            self._out.put(replace(event, utterance=turn.number))
        elif event.utterance == session.count + 1 and not session.uplink.restarts:  # of a turn that has not ended yet
            coming = session.uplink.turns
            if coming and not coming[0].ended:
                self._out.put(replace(event, utterance=coming[0].number))
            elif not coming and self._recorded:
                self._out.put(replace(event, utterance=self._number + 1))

    def _note_progress(self, turn: Turn, event: Progress) -> None:
        now = asyncio.get_running_loop().time()
        if event.phase is Phase.QUEUED:
            turn.wait(now)
        else:
            turn.work(now)
        if event.phase in (Phase.QUEUED, Phase.WORKING):
            self._out.put(replace(event, number=turn.number))
        elif event.phase is Phase.FAILED:
            kind = _ERRORS.get(event.code, EngineError)
            self._finish(turn, "failed", kind(event.reason, code=event.code or None, quotes=True))
        else:
            self._finish(turn, "completed" if event.phase is Phase.DONE else "cancelled")
            with self._troubling():
                self._go_on()

    def _note_reply(self, turn: Turn, event: ReplyAudio | ReplyText | ToolCall) -> None:
        now = asyncio.get_running_loop().time()
        turn.work(now)
        if self._hearing is not None and turn.number == self._number:
            self._hearing.answered()
        if isinstance(event, ToolCall):
            if turn.number == self._number:  # else the user has gone on, and nobody will ask for the result
                self._calls[event.id] = None
        else:
            turn.timings.setdefault(
                "first_audio" if isinstance(event, ReplyAudio) else "first_token", now - turn.spoken
            )
        self._out.put(event if event.turn == turn.number else replace(event, turn=turn.number))


def _how(hands_free: bool | HandsFree) -> HandsFree | None:
    """None where turns do not begin and end by themselves."""
    if isinstance(hands_free, HandsFree):
        return hands_free
    return HandsFree() if hands_free else None


def _nothing() -> None:
    """Of a surface that does not ask."""
