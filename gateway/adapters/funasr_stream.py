"""One stream of audio to an engine that speaks FunASR's WebSocket protocol, ours or upstream's.

How upstream's servers differ from ours, and among themselves:

1. They do not resample, or 8 kHz only; so they are sent 16 kHz.
2. `is_final` ends nothing: the Python server sets it on every whole utterance, the C++ server for files never.
3. There is an end ack from 1.4.0 of the Python server on. Without one, the first answer to the end of the audio that is
   whole ends the stream: it is known by its `wav_name`, which the end changes. Where even that does not come, some
   seconds of silence decide.
4. Up to 1.3, the Python server looks at the end only when audio comes after it.
5. The C++ servers want hotwords as JSON; to the Python server they are words with blanks between them.
6. The C++ server's last answer may have no `mode`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineTimeout, GatewayError
from gateway.events import Transcript, Word
from gateway.wire import funasr_2pass as wire

_CLOSE_SECONDS = 1.0
_FIRST_SILENCE, _SILENCE = 10.0, 3.0
"""Seconds after the end of the audio in which an engine without end acks says nothing, or nothing more: it is done."""
_AFTER_END = bytes(1920)
"""See 4."""
_LAST = "last"
"""See 3."""

Pieces = AsyncIterator[bytes]
"""Mono s16le, whole samples."""


@dataclass(frozen=True, slots=True)
class Server:
    """What an engine's handshake says of it."""

    resamples: bool
    acks: bool
    """It ends every stream with an ack."""
    python: bool
    """It is upstream's in Python, of whatever version."""


class Stream:
    """One stream of audio over a connection of its own: what goes out, and what comes back."""

    def __init__(self, socket: ClientConnection, server: Server, idle: float, *, whole: bool) -> None:
        """idle: seconds of silence that are too many; whole: whether the audio is all of a recording."""
        self._socket, self._server, self._idle, self._whole = socket, server, idle, whole
        self._spoken = self._heard_since = False
        """Whether the end of the audio has been sent, and whether an answer has come after it."""
        self._watch: asyncio.Timeout | None = None
        self.done = False

    def check(self, asked: wire.Config) -> None:
        """Raises BadRequest for what the engine cannot take."""
        if asked.rate != wire.RATE and not self._server.resamples:
            raise BadRequest(
                f"this recognition engine takes live audio of {wire.RATE} Hz only, not {asked.rate}",
                code="rate_unsupported",
            )

    def config(self, asked: wire.Config) -> str:
        """The first frame, as this engine wants it."""
        return wire.config(asked, plain_hotwords=self._server.python)

    async def send(self, frame: str | bytes) -> None:
        """Raises EngineTimeout. A closed connection is for the reader to explain."""
        try:
            async with asyncio.timeout(self._idle):
                with suppress(ConnectionClosed):
                    await self._socket.send(frame)
        except TimeoutError:
            raise EngineTimeout(f"the engine has taken no audio for {self._idle:g} s") from None

    async def speak(self, pieces: Pieces, packet: int) -> None:
        """Everything that arrives, in pieces of `packet` bytes; then the end."""
        rest = bytearray()
        async for piece in pieces:
            rest += piece
            while len(rest) >= packet:
                await self.send(bytes(rest[:packet]))
                del rest[:packet]
        if rest:
            await self.send(bytes(rest))
        self._spoken = True
        await self.send(wire.end(name="" if self._server.acks else _LAST))
        if self._server.python:
            await self.send(_AFTER_END)
        if self._watch is not None:
            self._watch.reschedule(asyncio.get_running_loop().time() + (self._patience or 0))

    async def transcripts(self) -> AsyncGenerator[Transcript]:
        """Raises BadRequest, EngineBroke, EngineBusy, EngineTimeout."""
        utterance, pending, last = 0, "", False
        while not last and (answer := await self._answer()) is not None:
            last = self._is_last(answer)
            if answer.whole:
                if answer.text or pending:
                    yield _whole(answer, utterance, timed=self._whole and not self._server.python)
                    utterance, pending = utterance + 1, ""
            elif answer.text:
                pending += answer.text
                yield Transcript(pending, "", final=False, utterance=utterance)
        if pending:  # no second pass came for it
            yield Transcript(pending, "", utterance=utterance)
        self.done = True

    # Private

    def _is_last(self, answer: wire.Result) -> bool:
        named = self._spoken and not self._server.acks and answer.name == _LAST
        return named and (answer.final or answer.kind is wire.Kind.OFFLINE)

    async def _answer(self) -> wire.Result | None:
        """The next result; None where there will be none."""
        frame = await self._frame()
        if frame is None:
            return None
        try:
            said = wire.read_engine(frame if isinstance(frame, str) else "")
        except ValueError as exc:
            raise EngineBroke("the engine's answer is not of FunASR's protocol") from exc
        if isinstance(said, wire.Result):
            return said
        if said.error:
            raise await self._failure(said.error)
        if not self._spoken:
            raise EngineBroke("the engine ended the stream before the audio did")
        return None

    async def _frame(self) -> str | bytes | None:
        """The next one; None where the engine has closed after the end, or has been silent long enough for one that
        sends no end acks."""
        try:
            async with asyncio.timeout(self._patience) as self._watch:
                frame = await self._socket.recv()
        except TimeoutError:
            if self._patience == self._idle:
                raise EngineTimeout(f"the engine has said nothing for {self._idle:g} s") from None
            return None
        except ConnectionClosed as exc:
            code = exc.rcvd.code if exc.rcvd else None
            if self._spoken and code in (1000, 1001, 1005) and not self._server.acks:
                return None
            raise _closed(code, "it closed the connection in the middle of a stream") from exc
        finally:
            self._watch = None
        self._heard_since = self._spoken
        return frame

    @property
    def _patience(self) -> float | None:
        """Seconds to wait for the next answer. For ever while audio is sent: a speaker may be silent as long as they
        like, and pings tell whether the engine lives."""
        if not self._spoken:
            return None
        if self._server.acks or (self._whole and not self._heard_since):
            return self._idle
        return _SILENCE if self._heard_since else _FIRST_SILENCE

    async def _failure(self, text: str) -> GatewayError:
        """An error that the engine named; the code that it closes with says which kind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.wait_closed()
        return _closed(self._socket.close_code, text)


# Private


def _whole(answer: wire.Result, utterance: int, *, timed: bool) -> Transcript:
    """timed: whether its words' times are those of the audio: so are those of a whole recording from the C++ server,
    while the Python server's are of the utterance alone."""
    start, end = (None if time is None else time / 1000 for time in (answer.start, answer.end))
    words = tuple(Word(text, begin / 1000, until / 1000) for text, begin, until in answer.words if timed)
    return Transcript(answer.text, "", utterance=utterance, start=start, end=end, words=words)


def _closed(code: int | None, text: str) -> GatewayError:
    """What an engine that closed too early means. Its words about a caller's mistake are the caller's to read."""
    if code == wire.UNREADABLE:
        return BadRequest(text, code="engine_refused", quotes=True)
    kind = EngineBusy if code == wire.TOO_SLOW else EngineBroke
    return kind(f"the engine: {text}", quotes=True)
