"""From a client to Fun-Audio-Chat's engine and back, past queues and tasks: nothing is lost, doubled or out of order,
and whatever is no plain page of speech goes the long way without being overtaken."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.asyncio.server import serve

from bench import echo
from gateway.adapters.fun_audio_chat import FunAudioChat
from gateway.adapters.http import client as http_client
from gateway.playout import Playout
from gateway.uplink import Uplink
from gateway.wire import fun_audio_chat as wire
from tests.conftest import Gateway
from tests.surfaces.talker import Stock, stock, talks

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def relay(gateway: Gateway) -> AsyncIterator[Gateway]:
    engine = echo.Echo()
    async with (
        serve(engine.talk, "127.0.0.1", 0, process_request=engine.answer, compression=None) as server,
        http_client(gateway.state["settings"]) as http,
    ):
        port = server.sockets[0].getsockname()[1]
        await talks(gateway, FunAudioChat(f"http://127.0.0.1:{port}", http, gateway.state["settings"]))
        yield gateway


async def heard(client: Stock, turn: int) -> list[tuple[int, int]]:
    """(turn, number) of each page of its reply."""
    await client.event("reply_done", turn=turn)
    pages = [echo.read(data[data.rfind(b"OggS") :])[:2] for data in client.audio()]
    return [page for page in pages if page[0] == turn]


async def test_pages_come_and_go_in_order(relay: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"said": 0, "played": 0}
    hear_now, play_now = Uplink.hear_now, Playout.play_now

    def said(*args: object) -> bool:
        took = hear_now(*args)  # type: ignore[arg-type]
        ways["said"] += took
        return took

    def played(*args: object) -> bool:
        took = play_now(*args)  # type: ignore[arg-type]
        ways["played"] += took
        return took

    monkeypatch.setattr(Uplink, "hear_now", said)
    monkeypatch.setattr(Playout, "play_now", played)
    async with stock(relay) as client:
        head = echo.headers()
        for turn in (1, 2, 3):
            if turn > 1:
                await client.start()
            for number in range(10):
                await client.socket.send(b"\1" + head + echo.page(turn, number))
                head = b""
                await asyncio.sleep(0.01)
            await client.pause()
            assert await heard(client, turn) == [(turn, number) for number in range(10)]
    assert ways["said"] >= 18 and ways["played"] >= 18, "most of them went the short way"


async def test_a_burst_in_any_cut_keeps_its_order(relay: Gateway) -> None:
    """As TCP may cut it: several frames in a read, and halves of them."""
    async with stock(relay) as client:
        frames = [b"\1" + echo.headers() + echo.page(1, 0)]
        frames += [b"\1" + echo.page(1, number) for number in range(1, 40)]
        frames += [wire.encode(wire.Ping()), wire.encode(wire.Control(wire.Action.PAUSE))]
        for frame in frames:
            client.socket.protocol.send_binary(frame)
        data = b"".join(client.socket.protocol.data_to_send())
        for size in (1, 2, 3, 5, 7, 1000, 170, 400):
            client.socket.transport.write(data[:size])
            data = data[size:]
            await asyncio.sleep(0.02)
        client.socket.transport.write(data)
        assert await heard(client, 1) == [(1, number) for number in range(40)]


async def test_a_message_in_fragments_keeps_its_place(relay: Gateway) -> None:
    async with stock(relay) as client:
        await client.socket.send(b"\1" + echo.headers() + echo.page(1, 0))
        for number in range(1, 10):
            await asyncio.sleep(0.02)
            message = b"\1" + echo.page(1, number)
            await client.socket.send([message[:30], message[30:]] if number % 3 == 0 else message)
            if number == 5:
                await client.socket.ping()
        await client.pause()
        assert await heard(client, 1) == [(1, number) for number in range(10)]
