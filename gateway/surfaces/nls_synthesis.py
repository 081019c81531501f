"""Synthesis on NLS sockets: FlowingSpeechSynthesizer, whose text comes in pieces, and SpeechSynthesizer (and its long
form), whose text is whole.

Rule 1: what comes in pieces is spoken in sentences, as soon as each is known to have ended; a text that rests in the
middle of one for REST seconds, while nothing is being spoken, is spoken as far as it goes.
Rule 2: subtitles tell measured times, of the sound that was really sent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gateway.delivery import Delivered, Packed, Wanted, deliver
from gateway.errors import BadRequest
from gateway.narration import Script, SentenceBegin, SentenceEnd, narrate
from gateway.surfaces.nls_socket import Begin, Line
from gateway.surfaces.nls_voices import cast
from gateway.text import printable, sayable, speakable, untagged
from gateway.verbs import Reference, Speak
from gateway.wire import nls
from gateway.wire import nls_tts as wire

REST = 1.0
"""Seconds."""
_RATES = {nls.FLOWING: wire.RATE, nls.SYNTHESIZER: 16000, nls.LONG_SYNTHESIZER: 16000}
"""Hz, where a client names none: FunSpeech's, and Alibaba's."""


class _Flowing:
    def __init__(self, line: Line, start: nls.Message) -> None:
        self._line, self._start = line, start
        self._manner = wire.read_manner(start.payload, _RATES[line.namespace])
        self._script = Script()
        self._sentences = _Sentences(self._script)
        self._stopped = False
        self._begun: SentenceBegin | None = None
        """The one that is being heard."""
        self._heard = 0
        """Sentences."""
        self._rest: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        try:
            session = wire.session(self._line.session_id)
            await _perform(self._line, self._start, self._manner, self._sentences, self._tell, session)
            await self._line.complete("SynthesisCompleted", session)
        finally:
            self._wait(False)

    async def command(self, message: nls.Message) -> None:
        if self._stopped:
            raise BadRequest("Connection already stopped")
        if message.name == "StopSynthesis":
            self._stopped = True
            self._script.end()
            return
        text = nls.text(message.payload, "text")
        if not text:
            raise BadRequest("Missing text in RunSynthesis")
        most = self._line.state["settings"].text_max_chars
        if self._script.waiting + len(text) > most:
            raise BadRequest(f"more than {most} characters wait to be spoken", code="text_too_long")
        self._script.feed(text)
        self._wait(True)

    async def audio(self, data: bytes) -> None:
        raise BadRequest("this task takes no audio")

    # Private

    async def _tell(self, event: Delivered) -> None:
        match event:
            case SentenceBegin():
                self._begun = event
                await self._line.say("SentenceBegin", wire.session(self._line.session_id, event.index))
            case Packed():
                await self._line.play(event.data)
                if self._begun is not None:
                    spoken = wire.subtitles(self._begun.text, self._begun.start, event.until, words=False)
                    await self._line.say("SentenceSynthesis", spoken)
            case SentenceEnd():
                self._begun = None
                self._heard = event.index
                self._wait(True)
                spoken = wire.subtitles(event.text, event.start, event.end, words=self._manner.subtitle)
                await self._line.say("SentenceEnd", spoken)

    def _wait(self, on: bool) -> None:
        """For more text, from now on."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(REST, self._rested) if on else None

    def _rested(self) -> None:
        if self._heard == self._sentences.count:
            self._script.flush()


class _Whole:
    def __init__(self, line: Line, start: nls.Message) -> None:
        self._line, self._start = line, start
        self._manner = wire.read_manner(start.payload, _RATES[line.namespace])
        text = nls.text(start.payload, "text")
        self._text = speakable(untagged(text), line.state["settings"].text_max_chars)

    async def run(self) -> None:
        await _perform(self._line, self._start, self._manner, _Sentences(Script(self._text)), self._tell)
        await self._line.complete("SynthesisCompleted")

    async def command(self, message: nls.Message) -> None:
        raise BadRequest(f"Invalid message name: {message.name}")

    async def audio(self, data: bytes) -> None:
        raise BadRequest("this task takes no audio")

    # Private

    async def _tell(self, event: Delivered) -> None:
        if isinstance(event, Packed):
            await self._line.play(event.data)
        elif isinstance(event, SentenceEnd) and self._manner.subtitle:
            await self._line.say("MetaInfo", wire.subtitles(event.text, event.start, event.end, words=True))


TASKS: dict[str, Begin] = {nls.FLOWING: _Flowing, nls.SYNTHESIZER: _Whole, nls.LONG_SYNTHESIZER: _Whole}
"""By namespace."""


# Private


async def _perform(
    line: Line,
    start: nls.Message,
    manner: wire.Manner,
    sentences: AsyncIterator[str],
    tell: Callable[[Delivered], Awaitable[None]],
    started: dict[str, Any] | None = None,
) -> None:
    """started: payload of SynthesisStarted, where that is said."""
    state = line.state
    voice = await cast(state, manner.voice, nls.text(start.payload, "device_id")[: wire.LONGEST_VOICE])
    if started is not None:
        await line.say("SynthesisStarted", started)
    wish = Speak("", voice, speed=manner.speed, instruction=manner.prompt if isinstance(voice, Reference) else "")
    wanted = Wanted(wire.WRITTEN[manner.format], manner.sample_rate, manner.gain, manner.pitch)
    async with (
        narrate(sentences, state["speak"], wish) as narrated,
        deliver(narrated, state["encoders"], wanted) as events,
    ):
        async for event in events:
            await tell(event)


class _Sentences:
    """Those of a script as they are said: without tags."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.count = 0

    def __aiter__(self) -> "_Sentences":
        return self

    async def __anext__(self) -> str:
        while True:
            text = untagged(printable(await anext(self._script))).strip()
            if sayable(text):
                self.count += 1
                return text
