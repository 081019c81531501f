"""Recognition by FunASR: whole recordings over HTTP, live audio over its WebSocket protocol at the same address.

It serves our engine and upstream's servers. Upstream's differ: they do not resample, their `is_final` ends nothing,
and those before 1.4.0 do not say when they are done; then some seconds of silence after the end of the audio decide.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineTimeout,
    EngineUnavailable,
    EngineUnreachable,
    GatewayError,
)
from gateway.events import Transcript
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.verbs import EngineHealth, Live, Transcribe, Transcriber
from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_http import UNSPECIFIED, code_of

_ANSWER_BYTES = 1024 * 1024
_CLOSE_SECONDS = 1.0
_PING_SECONDS = 20.0
_FIRST_SILENCE, _SILENCE = 10.0, 3.0
"""Seconds after the end of the audio in which an engine without end acks says nothing, or nothing more: it is done."""


class FunAsr:
    def __init__(self, url: str, http: Client, settings: Settings, whole: Transcriber) -> None:
        """whole: the same engine, for whole recordings."""
        self.url = url.rstrip("/")
        self._http, self._whole = http, whole
        self._open, self._idle = settings.engine_connect_timeout, settings.engine_idle_timeout

    @asynccontextmanager
    async def session(self, job: Transcribe) -> AsyncIterator[AsyncIterator[Transcript]]:
        if not isinstance(job.audio, Live):
            async with self._whole.session(job) as events:
                yield events
            return
        asked = _config(job, job.audio)
        socket = await self._dial(asked)
        try:
            stream = _Stream(socket, self._idle)
            await stream.send(wire.config(asked))
            async with task_group(failure=-1) as tasks:
                speaking = tasks.create_task(stream.speak(job.audio, wire.packet_bytes(asked)))
                async with aclosing(stream.transcripts()) as events:
                    yield events
                speaking.cancel()  # the reader has left, or has everything
            if stream.done:
                await socket.close()
        finally:
            socket.transport.abort()  # whoever left early leaves at once: the engine sees it, and stops

    async def health(self) -> EngineHealth:
        return await engine_http.health(self._http, self.url)

    # Private

    async def _dial(self, asked: wire.Config) -> ClientConnection:
        """Raises BadRequest, EngineUnreachable, EngineBusy, EngineBroke."""
        parts = urlsplit(self.url)
        address = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}{wire.PATH}"
        try:
            socket = await connect(
                address,
                subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
                compression=None,
                proxy=None,
                open_timeout=self._open,
                ping_interval=_PING_SECONDS,
                ping_timeout=self._idle,
                close_timeout=_CLOSE_SECONDS,
                max_size=_ANSWER_BYTES,
            )
        except InvalidStatus as exc:
            raise _refusal(exc) from exc
        except TimeoutError:
            raise EngineUnreachable(f"the engine does not open a WebSocket within {self._open:g} s") from None
        except OSError as exc:
            raise EngineUnreachable(f"the engine cannot be reached ({type(exc).__name__})") from exc
        except (InvalidHandshake, EOFError) as exc:
            raise EngineUnavailable("the engine closed the connection without an answer") from exc
        if asked.rate != wire.RATE and wire.RESAMPLES not in _features(socket):
            socket.transport.abort()
            raise BadRequest(
                f"this recognition engine takes live audio of {wire.RATE} Hz only, not {asked.rate}",
                code="rate_unsupported",
            )
        return socket


class _Stream:
    """One stream of audio over a connection of its own: what goes out, and what comes back."""

    def __init__(self, socket: ClientConnection, idle: float) -> None:
        self._socket, self._idle = socket, idle
        self._acks = wire.ACKS in _features(socket)
        self._spoken = self._heard_since = False
        """Whether the end of the audio has been sent, and whether an answer has come after it."""
        self._watch: asyncio.Timeout | None = None
        self.done = False

    async def send(self, frame: str | bytes) -> None:
        """Raises EngineTimeout. A closed connection is for the reader to explain."""
        try:
            async with asyncio.timeout(self._idle):
                with suppress(ConnectionClosed):
                    await self._socket.send(frame)
        except TimeoutError:
            raise EngineTimeout(f"the engine has taken no audio for {self._idle:g} s") from None

    async def speak(self, audio: Live, packet: int) -> None:
        """Everything that arrives, in pieces of `packet` bytes; then the end."""
        rest = bytearray()
        async for piece in audio.pieces:
            rest += piece.pcm
            while len(rest) >= packet:
                await self.send(bytes(rest[:packet]))
                del rest[:packet]
        if rest:
            await self.send(bytes(rest))
        self._spoken = True
        await self.send(wire.end())
        if self._watch is not None:
            self._watch.reschedule(asyncio.get_running_loop().time() + (self._patience or 0))

    async def transcripts(self) -> AsyncGenerator[Transcript]:
        """Raises BadRequest, EngineBroke, EngineBusy, EngineTimeout."""
        utterance, pending = 0, ""
        while (answer := await self._answer()) is not None:
            if answer.whole:
                if answer.text or pending:
                    yield _whole(answer, utterance)
                    utterance, pending = utterance + 1, ""
            elif answer.text:
                pending += answer.text
                yield Transcript(pending, "", final=False, utterance=utterance)
        if pending:  # no second pass came for it
            yield Transcript(pending, "", utterance=utterance)
        self.done = True

    # Private

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
            if self._acks:
                raise EngineTimeout(f"the engine has said nothing for {self._idle:g} s") from None
            return None
        except ConnectionClosed as exc:
            code = exc.rcvd.code if exc.rcvd else None
            if self._spoken and code in (1000, 1001, 1005) and not self._acks:
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
        return self._idle if self._acks else _SILENCE if self._heard_since else _FIRST_SILENCE

    async def _failure(self, text: str) -> GatewayError:
        """An error that the engine named; the code that it closes with says which kind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.wait_closed()
        return _closed(self._socket.close_code, text)


def _config(job: Transcribe, audio: Live) -> wire.Config:
    return wire.Config(
        mode=wire.Mode.TWO_PASS if job.partials else wire.Mode.OFFLINE,
        name="live",
        rate=audio.sample_rate,
        hotwords=job.hotwords,
        itn=job.itn,
        language="" if job.language.strip().lower() in UNSPECIFIED else code_of(job.language),
    )


def _whole(answer: wire.Result, utterance: int) -> Transcript:
    start, end = (None if time is None else time / 1000 for time in (answer.start, answer.end))
    return Transcript(answer.text, "", utterance=utterance, start=start, end=end)


def _features(socket: ClientConnection) -> set[str]:
    headers = socket.response.headers if socket.response is not None else None
    return {part.strip() for part in (headers.get(wire.FEATURES, "") if headers is not None else "").split(",")}


def _refusal(exc: InvalidStatus) -> GatewayError:
    """A server that knows no WebSocket answers the handshake with whatever it has at that path."""
    status, headers = exc.response.status_code, exc.response.headers
    if status in (429, 503) or status >= 500:
        return engine_http.refusal(status, bytes(exc.response.body or b""), headers.get("Retry-After", "").encode())
    return BadRequest("this recognition engine takes whole recordings only", code="live_unsupported")


def _closed(code: int | None, text: str) -> GatewayError:
    """What an engine that closed too early means. Its words about a caller's mistake are the caller's to read."""
    if code == wire.UNREADABLE:
        return BadRequest(text, code="engine_refused", quotes=True)
    kind = EngineBusy if code == wire.TOO_SLOW else EngineBroke
    return kind(f"the engine: {text}", quotes=True)


_: type[Transcriber] = FunAsr
