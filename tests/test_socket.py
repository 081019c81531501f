"""One WebSocket connection over real sockets: what a handler raises, what a client does wrong, and what is left."""

import asyncio
import base64
import hashlib
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import serve
from gateway.errors import AudioRejected, BadRequest, ClientGone, EngineBroke, EngineBusy, TooLarge, TooSlow
from gateway.exchange import Receive, Scope, Send
from gateway.serve import Server, configuration, listen
from gateway.settings import Settings
from gateway.socket import Close, Socket, SocketEndpoint

Dial = Callable[..., Any]


class Place:
    """A server of one handler, and how to get there."""

    def __init__(self, port: int, server: Server) -> None:
        self.port, self.server = port, server

    def connect(self, path: str = "/", **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, proxy=None, **options)

    async def idle(self, seconds: float = 5.0) -> None:
        state = self.server.server_state
        async with asyncio.timeout(seconds):
            while state.tasks or state.connections:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(handler: Callable[[Socket], Any], **given: Any) -> AsyncIterator[Place]:
    settings = Settings.model_validate({"host": "127.0.0.1", "shutdown_grace": 1.0} | given)
    endpoint = SocketEndpoint(handler, None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await endpoint(scope, receive, send)
            return
        await receive()
        scope["state"]["settings"] = settings
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    found = listen(settings.host, 0)
    server = Server(configuration(app, settings))
    task = asyncio.get_running_loop().create_task(server._serve([found]))
    try:
        async with asyncio.timeout(5):
            while not server.started:
                await asyncio.sleep(0.005)
        yield Place(found.getsockname()[1], server)
    finally:
        server.should_exit = True
        await task


async def echo(socket: Socket) -> None:
    await socket.accept()
    while True:
        await socket.send(await socket.receive())


async def closed(client: ClientConnection) -> tuple[int, str]:
    """The close frame that a client gets."""
    async with asyncio.timeout(5):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as exc:
            assert exc.rcvd is not None, "it was cut"
            return exc.rcvd.code, exc.rcvd.reason


async def test_both_kinds_of_message_come_back() -> None:
    async with serving(echo) as place, place.connect() as client:
        for message in ("text", b"bytes", "", b"", "说"):
            await client.send(message)
            assert await client.recv() == message


async def test_what_a_handler_raises_is_the_close() -> None:
    raised = [
        (BadRequest("that is wrong"), Close.POLICY, "that is wrong"),
        (AudioRejected("no sound"), Close.POLICY, "no sound"),
        (TooLarge("too much"), Close.TOO_BIG, "too much"),
        (TooSlow("too slow"), Close.TRY_LATER, "too slow"),
        (EngineBusy("full"), Close.TRY_LATER, "full"),
        (EngineBroke("my words", quotes=True), Close.FAILED, "engine_broke"),
        (BadRequest("é" * 200), Close.POLICY, "é" * 61),
        (BadRequest("half a pair \ud800"), Close.POLICY, "half a pair ?"),
        (None, Close.NORMAL, ""),
    ]

    async def handler(socket: Socket) -> None:
        await socket.accept()
        error = raised[int(socket.query("row"))][0]
        if error is not None:
            raise error

    async with serving(handler) as place:
        for row, (_, code, reason) in enumerate(raised):
            async with place.connect(f"/?row={row}") as client:
                assert await closed(client) == (code, reason)
        await place.idle()


async def test_a_bug_is_a_close_that_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(socket: Socket) -> None:
        await socket.accept()
        raise KeyError("internals")

    async with serving(handler) as place, place.connect() as client:
        assert await closed(client) == (Close.FAILED, "the gateway failed on this connection")


async def test_who_is_refused_before_being_let_in_gets_a_status() -> None:
    raised = [(BadRequest("no"), 400), (EngineBusy("full"), 503), (KeyError(), 500)]

    async def handler(socket: Socket) -> None:
        raise raised[int(socket.query("row"))][0]

    async with serving(handler) as place:
        for row, (_, status) in enumerate(raised):
            with pytest.raises(InvalidStatus) as caught:
                await place.connect(f"/?row={row}")
            assert caught.value.response.status_code == status
            assert caught.value.response.body
        await place.idle()


async def test_a_refusal_is_no_error_of_the_gateways(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(socket: Socket) -> None:
        raise BadRequest("no")

    async with serving(handler) as place:
        with pytest.raises(InvalidStatus):
            await place.connect()
        await place.idle()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_pages_enter_that_the_operator_has_named() -> None:
    async with serving(echo, cors_origins="https://good.example,https://too.example") as place:
        for origin in (None, "https://good.example", "https://too.example", f"http://127.0.0.1:{place.port}"):
            assert await _enters(place, origin), origin
        for origin in ("https://evil.example", "https://good.example.evil.example", "null", "http://good.example"):
            assert not await _enters(place, origin), origin
        await place.idle()


async def test_all_pages_enter_where_all_are_named() -> None:
    async with serving(echo) as place:
        assert await _enters(place, "https://any.example")


async def _enters(place: Place, origin: Any) -> bool:
    try:
        async with place.connect(origin=origin) as client:
            await client.send("x")
            return await client.recv() == "x"
    except InvalidStatus as exc:
        assert exc.response.status_code == 403
        return False


class TestHostile:
    async def test_a_message_above_the_limit_closes_with_1009(self) -> None:
        async with serving(echo, socket_max_bytes=1000) as place, place.connect(max_size=None) as client:
            await client.send(b"x" * 1000)
            assert await client.recv() == b"x" * 1000
            await client.send(b"x" * 1001)
            assert (await closed(client))[0] == Close.TOO_BIG

    async def test_one_of_10_mb_is_never_held(self) -> None:
        async with serving(echo) as place, place.connect() as client:
            with suppress(ConnectionClosed):
                await client.send(bytes(10_000_000))
            assert (await closed(client))[0] == Close.TOO_BIG

    async def test_text_that_is_no_utf8_closes_with_1007(self) -> None:
        async with serving(echo) as place, place.connect() as client:
            await client.send(b"\xff\xfe", text=True)
            assert (await closed(client))[0] == Close.INVALID
            await place.idle()

    async def test_fragments_without_end_and_without_bytes_are_cut(self) -> None:
        async with serving(echo) as place, place.connect() as client:

            async def fragments() -> AsyncIterator[bytes]:
                while True:
                    yield b""
                    await asyncio.sleep(0)

            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(5):
                    await client.send(fragments())
            assert client.close_code == Close.TOO_BIG

    async def test_odd_addresses_harm_nobody(self) -> None:
        async def handler(socket: Socket) -> None:
            assert socket.query("resume") == ""
            await echo(socket)

        async with serving(handler) as place:
            for target in (b"/\xff\xfe?a=\xff", b"/?" + b"a=1&" * 500, b"/%ff%00?%ff=%00", b"/?" + b"a" * 9000):
                answer = await _upgrade(place.port, target)
                assert answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 4")) or not answer
            async with place.connect() as client:
                await client.send("x")
                assert await client.recv() == "x"


async def _upgrade(port: int, target: bytes) -> bytes:
    """The beginning of what a server answers; empty where it cuts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [b"GET " + target + b" HTTP/1.1", b"Host: x", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"", b""]
    writer.write(b"\r\n".join(lines))
    async with asyncio.timeout(3):
        answer = await reader.read(300)
    writer.close()
    return answer


class TestSlow:
    async def test_little_is_held_for_who_does_not_read(self) -> None:
        """Messages as audio is; what a handler may send before it has to wait is seconds, not minutes."""
        sent = 0

        async def handler(socket: Socket) -> None:
            nonlocal sent
            await socket.accept()
            while True:
                await socket.send(bytes(170))
                sent += 1

        async with serving(handler) as place:
            mute = await _mute(place.port)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            held = sum(
                protocol.transport.get_write_buffer_size()  # type: ignore[union-attr]
                for protocol in place.server.server_state.connections
            )
            assert held < serve._UNSENT_BYTES + 1000
            mute.close()
            await place.idle()

    async def test_a_close_waits_for_nobody_who_does_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serve, "_LEAVE_SECONDS", 0.2)
        ended = asyncio.Event()

        async def handler(socket: Socket) -> None:
            await socket.accept()
            try:
                async with asyncio.timeout(0.3):
                    while True:
                        await socket.send(bytes(10_000))
            except TimeoutError:
                ended.set()
                raise TooSlow("you read nothing") from None

        async with serving(handler) as place:
            mute = await _mute(place.port)
            await ended.wait()
            await place.idle(2)
            mute.close()

    async def test_who_reads_again_is_told_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def handler(socket: Socket) -> None:
            await socket.accept()
            try:
                async with asyncio.timeout(0.3):
                    while True:
                        await socket.send(bytes(10_000))
            except TimeoutError:
                raise TooSlow("you read nothing") from None

        async with serving(handler) as place:
            async with place.connect(max_queue=1) as client:
                await asyncio.sleep(0.6)
                assert await closed(client) == (Close.TRY_LATER, "you read nothing")
            await place.idle(2)

    async def test_a_peer_that_has_vanished_is_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serve, "_PING_SECONDS", 0.2)
        monkeypatch.setattr(serve, "_LEAVE_SECONDS", 0.2)
        gone = asyncio.Event()

        async def handler(socket: Socket) -> None:
            await socket.accept()
            try:
                await socket.receive()
            except ClientGone:
                gone.set()
                raise

        async with serving(handler) as place:
            mute = await _mute(place.port)
            async with asyncio.timeout(3):
                await gone.wait()
            await place.idle(2)
            mute.close()

    def test_pings_go_out_every_20_s(self) -> None:
        config = configuration(None, Settings())
        assert (config.ws_ping_interval, config.ws_ping_timeout) == (20.0, 20.0)


async def _mute(port: int) -> sockets.socket:
    """A client that opens a connection and reads nothing more."""
    found = sockets.socket()
    found.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    found.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(found, ("127.0.0.1", port))
    lines = ["GET / HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]
    await loop.sock_sendall(found, "\r\n".join(lines).encode())
    assert (await loop.sock_recv(found, 12)).endswith(b"101")
    return found


async def test_a_shutdown_says_so_at_once() -> None:
    async with serving(echo) as place:
        client = await place.connect()
        place.server.should_exit = True
        begun = asyncio.get_running_loop().time()
        assert await closed(client) == (Close.RESTARTING, "the gateway is restarting")
        assert asyncio.get_running_loop().time() - begun < 0.5


async def test_a_socket_that_has_closed_stays_closed() -> None:
    said: list[str] = []

    async def handler(socket: Socket) -> None:
        await socket.accept()
        await socket.close(Close.NORMAL, "first")
        await socket.close(Close.FAILED, "second")
        for again in (socket.receive(), socket.send("x")):
            try:
                await again
            except ClientGone as exc:
                said.append(str(exc))

    async with serving(handler) as place, place.connect() as client:
        assert await closed(client) == (Close.NORMAL, "first")
        assert said == ["the connection is closed"] * 2


async def test_resume_tokens_stay_out_of_the_logs(capfd: pytest.CaptureFixture[str]) -> None:
    from gateway import logs

    logs.configure("debug", "json")
    try:
        async with serving(echo) as place:
            async with place.connect("/?resume=secret-token") as client:
                await client.send("x")
                await client.recv()
            with pytest.raises(InvalidStatus):
                async with serving(_refuses) as other:
                    await other.connect("/?resume=secret-token")
    finally:
        logs.configure("warning", "json")
    out, err = capfd.readouterr()
    assert "secret-token" not in out + err


async def _refuses(socket: Socket) -> None:
    raise EngineBusy("full")


async def test_a_client_that_sends_its_key_twice_is_let_in_by_the_first() -> None:
    """As Alibaba's Python SDK does; and one whose handshake is refused leaves nothing behind."""
    async with serving(echo) as place:
        for key, status in ((b"AAAAAAAAAAAAAAAAAAAAAA==", b"101"), (b"not a key", b"400")):
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n" % key
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.split()[1] == status
            if status == b"101":
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                assert accept in answer
            writer.close()
            await writer.wait_closed()
