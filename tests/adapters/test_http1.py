"""The HTTP/1.1 client against engines that misbehave, byte for byte."""

import asyncio
import socket

import pytest

from gateway.adapters.connections import Client
from gateway.adapters.http1 import Connection
from gateway.errors import EngineBroke, EngineTimeout, EngineUnavailable
from tests.adapters.conftest import Line, answer, chunked, peer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts are looked at more often than in service, so that tests wait less."""
    monkeypatch.setattr("gateway.adapters.connections._TICK", 0.02)


async def whole(http: Client, base: str, path: str = "/", body: bytes = b"") -> tuple[int, bytes]:
    """(status, body) of one exchange, the connection given back."""
    connection = await http.send(base, b"POST", path, body=[body])
    try:
        await connection.head()
        return connection.status, await everything(connection)
    finally:
        http.give_back(connection)


async def everything(connection: Connection) -> bytes:
    return b"".join([piece async for piece in pieces(connection)])


async def pieces(connection: Connection):  # type: ignore[no-untyped-def]
    while piece := await connection.read():
        yield piece


async def wait_for(found) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(3):
        while not found():
            await asyncio.sleep(0.005)


def always(sent: bytes, cut: int | None = None):  # type: ignore[no-untyped-def]
    """A server that sends the same to every request of a connection."""

    async def behave(line: Line) -> None:
        while True:
            await line.request()
            await line.send(sent, cut)

    return behave


class TestAnswers:
    @pytest.mark.parametrize("cut", [None, 1, 3])
    @pytest.mark.parametrize(
        "sent", [answer(b"hello"), chunked(b"he", b"llo"), chunked(*[b"%c" % c for c in b"hello"])]
    )
    async def test_a_body_is_whole_however_the_network_cuts_it(
        self, http: Client, sent: bytes, cut: int | None
    ) -> None:
        async with peer(always(sent, cut)) as engine:
            assert await whole(http, engine.url) == (200, b"hello")

    async def test_an_empty_body_is_an_answer(self, http: Client) -> None:
        async with peer(always(answer(b""))) as engine:
            assert await whole(http, engine.url) == (200, b"")

    @pytest.mark.parametrize("status", [204, 304])
    async def test_an_answer_that_may_not_have_a_body_needs_no_length(self, http: Client, status: int) -> None:
        async with peer(always(b"HTTP/1.1 %d x\r\n\r\n" % status)) as engine:
            assert await whole(http, engine.url) == (status, b"")

    async def test_headers_are_read_whatever_their_case(self, http: Client) -> None:
        async with peer(always(answer(b"", headers="X-Sample-RATE: 24000\r\n"))) as engine:
            connection = await http.send(engine.url, b"GET", "/")
            await connection.head()
            assert connection.headers[b"x-sample-rate"] == b"24000"
            http.give_back(connection)

    async def test_a_word_before_the_answer_is_not_the_answer(self, http: Client) -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        async with peer(always(early + answer(b"hello"))) as engine:
            assert await whole(http, engine.url) == (200, b"hello")
            assert await whole(http, engine.url) == (200, b"hello")
            assert len(engine.lines) == 1

    async def test_the_head_can_be_read_before_the_body_comes(self, http: Client) -> None:
        more = asyncio.Event()

        async def behave(line: Line) -> None:
            await line.request()
            await line.send(answer(b"hello")[:-5])
            await more.wait()
            await line.send(b"hello")
            await line.hung_up()

        async with peer(behave) as engine:
            connection = await http.send(engine.url, b"GET", "/")
            await connection.head()
            assert connection.status == 200
            more.set()
            assert await everything(connection) == b"hello"
            http.give_back(connection)

    async def test_a_limited_body_is_cut_and_its_connection_closed(self, http: Client) -> None:
        async with peer(always(answer(bytes(300_000)))) as engine:
            connection = await http.send(engine.url, b"GET", "/")
            await connection.head()
            assert len(await connection.body(100)) == 100
            http.give_back(connection)
            assert repr(http) == "<engine connections: 0 busy, 0 kept>" or await lost(http)


async def lost(http: Client) -> bool:
    await wait_for(lambda: repr(http) == "<engine connections: 0 busy, 0 kept>")
    return True


class TestRequests:
    async def test_a_request_says_its_host_its_path_and_its_length(self, http: Client) -> None:
        heads = []

        async def behave(line: Line) -> None:
            heads.append(await line.request())
            await line.send(answer(b""))

        async with peer(behave) as engine:
            connection = await http.send(f"{engine.url}/v1/", b"POST", "/x", b"a: b\r\n", [b"12", b"345"])
            await connection.head()
            http.give_back(connection)
        head, body = heads[0]
        assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
        assert f"\r\nhost: {engine.url.removeprefix('http://')}\r\n".encode() in head
        assert b"\r\ncontent-length: 5\r\n" in head
        assert b"\r\na: b\r\n" in head
        assert body == b"12345"

    async def test_a_post_without_a_body_says_so(self, http: Client) -> None:
        async with peer(always(answer(b""))) as engine:
            assert (await whole(http, engine.url))[0] == 200

    async def test_an_upload_waits_for_a_slow_engine(self, http: Client) -> None:
        size = 8 * 1024 * 1024
        go = asyncio.Event()

        async def behave(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await go.wait()
            await line.reader.readexactly(size)
            await line.send(answer(b"got it"))
            await line.hung_up()

        async with peer(behave) as engine:
            connection = await http.send(engine.url, b"POST", "/", more=size)
            written = 0

            async def upload() -> None:
                nonlocal written
                while written < size:
                    written += 64 * 1024
                    assert await connection.upload(bytes(64 * 1024)) or written == size

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(upload())
                await asyncio.sleep(0.1)
                assert written < size, "kept back"
                go.set()
            await connection.head()
            assert await everything(connection) == b"got it"
            http.give_back(connection)

    async def test_an_early_answer_stops_the_upload_and_the_connection_is_not_used_again(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await line.send(answer(b"too large", 413))
            await asyncio.sleep(30)

        async with peer(behave) as engine:
            connection = await http.send(engine.url, b"POST", "/", more=1 << 40)
            async with asyncio.timeout(3):
                while await connection.upload(bytes(256 * 1024)):
                    pass
                await connection.head()
            assert (connection.status, await everything(connection)) == (413, b"too large")
            http.give_back(connection)
            await lost(http)

    async def test_an_engine_that_leaves_in_an_upload_ends_it(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.reader.readexactly(100_000)

        async with peer(behave) as engine:
            connection = await http.send(engine.url, b"POST", "/", more=1 << 40)
            async with asyncio.timeout(3):
                while await connection.upload(bytes(256 * 1024)):
                    pass
                with pytest.raises(EngineUnavailable):
                    await connection.head()


class TestKeptConnections:
    async def test_several_answers_come_on_one_connection(self, http: Client) -> None:
        async with peer(always(chunked(b"hello"))) as engine:
            for _ in range(5):
                assert await whole(http, engine.url) == (200, b"hello")
            assert len(engine.lines) == 1
            assert repr(http) == "<engine connections: 0 busy, 1 kept>"

    async def test_requests_at_the_same_time_have_a_connection_each(self, http: Client) -> None:
        async with peer(always(answer(b"hello"))) as engine:
            await asyncio.gather(*(whole(http, engine.url) for _ in range(5)))
            assert len(engine.lines) == 5
            assert repr(http) == "<engine connections: 0 busy, 5 kept>"

    async def test_a_new_one_that_is_looked_at_before_its_first_request_is_kept(
        self, http: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the two the loop may do other work, this among it."""
        made = Connection.connection_made

        def looked_at(connection: Connection, transport: asyncio.BaseTransport) -> None:
            made(connection, transport)
            connection.check(asyncio.get_running_loop().time(), idle=1, total=1, kept=30)

        monkeypatch.setattr(Connection, "connection_made", looked_at)
        async with peer(always(answer(b"hello"))) as engine:
            assert await whole(http, engine.url) == (200, b"hello")

    async def test_the_repr_counts_the_busy_ones(self, http: Client) -> None:
        async with peer(always(answer(b"hello")[:-1])) as engine:
            connection = await http.send(engine.url, b"GET", "/")
            assert repr(http) == "<engine connections: 1 busy, 0 kept>"
            http.give_back(connection)
            await lost(http)

    async def test_a_connection_closed_by_the_engine_while_idle_is_forgotten(self, http: Client) -> None:
        async def once(line: Line) -> None:
            await line.request()
            await line.send(answer(b"hello"))

        async with peer(once) as engine:
            for _ in range(3):
                assert await whole(http, engine.url) == (200, b"hello")
                await lost(http)
            assert len(engine.lines) == 3

    async def test_an_engine_that_says_close_is_believed(self, http: Client) -> None:
        async with peer(always(answer(b"hello", headers="connection: close\r\n"))) as engine:
            assert await whole(http, engine.url) == (200, b"hello")
            assert await whole(http, engine.url) == (200, b"hello")
            assert len(engine.lines) == 2

    async def test_one_that_nobody_needs_is_closed_after_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.adapters.connections._IDLE_KEPT", 0.05)
        async with peer(always(answer(b"hello"))) as engine, Client(connect=1, idle=1, total=1) as http:
            await whole(http, engine.url)
            await lost(http)
            await wait_for(lambda: not engine.open)

    async def test_leaving_an_answer_early_closes_its_connection(self, http: Client) -> None:
        left = asyncio.Event()

        async def behave(line: Line) -> None:
            await line.request()
            await line.send(chunked(b"hello")[:-5])
            assert await line.hung_up()
            left.set()

        async with peer(behave) as engine:
            connection = await http.send(engine.url, b"GET", "/")
            await connection.head()
            assert await connection.read() == b"hello"
            http.give_back(connection)
            await asyncio.wait_for(left.wait(), 2)

    @pytest.mark.parametrize("together", [True, False])
    async def test_an_answer_that_nobody_asked_for_reaches_no_request(self, http: Client, together: bool) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            mine, other = answer(b"mine"), answer(b"another's")
            if together:
                await line.send(mine + other)
            else:
                await line.send(mine)
                await asyncio.sleep(0.02)
                await line.send(other)
            await line.hung_up()

        async with peer(behave) as engine:
            assert await whole(http, engine.url) == (200, b"mine")
            await lost(http)
            assert await whole(http, engine.url) == (200, b"mine")

    async def test_nothing_is_left_open_when_the_client_is_closed(self) -> None:
        async with peer(always(answer(b"hello"))) as engine:
            async with Client(connect=1, idle=1, total=1) as http:
                await asyncio.gather(*(whole(http, engine.url) for _ in range(3)))
                await http.send(engine.url, b"GET", "/")
                busy = await http.send(engine.url, b"GET", "/")
            assert repr(http) == "<engine connections: 0 busy, 0 kept>"
            await wait_for(lambda: not engine.open)
            with pytest.raises(EngineUnavailable):
                await busy.head()


