"""An engine that does as it is told: it speaks CosyVoice's and the recognition protocol, without a model.

For tests, which tell it to be slow, to refuse, to hang or to die, and for measuring what the gateway itself costs.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

import httptools

from gateway.wire import cosyvoice, engine_health, funasr_http


class End(StrEnum):
    """How an answer ends."""

    WHOLE = "whole"
    DIE = "die"
    """The connection is cut in the middle."""
    HANG = "hang"
    """Nothing more comes."""


@dataclass(slots=True)
class Script:
    """What to do with the next requests."""

    status: int = 200
    error: str = ""
    sample_rate: int | None = 24000
    """Hz; None is a stock CosyVoice server, which does not say."""
    pieces: int = 10
    piece: bytes = bytes(4800)
    pause: float = 0.0
    """Seconds before each piece."""
    end: End = End.WHOLE
    text: str = "hello world"
    """What recognition hears."""
    times: funasr_http.Times | None = None
    """When it hears which word."""
    language: str = "en"
    """In which it hears it."""
    hear: Callable[[bytes], tuple[str, funasr_http.Times | None]] | None = None
    """What it hears and when, made from the form that was sent, instead."""
    health: engine_health.Report = field(default_factory=lambda: engine_health.Report("ready", "scripted"))


@dataclass(slots=True)
class Seen:
    """What reached the engine, for tests to read."""

    asked: list[tuple[str, bytes]] = field(default_factory=list)
    """(path, body) of every request but health checks."""
    running: int = 0
    finished: int = 0
    abandoned: int = 0
    """Requests whose client left before the end."""


class ScriptedEngine:
    """One server. `script` may be changed between requests."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.seen = Seen()
        self.url = ""
        self._connections: set[_Connection] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, self._connections), host, port)
        bound = self._server.sockets[0].getsockname()
        self.url = f"http://{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """Like a killed process: every connection is cut."""
        self._server.close()
        for connection in list(self._connections):
            connection.cut()
        await asyncio.sleep(0)

    async def __aenter__(self) -> "ScriptedEngine":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _Connection(asyncio.Protocol):
    def __init__(self, engine: ScriptedEngine, connections: "set[_Connection]") -> None:
        self._engine, self._connections = engine, connections
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", bytearray()
        self._left: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._when_room: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of it
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._left is not None:
            self._left()

    def cut(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path = self._url.decode()
        script, seen = self._engine.script, self._engine.seen
        if path == engine_health.PATH:
            self._whole(*engine_health.encode(script.health))
            return
        seen.asked.append((path, bytes(self._body)))
        if script.status != 200:
            self._whole(script.status, funasr_http.error(script.error))
        elif path == funasr_http.PATH:
            self._begin()
            self._after(script.pause, lambda: self._recognise(script))
        else:
            self._begin()
            self._speak(script)

    # Private

    def _begin(self) -> None:
        self._engine.seen.running += 1
        self._left = self._abandon

    def _abandon(self) -> None:
        self._left = None
        self._engine.seen.running -= 1
        self._engine.seen.abandoned += 1
        if self._timer is not None:
            self._timer.cancel()

    def _done(self) -> None:
        self._left = None
        self._engine.seen.running -= 1
        self._engine.seen.finished += 1

    def _whole(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)

    def _recognise(self, script: Script) -> None:
        if self._stops(script):
            return
        text, times = script.hear(bytes(self._body)) if script.hear else (script.text, script.times)
        self._whole(200, funasr_http.result(text, script.language, times))
        self._done()

    def _speak(self, script: Script) -> None:
        rate = f"{cosyvoice.SAMPLE_RATE_HEADER}: {script.sample_rate}\r\n" if script.sample_rate else ""
        self._transport.write(f"HTTP/1.1 200 OK\r\n{rate}transfer-encoding: chunked\r\n\r\n".encode())
        self._chunk, self._pieces = b"%x\r\n%b\r\n" % (len(script.piece), script.piece), script.pieces
        self._next(script)

    def _next(self, script: Script) -> None:
        """Writes what may be written now; the rest follows after a pause, or once the reader has caught up."""
        if script.pause and self._pieces:
            self._after(script.pause, lambda: self._paced(script))
            return
        while self._pieces and not self._full:
            self._transport.write(self._chunk)
            self._pieces -= 1
        if self._pieces:
            self._when_room = lambda: self._next(script)
        elif not self._stops(script):
            self._transport.write(b"0\r\n\r\n")
            self._done()

    def _paced(self, script: Script) -> None:
        if self._full:
            self._when_room = lambda: self._paced(script)
            return
        self._transport.write(self._chunk)
        self._pieces -= 1
        self._next(script)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._when_room is not None:
            then, self._when_room = self._when_room, None
            then()

    def _stops(self, script: Script) -> bool:
        """Whether the answer ends here, without its end."""
        if script.end is End.DIE:
            self._transport.close()  # what was written still leaves, then the connection ends
        return script.end is not End.WHOLE

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, then)
