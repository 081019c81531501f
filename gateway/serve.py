"""The gateway process: two public ports, one application."""

import asyncio
import signal
import socket
import sys
from typing import Any

import structlog
import uvicorn

from gateway import logs
from gateway.app import build
from gateway.settings import Settings, SettingsError

log = structlog.get_logger(__name__)
_BACKLOG = 2048


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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, ports = sockets[0].getsockname()[0], [one.getsockname()[1] for one in sockets]
            log.info("listening", host=host, ports=ports)


def configuration(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        ws="websockets-sansio",
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
