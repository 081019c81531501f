"""The connections to an engine that speaks FunASR's WebSocket protocol: opened, looked at, closed."""

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from gateway.adapters import http as engine_http
from gateway.adapters.funasr_stream import Pieces, Server, Stream
from gateway.errors import BadRequest, EngineUnavailable, EngineUnreachable, GatewayError
from gateway.events import Transcript
from gateway.settings import Settings, SettingsError
from gateway.tasks import task_group
from gateway.wire import funasr_2pass as wire

_ANSWER_BYTES = 1024 * 1024
_CLOSE_SECONDS = 1.0
_PING_SECONDS = 20.0


class Line:
    """To one engine."""

    def __init__(self, url: str, settings: Settings) -> None:
        """url: http, https, ws or wss. Raises SettingsError for a certificate that cannot be read."""
        parts = urlsplit(url)
        self._secure = parts.scheme in ("https", "wss")
        self._address = f"{'wss' if self._secure else 'ws'}://{parts.netloc}{parts.path}{wire.PATH}"
        self._open, self._idle = settings.engine_connect_timeout, settings.engine_idle_timeout
        self._certificate = _certificate(settings) if self._secure else None

    @asynccontextmanager
    async def stream(
        self, asked: wire.Config, pieces: Pieces, *, whole: bool
    ) -> AsyncIterator[AsyncIterator[Transcript]]:
        """What the engine hears in them. whole: whether they are all of a recording, which it may want to have before
        it says anything."""
        socket = await self.dial()
        try:
            stream = Stream(socket, _server(socket), self._idle, whole=whole)
            stream.check(asked)
            await stream.send(stream.config(asked))
            async with task_group(failure=-1) as tasks:
                speaking = tasks.create_task(stream.speak(pieces, wire.packet_bytes(asked)))
                async with aclosing(stream.transcripts()) as events:
                    yield events
                speaking.cancel()  # the reader has left, or has everything
            if stream.done:
                await socket.close()
        finally:
            socket.transport.abort()  # whoever left early leaves at once: the engine sees it, and stops

    async def dial(self) -> ClientConnection:
        """Raises BadRequest, EngineUnreachable, EngineBusy, EngineBroke."""
        try:
            socket = await connect(
                self._address,
                subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
                compression=None,
                proxy=None,
                ssl=_context(self._certificate) if self._secure else None,
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
        except ssl.SSLCertVerificationError as exc:
            raise EngineUnreachable(f"the engine's certificate is not trusted: {exc.verify_message}") from exc
        except OSError as exc:
            raise EngineUnreachable(f"the engine cannot be reached ({type(exc).__name__})") from exc
        except (InvalidHandshake, EOFError) as exc:
            raise EngineUnavailable("the engine closed the connection without an answer") from exc
        if self._certificate is not None and _shown(socket) != self._certificate:
            socket.transport.abort()
            raise EngineUnreachable("the engine shows another certificate than transcribe_certificate")
        return socket


# Private


def _certificate(settings: Settings) -> bytes | None:
    """The only one that is accepted, where there is such."""
    if settings.transcribe_certificate is None:
        return None
    try:
        return ssl.PEM_cert_to_DER_cert(settings.transcribe_certificate.read_text().strip())
    except (OSError, ValueError) as exc:
        raise SettingsError(f"transcribe_certificate: {settings.transcribe_certificate}: {exc}") from None


def _context(certificate: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if certificate is not None:  # it is compared as a whole: neither its name nor its dates matter
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _shown(socket: ClientConnection) -> bytes | None:
    found: ssl.SSLObject = socket.transport.get_extra_info("ssl_object")
    return found.getpeercert(binary_form=True)


def _server(socket: ClientConnection) -> Server:
    headers = socket.response.headers if socket.response is not None else {}
    features = {part.strip() for part in headers.get(wire.FEATURES, "").split(",")}
    return Server(
        resamples=wire.RESAMPLES in features,
        acks=wire.ACKS in features,
        python=wire.ACKS not in features and "websockets/" in headers.get("Server", ""),
    )


def _refusal(exc: InvalidStatus) -> GatewayError:
    """A server that knows no WebSocket answers the handshake with whatever it has at that path."""
    status, headers = exc.response.status_code, exc.response.headers
    if status in (429, 503) or status >= 500:
        return engine_http.refusal(status, bytes(exc.response.body or b""), headers.get("Retry-After", "").encode())
    return BadRequest("this recognition engine takes whole recordings only", code="live_unsupported")
