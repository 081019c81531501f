"""The items that a Realtime client makes, reads, cuts and deletes."""

import asyncio

from gateway.errors import BadRequest, GatewayError, TooLarge
from gateway.recogniser import Recogniser
from gateway.resample import Resampler
from gateway.segments import RATE, Segment
from gateway.state import State
from gateway.surfaces.openai_realtime_engines import Engine
from gateway.surfaces.openai_realtime_input import Input, unpacked
from gateway.surfaces.openai_realtime_items import Items
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.surfaces.openai_realtime_responses import Responses
from gateway.verbs import Live, Transcribe
from gateway.wire.openai_realtime_fields import Fields, Wrong
from gateway.wire.openai_realtime_items import LONGEST_ID, Item, Kind, read_item
from gateway.wire.openai_realtime_session import Session

MOST_LISTENING = 16
"""Pieces of sound in a client's items that are recognised at a time."""


class Editing:
    """Each method raises Wrong or GatewayError for what cannot be."""

    def __init__(
        self,
        state: State,
        line: Line,
        items: Items,
        engine: Engine,
        heard: Input,
        responses: Responses,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._state, self._line, self._items, self._engine = state, line, items, engine
        self._input, self._responses, self._tasks = heard, responses, tasks
        self._listening = 0

    def create(self, found: Fields, previous: str | None, session: Session) -> None:
        item = self._read(found)
        if item.role != "user" or item.kind is Kind.CALL or previous is not None:
            self._edits()
        before = self._items.add(item, previous)
        shown = item.shown(self._line.dialect)
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._line.emit(kind, previous_item_id=before, item=shown)
        self._listen(item, session)

    def given(self, found: Fields, session: Session) -> Item:
        """What a response is to answer in place of the conversation: an item of it, or one of its own."""
        if found.text("type", LONGEST_ID) == "item_reference":
            return self._items.get(found.needed("id", LONGEST_ID), "reference")
        item = self._read(found)
        self._listen(item, session)
        return item

    def retrieve(self, name: str) -> None:
        item = self._items.get(name, "retrieve")
        self._line.emit("conversation.item.retrieved", item=item.shown(self._line.dialect))

    async def delete(self, name: str) -> None:
        item = self._items.get(name, "delete")
        self._edits()
        self._items.delete(item)
        self._line.emit("conversation.item.deleted", item_id=name)
        await self._responses.go_on()  # its words need not be waited for any more

    async def truncate(self, name: str, index: int, milliseconds: int) -> None:
        """History keeps the words that were heard by then. A reply that still runs ends."""
        item = self._items.get(name, "truncate")
        self._edits()
        timeline = self._items.timelines.get(name)
        if timeline is None or index >= len(item.content):
            raise Wrong("Only the sound of an assistant's message can be truncated.", "invalid_value", "item_id")
        await self._responses.cancel_item(item)
        there = round(timeline.seconds * 1000)
        if milliseconds > there + 1:
            message = f"Audio content of {there}ms is already shorter than {milliseconds}ms."
            raise Wrong(message, "invalid_value", "audio_end_ms")
        content = item.content[index]
        content.text = timeline.heard(content.text or "", milliseconds / 1000)
        timeline.seconds, timeline.letters = milliseconds / 1000, len(content.text)
        item.seconds, item.status = timeline.seconds, "incomplete"
        self._line.emit("conversation.item.truncated", item_id=name, content_index=index, audio_end_ms=milliseconds)

    # Private

    def _edits(self) -> None:
        if not self._engine.edits:
            message = "the engine of this gateway remembers the conversation itself: it cannot be edited"
            raise BadRequest(message, code="engine_unsupported")

    def _read(self, found: Fields) -> Item:
        item = read_item(found, new_id("item"), self._state["settings"].text_max_chars)
        if not item.understood and self._listening >= MOST_LISTENING:
            raise TooLarge(f"{self._listening} items are being recognised; wait for one", code="too_far_ahead")
        return item

    def _listen(self, item: Item, session: Session) -> None:
        """Finds out what is said in it."""
        for index, content in enumerate(item.content):
            if content.text is None:
                pcm, content.pcm = unpacked(content.pcm, session.input), b""
                item.seconds += len(pcm) / 2 / session.input.rate
                self._listening += 1
                self._tasks.create_task(self._recognise(item, index, pcm, session))

    async def _recognise(self, item: Item, index: int, pcm: bytes, session: Session) -> None:
        language = "" if session.transcription is None else session.transcription.language
        try:
            item.content[index].text = await _words(self._state, pcm, session.input.rate, language)
        except GatewayError as exc:
            self._input.tell_failure(item, index, exc)
        else:
            self._input.tell(item, index)
        finally:
            self._listening -= 1
        await self._responses.go_on()


async def _words(state: State, pcm: bytes, rate: int, language: str) -> str:
    """What is said in a recording. Raises what recognition raises."""
    heard = await asyncio.to_thread(Resampler(rate, RATE).feed, pcm[: len(pcm) & ~1], True)
    segment = Segment(0, len(heard) / 2 / RATE + 1)
    segment.add(heard)
    segment.close()
    job = Transcribe(Live(segment, RATE), language)
    return (await Recogniser(state["transcribe"], state["scratch"]).whole(segment, job)).text
