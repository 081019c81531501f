"""One response of a Realtime conversation, from its creation to its end, as its client is told it.

In this order: response.created, then for each item output_item.added, conversation.item.added, content_part.added, its
deltas, their ends, content_part.done, conversation.item.done, output_item.done; and response.done. At most one message,
before the calls.
"""

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

from gateway import tokens
from gateway.errors import GatewayError
from gateway.events import Audio, ToolCall
from gateway.resample import Resampler
from gateway.surfaces.openai_realtime_items import Items, Timeline, counted
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.verbs import Preset, Reference
from gateway.wire import g711
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_beta import PCM, PCMU, Dialect, modalities
from gateway.wire.openai_realtime_items import Content, Item, Kind, Part
from gateway.wire.openai_realtime_session import Session

_SLICE = 0.5
"""Seconds of sound in one event, at most."""


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
        self._message: _Message | None = None
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

    def _opened(self) -> "_Message":
        if self._message is None:
            part = Part.OUTPUT_AUDIO if self.session.speech else Part.OUTPUT_TEXT
            item = Item(new_id("item"), role="assistant", status="in_progress")
            message = self._message = _Message(self._line, self.id, item, len(self._output), part, self.session)
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


class _Message:
    """What a response says: one item of one content, written or spoken."""

    def __init__(self, line: Line, response: str, item: Item, place: int, part: Part, session: Session) -> None:
        self._line, self._response, self.item, self._part = line, response, item, part
        self._about: dict[str, Any] = {"item_id": item.id, "output_index": place, "content_index": 0}
        self._content = Content(part, "")
        self.timeline = Timeline()
        self._format, self._pack = session.output, _packer(session.output.type)
        self._resampler: Resampler | None = None
        self._waiting = ""
        """Text whose sound has not begun."""
        self._marked: bool | None = None
        """Whether the engine says where each sentence begins to sound; None before any did."""

    @property
    def tokens(self) -> tuple[int, int]:
        return tokens.of_text(self._content.text or ""), tokens.of_spoken(self.timeline.seconds)

    def begin(self) -> None:
        self.item.content.append(self._content)
        kind = {"type": "audio", "transcript": ""} if self._part.spoken else {"type": "text", "text": ""}
        self._line.emit("response.content_part.added", response_id=self._response, **self._about, part=kind)

    def write(self, text: str) -> None:
        if self._part.spoken and self._marked is not False:
            self._waiting += text
        else:
            self._say(text)

    def sound(self, audio: Audio, text: str) -> None:
        if self._marked is None:
            self._marked = bool(text)
        if not self._marked:
            self._say_waiting(len(self._waiting))
        elif text:
            self.timeline.mark()
            at = self._waiting.find(text)
            self._say_waiting(at + len(text) if at >= 0 else min(len(text), len(self._waiting)))
        if self._resampler is None or self._resampler.source != audio.sample_rate:
            self._flush()
            self._resampler = Resampler(audio.sample_rate, self._format.rate)
        self._play(self._resampler.feed(audio.pcm))

    def shorten(self, seconds: float, letters: int) -> None:
        """So much of its end was not sent."""
        self.timeline.seconds -= seconds
        if letters:
            self._content.text = (self._content.text or "")[:-letters]
            self.timeline.letters -= letters
        self._resampler, self._waiting = None, ""

    def end(self, *, whole: bool) -> None:
        """whole: whether all of it was said."""
        if whole:
            self._flush()
            self._say_waiting(len(self._waiting))
        text = self._content.text or ""
        if self._part.spoken:
            self._line.emit("response.output_audio.done", response_id=self._response, **self._about)
            self._emit("response.output_audio_transcript.done", transcript=text)
            part = {"type": "audio", "transcript": text}
        else:
            self._emit("response.output_text.done", text=text)
            part = {"type": "text", "text": text}
        self._emit("response.content_part.done", part=part)
        self.item.seconds = self.timeline.seconds

    # Private

    def _emit(self, type: str, **fields: Any) -> None:  # noqa: A002
        self._line.emit(type, response_id=self._response, **self._about, **fields)

    def _say_waiting(self, letters: int) -> None:
        said, self._waiting = self._waiting[:letters], self._waiting[letters:]
        self._say(said)

    def _say(self, text: str) -> None:
        if not text:
            return
        self._content.text = (self._content.text or "") + text
        self.timeline.letters += len(text)
        kind = "response.output_audio_transcript.delta" if self._part.spoken else "response.output_text.delta"
        self._line.emit_delta(kind, self._response, letters=len(text), **self._about, delta=text)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._play(self._resampler.feed(b"", last=True))

    def _play(self, pcm: bytes) -> None:
        step = 2 * int(_SLICE * self._format.rate)
        for at in range(0, len(pcm), step):
            piece = pcm[at : at + step]
            seconds = len(piece) / 2 / self._format.rate
            self.timeline.seconds += seconds
            packed = base64.b64encode(self._pack(piece)).decode()
            self._line.emit_delta(
                "response.output_audio.delta", self._response, seconds=seconds, **self._about, delta=packed
            )


def _packer(type: str) -> Callable[[bytes], bytes]:  # noqa: A002
    if type == PCM:
        return bytes
    return g711.to_mu_law if type == PCMU else g711.to_a_law


def _tool_tokens(tool: dict[str, Any]) -> int:
    return tokens.of_text(repr(tool))