class TestBrokenAnswers:
    async def expect(self, http: Client, sent: bytes, error: type[Exception], match: str) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(sent)

        async with peer(behave) as engine:
            with pytest.raises(error, match=match):
                await whole(http, engine.url)
            await lost(http)

    @pytest.mark.parametrize(
        "sent",
        [answer(b"hello")[:-1], chunked(b"hello")[:-1], chunked(b"hello")[:-5], chunked(b"hello")[:-7], chunked()[:-5]],
    )
    async def test_an_answer_cut_in_its_body_is_broken(self, http: Client, sent: bytes) -> None:
        await self.expect(http, sent, EngineBroke, "broke off")

    async def test_a_connection_closed_without_a_byte_means_nobody_is_there(self, http: Client) -> None:
        await self.expect(http, b"", EngineUnavailable, "without an answer")

    async def test_a_connection_closed_as_soon_as_it_is_made_means_nobody_is_there(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            line.writer.transport.abort()

        async with peer(behave) as engine:
            for _ in range(5):
                with pytest.raises(EngineUnavailable):
                    await whole(http, engine.url)

    @pytest.mark.parametrize("cut", [1, 12, 20, 30])
    async def test_an_answer_cut_in_its_head_is_broken(self, http: Client, cut: int) -> None:
        await self.expect(http, answer(b"hello")[:cut], EngineBroke, "broke off")

    @pytest.mark.parametrize(
        "sent",
        [
            b"\0" * 100,
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"<html>",
            b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        ],
    )
    async def test_what_is_not_http_is_broken(self, http: Client, sent: bytes) -> None:
        await self.expect(http, sent, EngineBroke, "not HTTP")

    async def test_garbage_in_the_middle_of_a_body_is_broken(self, http: Client) -> None:
        await self.expect(http, chunked(b"hello")[:-5] + b"garbage\r\n", EngineBroke, "not HTTP")

    async def test_an_answer_without_a_length_is_not_trusted(self, http: Client) -> None:
        await self.expect(http, b"HTTP/1.1 200 OK\r\n\r\nhello", EngineBroke, "no length")

    @pytest.mark.parametrize("filler", [b"a: " + b"b" * 4096 + b"\r\n", b"b" * 4096], ids=["many lines", "one line"])
    async def test_an_endless_head_is_given_up(self, http: Client, filler: bytes) -> None:
        sent = 0

        async def behave(line: Line) -> None:
            nonlocal sent
            await line.request()
            await line.send(b"HTTP/1.1 200 OK\r\nx: y")
            while sent < 64 * 1024 * 1024:
                await line.send(filler)
                sent += len(filler)

        async with peer(behave) as engine:
            with pytest.raises(EngineBroke, match="endless head"):
                await whole(http, engine.url)
            await wait_for(lambda: not engine.open)
        assert sent < 16 * 1024 * 1024


class TestSilence:
    async def test_an_engine_that_does_not_begin_its_answer_is_given_up(self) -> None:
        await self.expect(b"", "silent")

    async def test_an_engine_that_stops_in_its_answer_is_given_up(self) -> None:
        await self.expect(answer(b"hello")[:-1], "silent")

    async def test_an_engine_that_never_ends_is_given_up(self) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(chunked()[:-5])
            while True:
                await line.send(b"1\r\nx\r\n")
                await asyncio.sleep(0.02)

        async with peer(behave) as engine, Client(connect=1, idle=1, total=0.3) as http:
            with pytest.raises(EngineTimeout, match="longer than"):
                await whole(http, engine.url)

    async def test_an_engine_that_takes_no_upload_is_given_up(self) -> None:
        async def behave(line: Line) -> None:
            await asyncio.sleep(30)

        async with peer(behave) as engine, Client(connect=1, idle=0.2, total=20) as http:
            connection = await http.send(engine.url, b"POST", "/", more=1 << 30)
            async with asyncio.timeout(3):
                while await connection.upload(bytes(256 * 1024)):
                    pass
                with pytest.raises(EngineTimeout, match="silent"):
                    await connection.head()

    async def expect(self, sent: bytes, match: str) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            if sent:
                await line.send(sent)
            assert await line.hung_up()

        async with peer(behave) as engine, Client(connect=1, idle=0.2, total=20) as http:
            with pytest.raises(EngineTimeout, match=match):
                await whole(http, engine.url)
            await lost(http)
            await wait_for(lambda: not engine.open)


class TestReach:
    async def test_a_port_that_nobody_listens_on_is_unavailable(self, http: Client) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(EngineUnavailable, match="cannot be reached"):
                await http.send(f"http://127.0.0.1:{taken.getsockname()[1]}", b"GET", "/")

    async def test_a_name_that_nobody_has_is_unavailable(self, http: Client) -> None:
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await http.send("http://no-such-engine.invalid:1", b"GET", "/")

    async def test_a_port_that_does_not_accept_is_unavailable_in_time(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            with socket.create_connection(full.getsockname()):  # the one that the backlog holds
                async with Client(connect=0.1, idle=1, total=1) as http:
                    with pytest.raises(EngineUnavailable, match="within 0.1 s"):
                        for _ in range(3):
                            await http.send(f"http://127.0.0.1:{full.getsockname()[1]}", b"GET", "/")


class TestBackPressure:
    async def test_a_consumer_that_does_not_read_stops_the_sender(self, http: Client) -> None:
        size, sent = 64 * 1024 * 1024, 0

        async def behave(line: Line) -> None:
            nonlocal sent
            await line.request()
            await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size // 65536):
                await line.send(bytes(65536))
                sent += 65536
            await line.hung_up()

        async with peer(behave) as engine:
            connection = await http.send(engine.url, b"GET", "/")
            await connection.head()
            before = -1
            while before < sent:
                before = sent
                await asyncio.sleep(0.1)
            assert sent < size / 2, "the rest waits in the engine"
            assert len(await connection.read()) < 2 * 1024 * 1024, "what is read ahead"
            found = 0
            while piece := await connection.read():
                found += len(piece)
            http.give_back(connection)
            assert repr(http) == "<engine connections: 0 busy, 1 kept>"
