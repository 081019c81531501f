"""The ways in which OpenAI's clients are answered who gave a recording: JSON, text, subtitles, events.

JSON is one answer, which begins with blanks where it takes long; all others leave as they are made.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from gateway import stream, timing
from gateway.deltas import Appended
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.passages import Passage
from gateway.wire import openai_audio, openai_errors, subtitles
from gateway.wire import openai_transcription as wire
from gateway.wire.openai_transcription_form import Asked, Format

_TIMESTAMPS = b"x-voxgate-timestamps"
_TEXT = b"text/plain; charset=utf-8"
_VTT = b"text/vtt; charset=utf-8"


class Reply(Protocol):
    """How a client is answered."""

    def waiting(self, pulse: float) -> AbstractAsyncContextManager[None]:
        """Scope of the work, in which its client may be kept from leaving."""
        ...

    async def take(self, passage: Passage) -> None: ...

    async def failed(self, exc: GatewayError) -> None: ...

    async def end(self, seconds: float) -> None:
        """seconds: of audio."""
        ...


def reply_for(asked: Asked, translate: bool, http: Exchange, reader: stream.Reader) -> Reply:
    if asked.stream and asked.format not in (Format.SRT, Format.VTT):
        return _Events(asked, http, reader)
    if asked.format is Format.TEXT:
        return _Text(http, reader)
    if asked.format in (Format.SRT, Format.VTT):
        return _Subtitles(asked.format, http, reader)
    return _Json(asked, translate, http)


# Private


class _Json:
    def __init__(self, asked: Asked, translate: bool, http: Exchange) -> None:
        self._asked, self._translate, self._http = asked, translate, http
        self._page, self._text = Appended(), ""
        self._languages: list[str] = []
        self._segments: list[wire.Segment] = []

    def waiting(self, pulse: float) -> AbstractAsyncContextManager[None]:
        return self._http.pulse(pulse)

    async def take(self, passage: Passage) -> None:
        self._text += _text(self._page, passage)
        self._languages += [one.language for one in passage.said if one.language not in ("", *self._languages)]
        if self._asked.timed:
            self._segments += await _segments(passage)

    async def failed(self, exc: GatewayError) -> None:
        pass

    async def end(self, seconds: float) -> None:
        headers = [(_TIMESTAMPS, wire.source(self._segments).encode())] if self._asked.timed else []
        await self._http.answer(200, await asyncio.to_thread(self._body, seconds), headers=headers)

    # Private

    def _body(self, seconds: float) -> bytes:
        if self._asked.format is Format.DIARIZED:
            return wire.diarized(self._text, seconds, self._segments)
        if self._asked.format is Format.JSON:
            return wire.result(self._text, seconds, self._languages)
        heard = next(iter(self._languages), self._asked.language)
        task, language = ("translate", "en") if self._translate else ("transcribe", heard)
        return wire.verbose(self._asked, task, self._text, seconds, language, self._segments)


class _Text:
    def __init__(self, http: Exchange, reader: stream.Reader) -> None:
        self._http, self._reader = http, reader
        self._page = Appended()

    def waiting(self, pulse: float) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def take(self, passage: Passage) -> None:
        await self._write(_text(self._page, passage))

    async def failed(self, exc: GatewayError) -> None:
        pass

    async def end(self, seconds: float) -> None:
        await self._write("\n")
        await self._reader.end()

    # Private

    async def _write(self, text: str) -> None:
        if not self._http.started:
            await self._reader.start(200, _TEXT)
        if text:
            await self._reader.write(text.encode())


class _Subtitles:
    def __init__(self, kind: Format, http: Exchange, reader: stream.Reader) -> None:
        self._vtt, self._http, self._reader = kind is Format.VTT, http, reader
        self._number = 0

    def waiting(self, pulse: float) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def take(self, passage: Passage) -> None:
        await self._write(*await asyncio.to_thread(self._cues, passage))

    async def failed(self, exc: GatewayError) -> None:
        pass

    async def end(self, seconds: float) -> None:
        await self._write("", "engine")
        await self._reader.end()

    # Private

    def _cues(self, passage: Passage) -> tuple[str, str]:
        """The text, and whose its times are."""
        found = timing.sentences(passage)
        words = [[subtitles.Word(word.shown, word.start, word.end) for word in one.words] for one in found]
        cues = subtitles.cues(words, passage.piece.end)
        first, self._number = self._number + 1, self._number + len(cues)
        written = [subtitles.vtt(cue) if self._vtt else subtitles.srt(at, cue) for at, cue in enumerate(cues, first)]
        return "".join(written), "engine" if all(one.measured for one in found) else "estimated"

    async def _write(self, text: str, times: str) -> None:
        if not self._http.started:
            await self._reader.start(200, _VTT if self._vtt else _TEXT, [(_TIMESTAMPS, times.encode())])
            text = subtitles.VTT_HEAD * self._vtt + text
        if text:
            await self._reader.write(text.encode())


class _Events:
    """What fails after the first one is an event too, and then the transfer is broken off."""

    def __init__(self, asked: Asked, http: Exchange, reader: stream.Reader) -> None:
        self._asked, self._http, self._reader = asked, http, reader
        self._page, self._text, self._number = Appended(), "", 0

    def waiting(self, pulse: float) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def take(self, passage: Passage) -> None:
        if text := _text(self._page, passage):
            self._text += text
            await self._write(wire.delta(text))
        if self._asked.format is Format.DIARIZED:
            for one in await _segments(passage):
                await self._write(wire.segment(self._number, one))
                self._number += 1

    async def failed(self, exc: GatewayError) -> None:
        if self._http.started:
            await self._write(openai_errors.event(exc.status, exc.code, str(exc), exc.param))

    async def end(self, seconds: float) -> None:
        await self._write(wire.done(self._text, seconds))
        await self._reader.end()

    # Private

    async def _write(self, event: bytes) -> None:
        if not self._http.started:
            await self._reader.start(200, openai_audio.EVENT_STREAM, [(b"cache-control", b"no-cache")])
        await self._reader.write(event)


def _text(page: Appended, passage: Passage) -> str:
    """What follows what is there already."""
    return "".join(page.final(one.text.strip()) for one in passage.said)


async def _segments(passage: Passage) -> list[wire.Segment]:
    sentences = await asyncio.to_thread(timing.sentences, passage)
    return [
        wire.Segment(
            one.text,
            one.start,
            one.end,
            [(word.word, word.start, word.end) for word in one.words],
            one.measured,
            passage.piece.start,
        )
        for one in sentences
    ]
