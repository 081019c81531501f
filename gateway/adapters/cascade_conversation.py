"""One conversation of the cascade: what is said comes in, turns are made of it, each is answered.

Its tasks: one reads what is said, one for each turn, one for the recognition of what is said in it.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from gateway.adapters.cascade_events import Events, ends
from gateway.adapters.cascade_recognition import Listening
from gateway.admission import Gate
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineError, GatewayError
from gateway.events import Audio, Conversed, Opus, Phase, ReplyAudio, ReplyText, Resumable, ToolCall, Transcript, Turn
from gateway.memory import Asked, Call, Held, Message, Past, latest
from gateway.narration import Script, SentenceBegin, narrate
from gateway.resample import Resampler
from gateway.segments import RATE
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.utterances import Utterances
from gateway.verbs import Begin, Cancel, Change, End, Preset, Reply, Said, Speak, ToolResult, Verb, Write
from gateway.wire.funasr_http import code_of

log = structlog.get_logger(__name__)

MOST_WAITING = 16
"""Turns of one conversation that have not ended; the next one is refused."""
MOST_ROUNDS = 16
"""Times in a row that a reply may ask for tools."""
_SLICE = 2 * RATE
"""Bytes heard at a time."""


class Replier(Protocol):
    """Where replies come from: chat.py, responder.py."""

    def reply(self, asked: Asked) -> AbstractAsyncContextManager[AsyncIterator[str | Call]]:
        """Pieces of text as they come, and calls. Leaving early cancels it."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a conversation is made of."""

    settings: Settings
    hear: Callable[[str], Utterances]
    """What is said in one turn, in a language."""
    speak: Verb[Speak, Audio]
    replier: Replier
    gate: Gate
    """One place for each turn."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Hearing:
    """What is being said since the last Begin, End or Write."""

    listening: Listening
    resampler: Resampler | None = None
    rate: int = RATE
    turn: int | None = None
    """Of which it is, once that has begun."""
    task: asyncio.Task[None] | None = None
    """Recognition, from the first speech on."""

    def drop(self) -> None:
        if self.task is not None:
            self.task.cancel()


@dataclass(eq=False, slots=True)
class _Turn:
    number: int
    wishes: Change
    hearing: _Hearing | None = None
    """Of a turn that is spoken."""
    past: Past = field(default_factory=Past)
    asked: Reply | None = None
    """Of a turn whose client keeps the conversation: what is to be answered."""
    words_only: bool = False
    """Whether it is not answered, so that it stands in nobody's way."""
    task: asyncio.Task[None] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    read: list[str] = field(default_factory=list)
    """What the reader has taken of its reply."""

    def drop(self) -> None:
        for owner in (self.hearing, self.task):
            if isinstance(owner, _Hearing):
                owner.drop()
            elif owner is not None:
                owner.cancel()


