"""The gateway process: two public ports, one application."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from gateway import logs
from gateway.app import build
from gateway.settings import Settings, SettingsError
from gateway.socket import DIRECT
from gateway.wire import frames, handshake

log = structlog.get_logger(__name__)
_BACKLOG = 2048
_UNSENT_BYTES = 16 * 1024
"""Of a WebSocket, beyond which whoever writes to it waits; 4 s of packed audio. The kernel holds as much once more."""
_PING_SECONDS = 20.0
"""How often a WebSocket's peer must show that it is there, and how long it may take to."""
_LEAVE_SECONDS = 2.0
"""How long the peer of a closed WebSocket has for its part; then it is cut off."""
_MOST_FRAGMENTS = 1024
"""Of a WebSocket message; its bytes are counted elsewhere, and empty ones have none."""


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or Ctrl-C; gives the exit status. Raises SettingsError."""
    logs.configure(settings.log_level, settings.log_format)
    app = build(settings)
    ports = [settings.port, settings.avatar_port]
    if ports[0] == ports[1] != 0:
        ports.pop()
    sockets = [listen(settings.host, port) for port in ports]
    config = configuration(app, settings)
    server = Server(config)
    server.alone = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn ends in order, then repeats the signal to us
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets))
    except (KeyboardInterrupt, SystemExit):  # uvicorn's ways of saying that it was stopped, or never started
        pass
    refused: SettingsError | None = getattr(app.rest.state, "refused", None)
    if refused is not None:
        raise refused
    return 0 if server.started else 1


class Server(uvicorn.Server):
    """uvicorn, with our line when it listens."""

    alone = False
    """Whether nothing else runs in this process."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.alone:
            gc.collect()
            gc.freeze()  # what was built at start stays: looking through it again took tens of milliseconds each time
        if self.started and sockets:
            host, ports = sockets[0].getsockname()[0], [one.getsockname()[1] for one in sockets]
            log.info("listening", host=host, ports=ports)


class Connection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, bounded: little is unsent, a close waits for nobody, a peer that neither reads nor leaves is
    cut off, and a handshake that cannot be read is answered.

    There is a short way for what is nearly all of the traffic, short binary messages: no parser and no task is in it.
    gateway/socket.py Socket tells who may use it when.
    """

    direct: Callable[[bytes], bool] | None = None
    """Takes a message that nobody is behind with an earlier one of; gives whether it did."""
    _cut: asyncio.TimerHandle | None = None
    _extensions: dict[Any, Any] | None = None
    """Of the scope, once there is one."""
    _awaited = False
    """Whether somebody waits for the next message, and none is on its way there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frames = frames.Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.direct = None
        if self._extensions is not None:
            self._extensions.pop(DIRECT, None)
        if self._cut is not None:
            self._cut.cancel()

    def data_received(self, data: bytes) -> None:
        if self._awaited and self.direct is not None and self._between_messages(len(data)):
            message = frames.message(data, masked=True)
            if message is not None and self.direct(message):
                return
        if not self.handshake_initiated:
            data = handshake.mended(data)
        self._frames.skip(data)
        self._awaited = False
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:  # such as an address of 9 kB
            self.handshake_complete = self.close_sent = True
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self._extensions = self.scope["extensions"]
            self._extensions[DIRECT] = self  # type: ignore[assignment]

    async def receive(self) -> Any:
        self._awaited = True
        try:
            return await super().receive()
        finally:
            self._awaited = False

    def send_now(self, data: bytes) -> bool:
        """Whether the message was sent: nothing has to wait."""
        if self.disconnected or self.close_sent or not self.writable.is_set() or len(data) > frames.SHORT:
            return False
        if self.conn.state is not State.OPEN:
            return False
        self.transport.write(frames.frame(data, masked=False))
        return True

    async def send(self, message: Any) -> None:
        closes = message["type"] == "websocket.close"
        if closes:
            self.writable.set()  # its frame goes behind what is unsent, and the peer reads that soon or never
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True  # refused is complete, too: uvicorn would log each refusal as our error
        if closes:
            self._leave()

    def shutdown(self) -> None:
        if self.conn.state is State.CLOSING and not self.close_sent:  # the client's doing; uvicorn would say it again
            self.stop_keepalive()
            self.transport.close()
        elif self.handshake_complete and not self.close_sent and not self.disconnected:
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1012})
            self.conn.send_close(1012, "the gateway is restarting")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        else:
            super().shutdown()
        self._leave()

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) < _MOST_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self._leave()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._leave()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._leave()

    def _between_messages(self, size: int) -> bool:
        """Whether so many bytes may be a message of their own."""
        conn = self.conn
        return (
            self._frames.whole
            and conn.state is State.OPEN
            and conn.current_size is None
            and size <= self.config.ws_max_size
        )

    def _leave(self) -> None:
        if self._cut is None and not self.disconnected:
            self._cut = self.loop.call_later(_LEAVE_SECONDS, self.transport.abort)


def configuration(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        ws=Connection,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        ws_max_size=settings.socket_max_bytes,
        ws_per_message_deflate=False,  # audio is packed already, and its state would be most of a connection's memory
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=True,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace)),
        lifespan="on",
        backlog=_BACKLOG,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError, in the operator's words, where the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle on
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(_BACKLOG)
    except OSError as exc:
        found.close()
        raise SettingsError(f"port {port} on {host} cannot be opened: {exc.strerror}") from None
    found.set_inheritable(True)
    return found
