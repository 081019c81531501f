"""An engine for measuring relays: it speaks Fun-Audio-Chat's wire, and answers a turn with as many pages as it heard.

Each page carries a number and the time at which it was sent, so that whoever gets it knows how long it took, and
whether one is missing. python -m bench.echo PORT
"""

import asyncio
import contextlib
import itertools
import struct
import sys
import time
from array import array

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gateway.wire import engine_health, opus, turns
from gateway.wire import fun_audio_chat as wire

PAGE_SECONDS = 0.04
FIGURES = "/figures"
"""GET: what the engine heard, as lines of a number and milliseconds; it is forgotten then."""
_PAYLOAD = struct.Struct("<BHIq61x")
"""A packet of 20 ms, two of which make a page: its first byte, the turn's number, the page's, nanoseconds. With the
rest of it as long as speech at 30 kbit/s."""
_TOC = 0x98
"""CELT, 20 ms, mono, one frame (RFC 6716, 3.1)."""


def headers() -> bytes:
    """The two pages that a stream begins with."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 24000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I5sI", 5, b"bench", 0)
    return _page(0, [head], 2) + _page(1, [tags], 0)


def page(turn: int, number: int) -> bytes:
    """Sent now. number: within the turn."""
    return _page(number + 2, [_PAYLOAD.pack(_TOC, turn, number, time.monotonic_ns()), bytes((_TOC, 0))], 0)


def read(data: bytes) -> tuple[int, int, float]:
    """(turn, number, milliseconds since it was sent) of a page."""
    _, turn, number, sent = _PAYLOAD.unpack_from(data, 27 + data[26])
    return turn, number, (time.monotonic_ns() - sent) / 1e6


def _page(sequence: int, packets: list[bytes], kind: int) -> bytes:
    """The checksum is left out: no reader of this protocol looks at it."""
    sizes = bytes(len(packet) for packet in packets)
    return (
        struct.pack("<4sBBqIIIB", b"OggS", 0, kind, sequence * 1920, 7, sequence, 0, len(sizes))
        + sizes
        + b"".join(packets)
    )


class Echo:
    def __init__(self) -> None:
        self._late = array("d")
        self._lost = 0
        self._ids = itertools.count(1)

    def answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Of plain HTTP requests."""
        if request.path == engine_health.PATH:
            _, body = engine_health.encode(engine_health.Report("ready", "echo"))
            return Response(200, "OK", Headers({"content-length": str(len(body))}), body)
        if request.path == FIGURES:
            body = "\n".join([str(self._lost), *(f"{late:.4f}" for late in self._late)]).encode()
            self._late, self._lost = array("d"), 0
            return Response(200, "OK", Headers({"content-length": str(len(body))}), body)
        return None

    async def talk(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(wire.encode(wire.Handshake()))
            await socket.send(_said(turns.Session(str(next(self._ids)))))
            await self._turns(socket)

    async def _turns(self, socket: ServerConnection) -> None:
        heard, turn = 0, 0
        head = headers()
        async for data in socket:
            assert isinstance(data, bytes)
            if data[0] == wire.Kind.AUDIO:
                last = data[data.rfind(b"OggS") :]
                if opus.is_header(last):
                    continue
                _, number, late = read(last)
                self._late.append(late)
                self._lost += number != heard
                heard = number + 1
            elif data[0] == wire.Kind.CONTROL and data[1] == wire.Action.START:
                heard = 0
            elif data[0] == wire.Kind.CONTROL:
                turn += 1
                await self._reply(socket, turn, heard, head)
                head, heard = b"", 0

    async def _reply(self, socket: ServerConnection, turn: int, count: int, head: bytes) -> None:
        await socket.send(_said(turns.ReplyStarted(turn)))
        await socket.send(wire.encode(wire.Text(wire.PROCESSING)))
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number * PAGE_SECONDS - loop.time()))
            await socket.send(b"\1" + head + page(turn, number))
            head = b""
        await socket.send(_said(turns.ReplyDone(turn, "completed", count * PAGE_SECONDS)))


def _said(event: turns.Event) -> bytes:
    return wire.encode(wire.metadata(turns.fields_of(event)))


async def main(port: int) -> None:
    echo = Echo()
    async with serve(
        echo.talk, "127.0.0.1", port, process_request=echo.answer, compression=None, ping_interval=None, backlog=2048
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1])))
