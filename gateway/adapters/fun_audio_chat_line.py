"""One connection to a server of Fun-Audio-Chat's protocol, whichever it is: opened, explained when it is lost, and
what goes through it in pages."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State

from gateway.adapters import http as engine_http
from gateway.errors import EngineBroke, EngineBusy, EngineError, EngineUnavailable, EngineUnreachable, GatewayError
from gateway.events import Audio, Opus
from gateway.resample import Resampler
from gateway.settings import Settings
from gateway.wire import frames, opus
from gateway.wire import fun_audio_chat as wire

CLOSE_SECONDS = 1.0
_PING_SECONDS = 20.0
_GOING, _BUSY = (1001, 1012), 1013
"""Codes that a server closes with."""
_INLINE_BYTES = 24_000
"""Of PCM; packing more than this half second takes so long that it leaves the event loop."""


class Line(ClientConnection):
    """The library's connection, with a short way for what is nearly all of the traffic, short binary messages."""

    direct: Callable[[bytes], bool] | None = None
    """Takes a message that `next` waits for; gives whether it did."""
    _awaited = False
    """Whether somebody waits for the next message, and none is on its way there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frames = frames.Frames()

    async def next(self) -> bytes | str:
        """As recv."""
        self._awaited = True
        try:
            return await self.recv()
        finally:
            self._awaited = False

    def send_now(self, data: bytes) -> bool:
        """Whether the message was sent: nothing has to wait."""
        if self.paused or self.protocol.state is not State.OPEN or len(data) > frames.SHORT:
            return False
        self.transport.write(frames.frame(data, masked=True))
        return True

    def data_received(self, data: bytes) -> None:
        if self._awaited and self.direct is not None and self._between_messages():
            message = frames.message(data, masked=False)
            if message is not None and self.direct(message):
                return
        self._frames.skip(data)
        self._awaited = False
        super().data_received(data)

    def _between_messages(self) -> bool:
        protocol = self.protocol
        return self._frames.whole and protocol.state is State.OPEN and protocol.current_size is None


async def dial(url: str, settings: Settings, resume: str = "") -> Line:
    """A connection over which the server has sent its handshake. Raises EngineUnreachable, EngineUnavailable,
    EngineBusy, EngineBroke."""
    parts, wait = urlsplit(url), settings.engine_connect_timeout
    query = f"?resume={quote(resume, safe='')}" if resume else ""
    try:
        socket = await connect(
            f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}{wire.PATH}{query}",
            compression=None,
            proxy=None,
            open_timeout=wait,
            ping_interval=_PING_SECONDS,
            ping_timeout=settings.engine_idle_timeout,
            close_timeout=CLOSE_SECONDS,
            max_size=wire.MOST_BYTES,
            create_connection=Line,
        )
        assert isinstance(socket, Line)
    except InvalidStatus as exc:
        raise _refusal(exc) from exc
    except TimeoutError:
        raise EngineUnreachable(f"the engine does not open a WebSocket within {wait:g} s") from None
    except OSError as exc:
        raise EngineUnreachable(f"the engine cannot be reached ({type(exc).__name__})") from exc
    except (InvalidHandshake, EOFError) as exc:
        raise EngineUnavailable("the engine closed the connection without an answer") from exc
    try:
        async with asyncio.timeout(wait):
            first = await socket.recv()
        if not isinstance(first, bytes) or first[:1] != bytes((wire.Kind.HANDSHAKE,)):
            raise EngineBroke("the engine does not begin with the handshake of Fun-Audio-Chat's protocol")
    except TimeoutError:
        socket.transport.abort()
        raise EngineUnavailable(f"the engine sends no handshake within {wait:g} s") from None
    except ConnectionClosed as exc:
        raise lost(exc) from exc
    except BaseException:
        socket.transport.abort()
        raise
    return socket


async def hang_up(socket: ClientConnection) -> None:
    """Closes as politely as the server allows."""
    with suppress(TimeoutError, ConnectionClosed, OSError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close()
    socket.transport.abort()


def lost(exc: ConnectionClosed, said: str = "") -> EngineError:
    """What a connection that the server has closed means. said: the last error that it sent."""
    code = exc.rcvd.code if exc.rcvd else None
    text = f"the engine: {said}" if said else ""
    if code == _BUSY:
        return EngineBusy(text or "the engine takes no more conversations", quotes=bool(said))
    if code in _GOING:
        return EngineUnavailable(text or "the engine is going away", quotes=bool(said))
    return EngineBroke(text or "the engine has cut the connection", quotes=bool(said))


def pages_of(data: bytes) -> list[bytes]:
    """The whole pages that a server's audio message consists of. Raises EngineBroke."""
    if opus.is_page(data):
        return [data]
    try:
        return opus.Pages().feed(data)
    except opus.NotOpus as exc:
        raise EngineBroke("the engine's audio is not in Ogg pages") from exc


class Packing:
    """What is said as PCM of any rate, as whole pages of one Ogg Opus stream."""

    def __init__(self) -> None:
        self._packer = opus.Packer()
        self._resampler: Resampler | None = None
        self._rate = 0
        self._begun = False
        """Whether anything has come since the last end."""

    async def feed(self, piece: Audio) -> list[bytes]:
        if piece.sample_rate != self._rate:
            self.drop()
            self._rate = piece.sample_rate
        self._begun = True
        if len(piece.pcm) > _INLINE_BYTES:
            return await asyncio.to_thread(self._feed, piece.pcm, False)
        return self._feed(piece.pcm, False)

    def end(self) -> list[bytes]:
        """What is left, padded with silence; the stream goes on after it."""
        found = self._feed(b"", True) if self._begun else []
        self._resampler, self._begun = None, False
        return found

    def drop(self) -> None:
        """Forgets what has not filled a page."""
        self._packer.drop()
        self._resampler, self._begun = None, False

    def _feed(self, pcm: bytes, last: bool) -> list[bytes]:
        if self._rate != opus.RATE:
            self._resampler = self._resampler or Resampler(self._rate, opus.RATE)
            pcm = self._resampler.feed(pcm, last)
        found = self._packer.feed(pcm)
        return [page for item in (found + self._packer.end() if last else found) for page in pages_of(item)]


class Unpacking:
    """A server's pages as its listener wants them."""

    def __init__(self, packed: bool) -> None:
        self._unpacker = None if packed else opus.Unpacker()

    def feed(self, page: bytes) -> Audio | Opus | None:
        """None where the page holds no sound. Raises EngineBroke."""
        if self._unpacker is None:
            return Opus(page)
        try:
            pcm = self._unpacker.feed(page)
        except opus.NotOpus as exc:
            raise EngineBroke("the engine's audio is not Opus") from exc
        return Audio(pcm, opus.RATE) if pcm else None


# Private


def _refusal(exc: InvalidStatus) -> GatewayError:
    status, headers = exc.response.status_code, exc.response.headers
    if status in (429, 503) or status >= 500:
        return engine_http.refusal(status, bytes(exc.response.body or b""), headers.get("Retry-After", "").encode())
    return EngineBroke(f"the engine opens no conversation at {wire.PATH}: it answered {status}")
