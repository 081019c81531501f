"""The gateway as its clients meet it: real sockets on loopback, a scripted engine behind it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from engines.scripted import ScriptedEngine
from gateway.app import build
from gateway.serve import Server, configuration, listen
from gateway.settings import Settings
from gateway.state import State
from gateway.wire import wav
from tests import postgresql as postgresql_server
from tests.tiny.fixtures import cosyvoice_source as cosyvoice_source
from tests.tiny.fixtures import tiny_cosyvoice as tiny_cosyvoice

hypothesis.settings.register_profile("same every time", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same every time")

SHARED_AUDIO = Path(__file__).resolve().parents[2] / "shared" / "audio"


@dataclass(slots=True)
class Gateway:
    """A running gateway, and what a test may look at in it."""

    url: str
    port: int
    settings: Settings
    client: httpx.AsyncClient
    server: Server
    serving: "asyncio.Task[None]"
    state: State

    def scratch(self) -> list[Path]:
        """Every file and directory that a request has left in the scratch space, or is using."""
        return [path for path in self.state["scratch"].rglob("*") if path.name != "lock"]

    async def idle(self, seconds: float = 2.0) -> None:
        """Waits until no request is being worked on; fails when that takes too long."""
        async with asyncio.timeout(seconds):
            while self.server.server_state.tasks or self.scratch():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(tmp_path: Path, engine: ScriptedEngine | str, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway of this process, in this event loop, before `engine`."""
    url = engine if isinstance(engine, str) else engine.url
    given: dict[str, Any] = {"speak_urls": url, "transcribe_urls": url, "data_dir": tmp_path / "data"}
    chosen = Settings.model_validate(
        {"host": "127.0.0.1", "health_interval": 0.05, "shutdown_grace": 1.0} | given | settings
    )
    socket = listen(chosen.host, 0)
    app = build(chosen)
    server = Server(configuration(app, chosen))
    # _serve, because serve() would take over the signals of the test runner
    serving = asyncio.get_running_loop().create_task(server._serve([socket]))
    port = socket.getsockname()[1]
    try:
        async with asyncio.timeout(10):
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
        if serving.done():
            await serving
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Gateway(str(client.base_url), port, chosen, client, server, serving, server.lifespan.state)  # type: ignore[arg-type]
    finally:
        server.should_exit = True
        await serving


async def ready(gateway: Gateway) -> Gateway:
    async with asyncio.timeout(5):
        while (await gateway.client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.02)
    return gateway


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_server.Server]:
    if reason := postgresql_server.missing():
        pytest.skip(reason)
    with postgresql_server.server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of a gateway whose database is empty, of each kind there is."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql").database()
    return Settings(data_dir=tmp_path / "data", database_url=url)


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as engine:
        yield engine


@pytest.fixture
async def gateway(tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Gateway]:
    async with running(tmp_path, engine) as gateway:
        yield await ready(gateway)


@cache
def speech(seconds: float = 3.0, sample_rate: int = 16000) -> bytes:
    """A WAV that passes for speech: a buzz that swells and pauses like syllables. Mono s16le."""
    import numpy as np

    t = np.arange(int(seconds * sample_rate)) / sample_rate
    voice = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1) ** 0.7 * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * t))
    noise = np.random.default_rng(7).normal(0, 0.0005, t.size)
    pcm = (np.clip(voice * syllables * 0.2 + noise, -1, 1) * 32767).astype("<i2").tobytes()
    return wav.header(sample_rate, len(pcm) // 2) + pcm


async def register(gateway: Gateway, device: str = "device-1", name: str = "Ann", audio: bytes | None = None) -> str:
    """The id of a new voice."""
    answer = await gateway.client.post(
        "/v1/voices/train",
        data={"device_id": device, "name": name},
        files={"audio": ("me.wav", audio or speech(), "application/octet-stream")},
    )
    assert answer.status_code == 200, answer.text
    voice: str = answer.json()["data"]["voiceId"]
    return voice
