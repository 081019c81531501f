"""A conversation session of Realtime: what its client asks for, and what comes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.dialogue import Dialogue, Ended, Out, Speech, Trouble
from gateway.errors import BadRequest
from gateway.events import ReplyAudio, ReplyText, ToolCall, Transcript
from gateway.state import State
from gateway.surfaces.openai import voice_named
from gateway.surfaces.openai_realtime_editing import Editing
from gateway.surfaces.openai_realtime_engines import engine_of
from gateway.surfaces.openai_realtime_input import Input
from gateway.surfaces.openai_realtime_items import Items
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.surfaces.openai_realtime_responses import Responses
from gateway.tasks import task_group
from gateway.verbs import Change, Preset, Reference
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_beta import Dialect, renamed
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_session import Session, updated


class Conversation:
    def __init__(self, state: State, line: Line, session: Session) -> None:
        self._state, self._settings, self._line = state, state["settings"], line
        self.session = session
        self.id = new_id("conv")
        self._voice: Preset | Reference = Preset(self._settings.default_voice)
        wishes = Change(persona="", language="", speech=True, tools=())
        self._dialogue = Dialogue(
            state["converse"], self._settings, state["metrics"], wishes=wishes, interrupted=self._interrupted
        )
        self._engine = engine_of(self._dialogue)
        self._items = Items()
        self._input = Input(line, self._items, self._dialogue, self._engine)
        self._responses = Responses(
            line,
            self._items,
            self._dialogue,
            self._engine,
            self.id,
            self._settings.converse_history,
            self._input.asked,
            self._watch,
        )
        self._idle: asyncio.TimerHandle | None = None
        self._cuts = 0
        """Interruptions."""
        self._tasks: asyncio.TaskGroup

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Conversation"]:
        """Scope of all that runs for it."""
        try:
            async with self._dialogue.at_work(), task_group(failure=0) as self._tasks:
                self._editing = Editing(
                    self._state, self._line, self._items, self._engine, self._input, self._responses, self._tasks
                )
                telling = self._tasks.create_task(self._tell_all())
                await self.update(self.session)
                yield self
                telling.cancel()
        finally:
            self._rest()
            # They have us, and would wait for the garbage collector.
            del self._responses, self._editing, self._tasks

    @property
    def fresh(self) -> bool:
        """Whether nothing was said yet."""
        return not len(self._items) and not self._dialogue.recorded and self._responses.idle

    async def update(self, session: Session) -> None:
        """Raises Wrong, BadRequest; nothing has changed then."""
        voice = await self._named(session.voice)
        how = False if session.detection is None else self._engine.hands_free(session.detection)
        language = "" if session.transcription is None else session.transcription.language
        await self._dialogue.change(Change(language=language))
        await self._dialogue.hands_free(how)
        if session.detection is None:
            self._dialogue.recording = True
        self._input.transcribes = session.transcription is not None
        self.session, self._voice = session, voice
        self._rest()

    async def take(self, said: wire.Said) -> None:
        """Raises Wrong, GatewayError."""
        match said:
            case wire.Append(audio):
                await self._input.append(audio, self.session.input)
            case wire.Commit():
                await self._input.commit()
            case wire.Clear():
                await self._input.clear()
            case wire.Create(found, previous):
                self._editing.create(found, previous, self.session)
            case wire.Retrieve(name):
                self._editing.retrieve(name)
            case wire.Truncate(name, content, milliseconds):
                await self._editing.truncate(name, content, milliseconds)
            case wire.Delete(name):
                await self._editing.delete(name)
            case wire.CreateResponse():
                await self._respond(said)
            case wire.CancelResponse(name):
                await self._responses.cancel(name)

    # Private: responses

    async def _respond(self, asked: wire.CreateResponse) -> None:
        session = updated(self.session, asked.wishes, self._line.dialect)
        same = session.voice == self.session.voice
        voice = self._voice if same else await self._named(session.voice)
        given = None if asked.input is None else [self._editing.given(found, self.session) for found in asked.input]
        self._rest()
        await self._responses.create(session, voice, metadata=asked.metadata, kept=asked.kept, given=given)

    async def _named(self, name: str) -> Preset | Reference:
        """Raises Wrong."""
        try:
            return await voice_named(self._state, name or "default", None)
        except BadRequest as exc:
            wrong = Wrong(str(exc), exc.code, "session.audio.output.voice")
            raise renamed(wrong, "session") if self._line.dialect is Dialect.BETA else wrong from None

    def _interrupted(self) -> None:
        self._cuts += 1
        self._responses.interrupted()

    # Private: what the dialogue tells

    async def _tell_all(self) -> None:
        async for event in self._dialogue.events():
            cuts = self._cuts
            if isinstance(event, ReplyAudio | ReplyText):
                await self._line.room()
            if cuts == self._cuts:  # else it waited, and is not wanted any more
                await self._tell(event)

    async def _tell(self, event: Out) -> None:
        match event:
            case Speech():
                await self._tell_speech(event)
            case Transcript():
                if self._input.heard(event):
                    await self._responses.go_on()
            case ReplyText() | ReplyAudio() | ToolCall():
                await self._responses.told(event)
            case Ended(turn):
                self._input.ended(turn)
                await self._responses.told(event)
                await self._responses.go_on()
            case Trouble(error, turn):
                self._input.failed(turn, error)
                self._responses.failed(turn, error)
                if not turn:
                    self._line.fail(error)
                    self._input.lost()
                await self._responses.go_on()

    async def _tell_speech(self, event: Speech) -> None:
        self._rest()
        if not self._input.speech(event):
            if self.session.detection is not None and self.session.detection.interrupts:
                self._responses.forgive()
        elif self.session.detection is not None and self.session.detection.creates:
            await self._responses.owe(self.session, self._voice, event.turn if self._engine.answers else None)

    # Private: silence

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _watch(self, until: float) -> None:
        """A reply has ended, and sounds until then."""
        idle = self.session.detection and self.session.detection.idle
        if idle:
            loop = asyncio.get_running_loop()
            self._rest()
            self._idle = loop.call_at(max(loop.time(), until) + idle / 1000, self._silent, idle / 1000)

    def _silent(self, seconds: float) -> None:
        if self._dialogue.recording or not self._responses.idle or not self._engine.edits:
            return
        self._input.commit_nothing(seconds)
        self._tasks.create_task(self._answer_silence())

    async def _answer_silence(self) -> None:
        with suppress(Wrong):  # the client was quicker
            await self._responses.create(self.session, self._voice)