class Conversation:
    def __init__(self, parts: Parts, wishes: Change, held: Held, tasks: asyncio.TaskGroup) -> None:
        self._parts, self._settings, self._wishes, self._tasks = parts, parts.settings, wishes, tasks
        self._history = held.history
        self.events = Events(self._taken)
        self.events.put(Resumable(held.token, held.resumed))
        self._hearing: _Hearing | None = None
        self._count = 0
        self._turns: dict[int, _Turn] = {}
        """Those whose end the reader has not taken yet."""
        self._results: dict[str, str] = {}
        """Of the last turn's calls, as far as they are there."""

    async def work(self, said: AsyncIterator[Said]) -> None:
        """Until `said` has ended, and all turns after it. Failures are for the reader of the events."""
        try:
            async for item in said:
                await self._take(item)
                await self.events.few()
            self._drop_hearing()
            for turn in list(self._turns.values()):
                await turn.over.wait()
        except GatewayError as exc:
            self.events.end(exc)
        except Exception:
            log.exception("conversation failed")
            self.events.end(GatewayError())
        else:
            self.events.end()

    def leave(self) -> None:
        """The reader has left."""
        self._drop_hearing()
        self._cancel()
        self._turns.clear()
        self.events.leave()

    # Private: what is said

    async def _take(self, item: Said) -> None:
        match item:
            case Audio():
                await self._listen(item)
            case Begin(interrupts):
                self._drop_hearing()
                if interrupts:
                    self._cancel()
            case End(reply):
                await self._end(reply)
            case Reply(wishes=wishes):
                self._begin(asked=item, wishes=wishes)
            case Write(text):
                self._drop_hearing()
                self._begin(past=Past(text))
            case Cancel():
                self._cancel()
            case Change():
                self._wishes = self._wishes.then(item)
            case ToolResult():
                self._give(item)
            case Opus():
                raise EngineBroke("the cascade hears PCM, not Opus")

    async def _listen(self, audio: Audio) -> None:
        hearing = self._heard_now()
        if audio.sample_rate != hearing.rate:
            hearing.rate = audio.sample_rate
            hearing.resampler = None if audio.sample_rate == RATE else Resampler(audio.sample_rate, RATE)
        await self._feed(hearing, audio.pcm if hearing.resampler is None else hearing.resampler.feed(audio.pcm))

    async def _feed(self, hearing: _Hearing, pcm: bytes) -> None:
        for at in range(0, len(pcm), _SLICE):
            await hearing.listening.feed(pcm[at : at + _SLICE])
            self._recognise(hearing)

    async def _end(self, reply: bool) -> None:
        hearing, self._hearing = self._heard_now(), None
        if hearing.resampler is not None:
            await self._feed(hearing, hearing.resampler.feed(b"", last=True))
        await hearing.listening.end()
        self._recognise(hearing)
        self._begin(hearing=hearing, words_only=not reply)

    def _recognise(self, hearing: _Hearing) -> None:
        if hearing.task is None and hearing.listening.begun:
            hearing.task = self._tasks.create_task(hearing.listening.run())

    def _heard_now(self) -> _Hearing:
        if self._hearing is None:
            self._hearing = self._new_hearing(self._wishes.language or "")
        return self._hearing

    def _new_hearing(self, language: str) -> _Hearing:
        def heard(text: str) -> None:
            one = found()
            turn = self._count + 1 if one is None or one.turn is None else one.turn
            self.events.put(Transcript(text, language, final=False, utterance=turn))

        hearing = _Hearing(
            Listening(
                self._parts.hear(language),
                most_characters=self._settings.text_max_chars,
                heard=heard,
            )
        )
        found = weakref.ref(hearing)  # else each would hold the other, with all sound, until garbage is collected
        return hearing

    def _drop_hearing(self) -> None:
        if self._hearing is not None:
            self._hearing.drop()
            self._hearing = None

    def _give(self, result: ToolResult) -> None:
        """The last one that is owed is a turn."""
        busy = any(not turn.over.is_set() for turn in self._turns.values())
        owed = set() if busy else {call.id for call in self._history.owed()}
        if result.id not in owed:
            log.debug("a result that nobody waits for")
            return
        self._results[result.id] = result.output[: self._settings.text_max_chars]
        if owed <= self._results.keys():
            self._begin(past=Past(results=self._results))

    # Private: turns

    def _begin(
        self,
        hearing: _Hearing | None = None,
        past: Past | None = None,
        asked: Reply | None = None,
        wishes: Change = Change(),
        words_only: bool = False,
    ) -> None:
        self._count += 1
        self._results = {}
        running = [turn for turn in self._turns.values() if not (turn.over.is_set() or turn.words_only)]
        turn = _Turn(self._count, self._wishes.then(wishes), hearing, past or Past(), asked, words_only)
        self._turns[self._count] = turn
        if hearing is not None:
            hearing.turn = self._count
        if len(running) < MOST_WAITING:
            turn.task = self._tasks.create_task(self._run(turn, running))
        else:
            turn.drop()
            self._finish(turn, Phase.FAILED, EngineBusy(f"{len(running)} turns of this conversation wait already"))

    async def _run(self, turn: _Turn, before: list[_Turn]) -> None:
        """A turn, from its End to its last audio."""
        try:
            if turn.words_only:
                await self._understand(turn)
                self._finish(turn, Phase.DONE)
                return
            await self._follow(turn, before)
            async with self._parts.gate.enter(lambda place, seconds: self._queued(turn, place, seconds)):
                self._say(turn, Turn(turn.number, Phase.WORKING))
                await self._understand(turn)
                await self._reply(turn)
        except GatewayError as exc:
            if isinstance(exc, BadRequest):  # nobody takes these words; with them no later turn could be answered
                self._history.forget(turn.past)
            self._log(exc)
            self._finish(turn, Phase.FAILED, exc)
        except Exception:
            log.exception("turn failed")
            self._finish(turn, Phase.FAILED, GatewayError())
        else:
            self._finish(turn, Phase.DONE)

    async def _follow(self, turn: _Turn, before: list[_Turn]) -> None:
        """Waits for the turns that this conversation has begun before it."""
        for one in before:
            if not one.over.is_set():
                self._queued(turn, sum(not other.over.is_set() for other in before))
                await one.over.wait()

    async def _understand(self, turn: _Turn) -> None:
        """What was said, or written. Raises BadRequest where there is nothing in it."""
        if turn.hearing is not None:
            if turn.hearing.task is not None:
                await turn.hearing.task
            text = turn.hearing.listening.text()
            if not text:
                raise BadRequest("no words were understood in what was said", code="nothing_understood")
            turn.past.question = text
            self._say(turn, Transcript(text, turn.wishes.language or "", utterance=turn.number))
        elif len(turn.past.question) > self._settings.text_max_chars:
            most = self._settings.text_max_chars
            text = f"the text has {len(turn.past.question)} characters; the limit is {most}"
            raise BadRequest(text, code="text_too_long")
        elif turn.asked is None and not turn.past.results and not turn.past.question.strip():
            raise BadRequest("there is nothing in the text", code="nothing_understood")

    async def _reply(self, turn: _Turn) -> None:
        wishes, past, script, calls = turn.wishes, turn.past, Script(), list[Call]()
        asked = Asked(
            self._messages(turn),
            wishes.persona or self._settings.persona,
            wishes.language or "",
            wishes.tools or (),
            wishes.tool_choice or "",
        )
        async with task_group(failure=0) as tasks:
            if wishes.speech is not False:
                tasks.create_task(self._speak(turn, script))
            async with self._parts.replier.reply(asked) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Call):
                        calls.append(piece)
                    else:
                        await self._write(turn, piece)
                        script.feed(piece)
            script.end()
        if not past.reply and not calls:
            raise EngineBroke("the reply was empty")
        past.calls = tuple(calls)
        for call in calls:
            self._say(turn, ToolCall(turn.number, call.id, call.name, call.arguments))

    def _messages(self, turn: _Turn) -> tuple[Message, ...]:
        if turn.asked is not None:
            return latest(turn.asked.messages, self._settings.converse_history)
        if turn.past.results and self._history.rounds >= MOST_ROUNDS:
            raise EngineError(f"the reply has asked for tools {MOST_ROUNDS} times in a row", code="too_many_tools")
        self._history.add(turn.past)
        return self._history.messages()

    async def _write(self, turn: _Turn, text: str) -> None:
        await self.events.room()
        self._say(turn, ReplyText(turn.number, text))
        turn.past.reply += text
        if len(turn.past.reply) > self._settings.text_max_chars:
            most = self._settings.text_max_chars
            raise EngineError(f"the reply has more than {most} characters", code="reply_too_long")

    async def _speak(self, turn: _Turn, script: Script) -> None:
        wishes, text = turn.wishes, ""
        voice = wishes.voice or Preset(self._settings.default_voice)
        wish = Speak("", voice, _code(wishes.language or ""), wishes.speed or 1.0)
        async with narrate(script, self._parts.speak, wish) as events:
            async for event in events:
                if isinstance(event, SentenceBegin):
                    text = event.text
                elif isinstance(event, Audio):
                    await self.events.room()
                    self._say(turn, ReplyAudio(turn.number, event, text))
                    text = ""

    def _log(self, exc: GatewayError) -> None:
        """For the operator: what is the engines' doing. Words of others may hold what the user said."""
        if exc.status >= 500:
            reason = {} if exc.quotes else {"reason": str(exc)}
            log.warning("turn failed", code=exc.code, **reason)

    def _queued(self, turn: _Turn, place: int, seconds: float = 0.0) -> None:
        self._say(turn, Turn(turn.number, Phase.QUEUED, place, seconds))

    def _say(self, turn: _Turn, event: Conversed) -> None:
        if not turn.over.is_set():
            self.events.put(event)

    def _finish(self, turn: _Turn, phase: Phase, error: GatewayError | None = None) -> None:
        if turn.over.is_set():
            return
        turn.over.set()
        if error is None:
            self.events.put(Turn(turn.number, phase))
        else:
            self.events.put(Turn(turn.number, phase, code=error.code, reason=str(error)))

    def _cancel(self) -> None:
        """Ends all answered turns whose end the reader has not taken, and takes back what was not read of them."""
        for turn in [turn for turn in self._turns.values() if not turn.words_only]:
            self.events.drop(turn.number)
            turn.over.set()
            turn.past.reply, turn.past.calls = "".join(turn.read), ()
            self.events.put(Turn(turn.number, Phase.CANCELLED))
            turn.drop()

    def _taken(self, event: Conversed) -> None:
        """The reader has taken it."""
        if isinstance(event, ReplyText) and event.turn in self._turns:
            self._turns[event.turn].read.append(event.text)
        elif isinstance(event, Turn) and ends(event):
            self._turns.pop(event.number, None)


def _code(language: str) -> str:
    """ISO 639 code of a language as a client wrote it: "中文", "zh-CN", "en"; empty where it is none."""
    code = code_of(language).replace("_", "-").partition("-")[0]
    return code if code.isascii() and code.isalpha() and len(code) in (2, 3) else ""
