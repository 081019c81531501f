"""One response of a Realtime conversation, from its creation to its end, as its client is told it.

In this order: response.created, then for each item output_item.added, conversation.item.added, content_part.added, its
deltas, their ends, content_part.done, conversation.item.done, output_item.done; and response.done. At most one message,
before the calls.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway import tokens
from gateway.errors import GatewayError
from gateway.events import Audio, ToolCall
from gateway.surfaces.openai_realtime_items import Items, counted
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.surfaces.openai_realtime_message import Saying
from gateway.verbs import Preset, Reference
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_beta import Dialect, modalities
from gateway.wire.openai_realtime_items import Item, Kind, Part
from gateway.wire.openai_realtime_session import Session


class Response:
    def __init__(
        self,
        line: Line,
        items: Items,
        session: Session,
        voice: Preset | Reference,
        *,
        conversation: str,
        metadata: dict[str, Any] | None = None,
        kept: bool = True,
        given: Sequence[Item] | None = None,
    ) -> None:
        """session: with this response's own wishes. conversation: its id. kept: whether it becomes part of it. given:
        what it answers, in place of the conversation."""
        self._line, self._items, self.session, self.voice = line, items, session, voice
        self._conversation, self._metadata, self.kept, self.given = conversation, metadata, kept, given
        self.id = new_id("resp")
        self.turn: int | None = None
        """Of the dialogue, once it was asked for."""
        self.asked: Sequence[Item] = ()
        """What it answers, from then on."""
        self.error: GatewayError | None = None
        self.over = False
        self._output: list[Item] = []
        self._message: Saying | None = None
        self._usage = wire.usage(0, 0, 0, 0)
        self.sounds_until = 0.0
        """Loop time at which its sound ends, if it is played as it comes."""

    def begin(self) -> None:
        self._line.emit("response.created", response=self._shown("in_progress", None))

    def write(self, text: str) -> None:
        """The next piece of the reply's text."""
        self._opened().write(text)

    def sound(self, audio: Audio, text: str) -> None:
        """The next piece of its sound; text: as events.ReplyAudio has it."""
        loop = asyncio.get_running_loop()
        self.sounds_until = max(self.sounds_until, loop.time()) + len(audio.pcm) / 2 / audio.sample_rate
        self._opened().sound(audio, text)

    def call(self, call: ToolCall) -> None:
        """A function that is to be called."""
        self._close_message("completed", whole=True)
        known = any(item.call_id == call.id for item in (*self._items, *self._output))
        name = new_id("call") if known or not call.id else call.id  # some chat models begin anew with each reply
        item = Item(new_id("item"), Kind.CALL, status="in_progress", call_id=name, name=call.name)
        about = {"item_id": item.id, "output_index": len(self._output), "call_id": name}
        self._add(item)
        item.arguments = call.arguments
        self._line.emit("response.function_call_arguments.delta", response_id=self.id, **about, delta=call.arguments)
        done = {**about, "name": call.name, "arguments": call.arguments}
        self._line.emit("response.function_call_arguments.done", response_id=self.id, **done)
        self._done(item, "completed")

    def take_back(self) -> None:
        """It is interrupted: what was not sent of it was never said."""
        seconds, letters = self._line.take_back(self.id)
        if self._message is not None:
            self._message.shorten(seconds, letters)

    def end(self, status: str, reason: str = "") -> None:
        """status: completed, cancelled, incomplete or failed; reason: of those between."""
        if self.over:
            return
        self.over = True
        self._close_message("completed" if status == "completed" else "incomplete", whole=status == "completed")
        details: dict[str, Any] | None = None
        if self.error is not None and status == "failed":
            failure = wire.failure(self.error.status, self.error.code, str(self.error))
            details = {"type": "failed", "error": failure}
        elif status != "completed":
            details = {"type": status, "reason": reason or "client_cancelled"}
        self._usage = self._counted()
        self._line.emit("response.done", response=self._shown(status, details))

    @property
    def tokens(self) -> int:
        """Of what it has said so far."""
        text, sound = (0, 0) if self._message is None else self._message.tokens
        return text + sound

    # Private

    def _opened(self) -> Saying:
        if self._message is None:
            part = Part.OUTPUT_AUDIO if self.session.speech else Part.OUTPUT_TEXT
            item = Item(new_id("item"), role="assistant", status="in_progress")
            message = self._message = Saying(self._line, self.id, item, len(self._output), part, self.session)
            if self.kept:
                self._items.timelines[item.id] = message.timeline
            self._add(item)
            message.begin()
        return self._message

    def _close_message(self, status: str, *, whole: bool) -> None:
        if self._message is not None and self._message.item.status == "in_progress":
            self._message.end(whole=whole)
            self._done(self._message.item, status)

    def _add(self, item: Item) -> None:
        shown = item.shown(self._line.dialect)
        self._line.emit("response.output_item.added", response_id=self.id, output_index=len(self._output), item=shown)
        self._output.append(item)
        if self.kept:
            before = self._items.add(item)
            self._line.emit("conversation.item.added", previous_item_id=before, item=shown)

    def _done(self, item: Item, status: str) -> None:
        item.status = status
        shown = item.shown(self._line.dialect)
        if self.kept:
            self._line.emit("conversation.item.done", previous_item_id=self._items.before(item), item=shown)
        place = self._output.index(item)
        self._line.emit("response.output_item.done", response_id=self.id, output_index=place, item=shown)

    def _counted(self) -> dict[str, Any]:
        text_in, audio_in = counted(self.asked)
        if self.turn is not None:
            text_in += tokens.of_text(self.session.instructions) + sum(map(_tool_tokens, self.session.tools))
        text_out, audio_out = (0, 0) if self._message is None else self._message.tokens
        calls = [item for item in self._output if item.kind is Kind.CALL]
        text_out += sum(tokens.of_text(f"{item.name} {item.arguments}") for item in calls)
        return wire.usage(text_in, audio_in, text_out, audio_out)

    def _shown(self, status: str, details: dict[str, Any] | None) -> dict[str, Any]:
        dialect, session = self._line.dialect, self.session
        said: dict[str, Any] = {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [item.shown(dialect) for item in self._output],
            "conversation_id": self._conversation if self.kept else None,
            "max_output_tokens": session.most_tokens or "inf",
            "metadata": self._metadata,
            "usage": self._usage if self.over else None,
        }
        if dialect is Dialect.BETA:
            return said | {"modalities": modalities(session.speech), "voice": session.voice}
        audio = {"output": {"format": session.output.shown(), "voice": session.voice}}
        return said | {"output_modalities": ["audio"] if session.speech else ["text"], "audio": audio}


def _tool_tokens(tool: dict[str, Any]) -> int:
    return tokens.of_text(repr(tool))
