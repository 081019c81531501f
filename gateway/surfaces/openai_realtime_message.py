"""What one response of Realtime says, as its client is told it: its text, or its sound with the words that it says."""

import base64
from collections.abc import Callable
from typing import Any

from gateway import tokens
from gateway.events import Audio
from gateway.resample import Resampler
from gateway.surfaces.openai_realtime_items import Timeline
from gateway.surfaces.openai_realtime_line import Line
from gateway.wire import g711
from gateway.wire.openai_realtime_beta import PCM, PCMU
from gateway.wire.openai_realtime_items import Content, Item, Part
from gateway.wire.openai_realtime_session import Session

_SLICE = 0.5
"""Seconds of sound in one event, at most."""


class Saying:
    """One item of one content, written or spoken."""

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
