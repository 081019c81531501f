"""The server as a process, and a client such as upstream's: binary messages, one Opus stream each way."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import websockets

from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 8.0
"""Seconds for anything to happen."""


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def health(self) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def worker(self, module: str) -> psutil.Process:
        (found,) = (one for one in self.workers() if f"engines.s2s.{module}" in one.cmdline())
        return found

    async def ready(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.health().status_code != 200:
                await asyncio.sleep(0.02)


@contextmanager
def serving(folder: Path, *options: str, ready: bool = True, python: str = sys.executable) -> Iterator[Server]:
    """Ready when the block begins, unless it is not to be; gone when it ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    command = [python, "-m", "engines.s2s", "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    server = Server(process, port, log)
    try:
        _wait(server, ready)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _wait(server: Server, ready: bool) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and server.process.poll() is None:
        try:
            if server.health().status_code == 200 or not ready:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(server.log.read_text())


def tone(seconds: float, hertz: float = 440.0) -> bytes:
    """Mono s16le at 24 kHz."""
    phase = np.arange(round(seconds * opus.RATE)) * (2 * np.pi * hertz / opus.RATE)
    return (np.sin(phase) * 8000).astype("<i2").tobytes()


def pitch(pcm: bytes) -> float:
    """Hz, of what is loudest."""
    samples = np.frombuffer(pcm, "<i2")
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * opus.RATE / len(samples)


Got = tuple[float, wire.Message]
"""(when, what)"""


class Client:
    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.got: list[Got] = []
        self.closed: tuple[int, str] | None = None
        self._packer = opus.Packer()
        self._news = asyncio.Event()

    async def read(self) -> None:
        try:
            with suppress(websockets.ConnectionClosed):
                async for data in self.socket:
                    assert isinstance(data, bytes)
                    self.got.append((time.monotonic(), wire.decode(data)))
                    self._news.set()
        finally:
            self.closed = self.socket.close_code or 0, self.socket.close_reason or ""
            self._news.set()

    async def send(self, *messages: wire.Message) -> None:
        for message in messages:
            await self.socket.send(wire.encode(message))

    async def say(self, pcm: bytes) -> None:
        """All at once."""
        for page in [*self._packer.feed(pcm), *self._packer.end()]:
            await self.send(wire.Audio(page))

    async def start(self) -> None:
        await self.send(wire.Control(wire.Action.START))

    async def pause(self) -> None:
        await self.send(wire.Control(wire.Action.PAUSE))

    async def wish(self, **fields: Any) -> None:
        await self.send(wire.metadata(fields))

    async def script(self, **fields: float) -> None:
        await self.wish(system_prompt=json.dumps(fields))

    async def ask(self, seconds: float = 0.4, hertz: float = 440.0) -> turns.ReplyDone:
        """A whole turn."""
        turn = len(self.ended()) + 1
        await self.start()
        await self.say(tone(seconds, hertz))
        await self.pause()
        return await self.done(turn)

    # What has come

    def events(self) -> list[turns.Event]:
        found = [turns.read(one.fields) for _, one in self.got if isinstance(one, wire.Metadata)]
        return [one for one in found if one is not None]

    def ended(self) -> list[turns.ReplyDone]:
        return [one for one in self.events() if isinstance(one, turns.ReplyDone)]

    def errors(self) -> list[turns.Failed]:
        return [one for one in self.events() if isinstance(one, turns.Failed)]

    @property
    def text(self) -> str:
        said = [one.text for _, one in self.got if isinstance(one, wire.Text)]
        return "".join(text for text in said if text != wire.PROCESSING)

    def pages(self) -> list[bytes]:
        return [one.pages for _, one in self.got if isinstance(one, wire.Audio)]

    def pcm(self) -> bytes:
        """Mono s16le at 24 kHz."""
        unpacker, pages = opus.Unpacker(), opus.Pages()
        return b"".join(unpacker.feed(page) for message in self.pages() for page in pages.feed(message))

    async def until(self, true: Callable[[], Any], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                assert self.closed is None or true(), self.closed
                self._news.clear()
                await self._news.wait()

    async def done(self, turn: int = 1) -> turns.ReplyDone:
        await self.until(lambda: any(one.turn == turn for one in self.ended()))
        (found,) = (one for one in self.ended() if one.turn == turn)
        return found

    async def error(self, count: int = 1) -> turns.Failed:
        await self.until(lambda: len(self.errors()) >= count)
        return self.errors()[count - 1]


@asynccontextmanager
async def talking(server: Server, **query: str) -> AsyncIterator[Client]:
    """Connected, and told so."""
    address = f"ws://127.0.0.1:{server.port}/api/chat?{httpx.QueryParams(query)}"
    async with websockets.connect(address, max_size=None, compression=None) as socket, asyncio.TaskGroup() as tasks:
        client = Client(socket)
        reading = tasks.create_task(client.read())
        try:
            await client.until(lambda: client.events() or client.errors())
            yield client
        finally:
            reading.cancel()


def session(client: Client) -> turns.Session:
    (found,) = (one for one in client.events() if isinstance(one, turns.Session))
    return found
