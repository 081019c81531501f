"""`WS /asr/2pass` before the embedded engine, by every adapter, with speech and our own endpointer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from gateway.wire import wav
from tests.conftest import Gateway, running
from tests.engines.asr.running import Server, serving
from tests.engines.asr.sound import RATE, say, silence
from tests.surfaces.test_funasr_2pass import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")
SENTENCES = ("stop the music", "what time is it")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded engine, as a process of its own."""
    with serving(tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", params=["funasr", "funasr_http", "funasr_ws"])
async def gateway(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    adapter: str = request.param
    url = server.url.replace("http://", "ws://") if adapter == "funasr_ws" else server.url
    async with running(tmp_path, "http://127.0.0.1:9", transcribe_engine=adapter, transcribe_urls=url) as gateway:
        async with asyncio.timeout(10):
            while gateway.state["transcribe"].health().state != "ready":
                await asyncio.sleep(0.02)
        yield gateway


@asynccontextmanager
async def talking(gateway: Gateway) -> AsyncIterator[Client]:
    """With time for an engine that really works."""
    url = f"ws://127.0.0.1:{gateway.port}/asr/2pass"
    async with asyncio.timeout(60), connect(url, proxy=None, subprotocols=[Subprotocol("binary")]) as socket:
        yield Client(socket)


def spoken() -> tuple[bytes, list[float]]:
    """Both sentences, and the second at which each begins."""
    sound, begins = silence(0.7), []
    for text in SENTENCES:
        begins.append(len(sound) / 2 / RATE)
        sound += say(text) + silence(1.3)
    return sound, begins


async def test_each_sentence_is_told_with_its_place_in_the_stream(gateway: Gateway) -> None:
    sound, begins = spoken()
    async with talking(gateway) as client:
        await client.begin()
        await client.say(sound)
        await client.end()
        assert (await client.rest())["is_final"]
    found = [said for said in client.told if said.get("mode") == "2pass-offline"]
    assert [said["text"] for said in found] == list(SENTENCES)
    for said, begin in zip(found, begins, strict=True):
        assert begin - 0.5 <= said["start_time"] / 1000 <= begin + 0.3
        assert said["start_time"] + 500 < said["end_time"] <= 1000 * begin + 2500
    await gateway.idle()


async def test_a_file_is_heard_as_what_it_holds(gateway: Gateway) -> None:
    sound, _ = spoken()
    async with talking(gateway) as client:
        await client.begin("offline", wav_format="wav")
        await client.say(wav.header(RATE, len(sound) // 2) + sound, size=50_000)
        await client.end()
        await client.rest()
    assert [said["text"] for said in client.told if said.get("text")] == list(SENTENCES)
    await gateway.idle()
