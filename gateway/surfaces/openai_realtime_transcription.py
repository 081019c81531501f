"""A transcription session of Realtime: what its client says, in words, and nothing else.

Each turn, found by VAD or committed by hand, is an item; its words come as deltas while it is said, and whole at its
end. What changes how it is recognised (format, language, turn detection) changes it from the next sound on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway import utterances
from gateway.deltas import Appended
from gateway.errors import BadRequest, GatewayError
from gateway.recogniser import joined
from gateway.state import State
from gateway.surfaces.openai_realtime_input import unpacked
from gateway.surfaces.openai_realtime_items import Items
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.surfaces.openai_realtime_words import commit_item, tell_delta, tell_failure, tell_words
from gateway.tasks import task_group
from gateway.utterances import Utterances
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_items import Item
from gateway.wire.openai_realtime_session import Session, Transcription

LONGEST = 60.0
"""Seconds of sound that are recognised at a time."""


@dataclass(slots=True)
class _Saying:
    """What becomes one item: one utterance, or all that is said until a commit by hand."""

    id: str = field(default_factory=lambda: new_id("item"))
    began: float = 0.0
    """Seconds of the connection's audio."""
    words: Appended = field(default_factory=Appended)
    texts: dict[int, str | None] = field(default_factory=dict)
    """Of its utterances; None where they are not known yet."""
    error: GatewayError | None = None
    item: Item | None = None
    """Once it is one."""


class Listening:
    """What is said in one way: Utterances, and the items that come of them."""

    def __init__(self, line: Line, items: Items, heard: Utterances, before: float, manual: bool) -> None:
        """before: seconds of the connection's audio before its first sample."""
        self._line, self._items, self.heard, self._before, self._manual = line, items, heard, before, manual
        self._sayings: dict[int, _Saying] = {}
        """By the number of the utterance."""
        self._current = _Saying(began=before)
        """By hand, what is committed next."""
        self._first = 0
        """The number of its first utterance."""

    async def run(self) -> None:
        """Until all that was said is told."""
        async with self.heard.at_work():
            async for event in self.heard.events():
                await self._line.room()
                self._tell(event)

    async def commit(self, now: float) -> None:
        """now: seconds of the connection's audio. Raises Wrong."""
        if not await self.heard.commit():
            message = "Error committing input audio buffer: the buffer is empty."
            raise Wrong(message, "input_audio_buffer_commit_empty")
        if self._manual:
            saying, self._current = self._current, _Saying(began=now)
            for number in range(self._first, self.heard.begun):
                if number not in saying.texts:
                    self._belongs(number, saying)
            self._first = self.heard.begun
            self._commit(saying, now)
            self._finish(saying)

    def clear(self, now: float) -> None:
        self.heard.clear()
        self._current, self._first = _Saying(began=now), self.heard.begun

    # Private

    def _tell(self, event: utterances.Heard) -> None:
        match event:
            case utterances.Began(number, at):
                self._began(number, self._before + at)
            case utterances.Partial(number, text) if number in self._sayings:
                saying = self._sayings[number]
                tell_delta(self._line, saying.id, saying.words.partial(text))
            case utterances.Ended(number, at) if not self._manual and number in self._sayings:
                saying, end = self._sayings[number], self._before + at
                self._line.emit("input_audio_buffer.speech_stopped", audio_end_ms=round(end * 1000), item_id=saying.id)
                self._commit(saying, end)
            case utterances.Final(number, transcript) if number in self._sayings:
                self._known(number, transcript.text)
            case utterances.Failed(number, error) if number in self._sayings:
                self._sayings[number].error = error
                self._known(number, "")

    def _began(self, number: int, at: float) -> None:
        if self._manual:
            if number >= self._first:
                self._belongs(number, self._current)
            return
        saying = _Saying(began=at)
        self._belongs(number, saying)
        self._line.emit("input_audio_buffer.speech_started", audio_start_ms=round(at * 1000), item_id=saying.id)

    def _belongs(self, number: int, saying: _Saying) -> None:
        self._sayings[number] = saying
        saying.texts.setdefault(number, None)

    def _commit(self, saying: _Saying, end: float) -> None:
        saying.item = commit_item(self._line, self._items, saying.id, end - saying.began)

    def _known(self, number: int, text: str) -> None:
        saying = self._sayings.pop(number)
        saying.texts[number] = text
        tell_delta(self._line, saying.id, saying.words.final(text))
        self._finish(saying)

    def _finish(self, saying: _Saying) -> None:
        texts = list(saying.texts.values())
        if saying.item is None or None in texts:
            return
        if saying.error is not None:
            tell_failure(self._line, saying.item, 0, saying.error)
        else:
            saying.item.content[0].text = joined([text or "" for text in texts])
            tell_words(self._line, saying.item, 0)


class Transcribing:
    """The session; as openai_realtime_conversation.py Conversation."""

    def __init__(self, state: State, line: Line, session: Session) -> None:
        self._state, self._line, self.session = state, line, session
        self._items = Items()
        self._listening: Listening | None = None
        self._heard = 0.0
        """Seconds of the connection's audio."""
        self._tasks: asyncio.TaskGroup
        self._last: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Transcribing"]:
        """Scope of all that runs for it."""
        try:
            async with task_group(failure=0) as self._tasks:
                yield self
                if self._last is not None:
                    self._last.cancel()
        finally:
            del self._tasks

    @property
    def fresh(self) -> bool:
        """Whether nothing was said yet."""
        return not self._heard

    async def update(self, session: Session) -> None:
        if session != self.session:
            await self._end()
        self.session = session

    async def take(self, said: wire.Said) -> None:
        """Raises Wrong, GatewayError."""
        match said:
            case wire.Append(audio):
                await self._append(audio)
            case wire.Commit():
                await self._listened().commit(self._heard)
            case wire.Clear():
                if self._listening is not None:
                    self._listening.clear(self._heard)
                self._line.emit("input_audio_buffer.cleared")
            case wire.Retrieve(name):
                self._line.emit(
                    "conversation.item.retrieved", item=self._items.get(name, "retrieve").shown(self._line.dialect)
                )
            case wire.Delete(name):
                self._items.delete(self._items.get(name, "delete"))
                self._line.emit("conversation.item.deleted", item_id=name)
            case wire.ClearOutput():
                pass
            case _:
                raise BadRequest("a transcription session has no responses", code="not_in_transcription_session")

    # Private

    async def _append(self, audio: bytes) -> None:
        if not audio:
            return
        form = self.session.input
        pcm = unpacked(audio, form)
        listening = self._listened()
        self._heard += len(pcm) / 2 / form.rate
        await listening.heard.feed(pcm)

    def _listened(self) -> Listening:
        if self._listening is None:
            detection, wanted = self.session.detection, self.session.transcription or Transcription()
            heard = Utterances(
                self._state["transcribe"],
                self._state["settings"],
                self._state["scratch"],
                sample_rate=self.session.input.rate,
                language=wanted.language,
                hotwords=wanted.keywords,
                threshold=None if detection is None or detection.semantic else detection.threshold,
                silence=None if detection is None else detection.silence / 1000,
                padding=None if detection is None else detection.padding / 1000,
                manual=detection is None,
                longest=LONGEST,
            )
            self._listening = Listening(self._line, self._items, heard, self._heard, detection is None)
            self._last = self._tasks.create_task(self._listening.run())
        return self._listening

    async def _end(self) -> None:
        """What is said from now on is heard in another way; what was said is heard to its end, before that begins."""
        if self._listening is not None and self._last is not None:
            await self._listening.heard.end()
            self._listening = None
            await asyncio.wait([self._last])
