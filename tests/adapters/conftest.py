"""Engines that misbehave: a raw server on loopback that does, byte for byte, what a test tells it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from gateway.adapters.connections import Client

Behave = Callable[["Line"], Awaitable[None]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops: the gateway runs on uvloop, and on asyncio where there is none."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass(slots=True)
class Line:
    """The server's end of one connection."""

    number: int
    """0 for the first connection that the server saw."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[bytes, bytes]:
        """(head, body) of the next request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        return head, await self.reader.readexactly(int(length))

    async def send(self, data: bytes, pieces: int | None = None) -> None:
        """`pieces`: bytes in each write, for a network that cuts everywhere."""
        for at in range(0, len(data), pieces or len(data) or 1):
            self.writer.write(data[at : at + (pieces or len(data))])
            await self.writer.drain()
            if pieces:
                await asyncio.sleep(0)

    async def hung_up(self) -> bool:
        """Waits until the other end closes; False when it sends more instead."""
        with suppress(ConnectionError):
            return await self.reader.read(1) == b""
        return True


@dataclass(slots=True)
class Peer:
    url: str
    lines: list[Line] = field(default_factory=list)
    """One for each connection made."""
    open: int = 0


@asynccontextmanager
async def peer(behave: Behave) -> AsyncIterator[Peer]:
    """A server that does `behave` on each connection and then closes it. What fails in there fails the test."""
    tasks: set[asyncio.Task[None]] = set()
    failed: list[Exception] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(len(made.lines), reader, writer)
        made.lines.append(line)
        made.open += 1
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await behave(line)
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception as exc:
            failed.append(exc)
        finally:
            made.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made = Peer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise failed[0]


def answer(body: bytes, status: int = 200, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} x\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def chunked(*pieces: bytes, headers: str = "") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n".encode() + body + b"0\r\n\r\n"


@pytest.fixture
async def http() -> AsyncIterator[Client]:
    async with Client(connect=2, idle=5, total=20) as http:
        yield http


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Larger than every buffer between here and an engine."""
    path = tmp_path / "audio.wav"
    path.write_bytes(bytes(range(256)) * 16 * 1024)
    return path
