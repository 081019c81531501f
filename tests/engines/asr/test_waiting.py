"""What the server says while its workers load, fail, or take too long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from engines.asr.server import Limits, create_app
from engines.workers.pool import Pool
from tests.engines.workers.puppet import Puppet, pool, until


@asynccontextmanager
async def client(asked: Pool, scratch: Path, seconds: float = 1) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(asked, Limits(scratch, 1000, seconds))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://engine") as http,
    ):
        yield http


async def test_while_the_model_loads_health_says_so_and_recognition_asks_to_come_back(tmp_path: Path) -> None:
    asked = pool(Puppet(loads=False))
    async with client(asked, tmp_path) as http:
        health = await http.get("/health")
        assert (health.status_code, health.json()["state"], health.headers["retry-after"]) == (503, "loading", "5")
        answer = await http.post("/api/transcribe", files={"audio": b"x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "the recognition model is being loaded", "success": False}


async def test_a_text_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    slow = Puppet()
    slow.free.clear()
    asked = pool(slow)
    async with client(asked, tmp_path, 0.05) as http:
        await until(asked, "1/1 workers")
        answer = await http.post("/api/transcribe", files={"audio": b"x"})
        assert answer.status_code == 504
        async with asyncio.timeout(2):
            while slow.did[1:] != ["cancel"]:
                await asyncio.sleep(0)
        assert repr(asked) == "<recognition: 1/1 workers, 0/3 requests>"


async def test_what_the_model_can_is_told(tmp_path: Path) -> None:
    asked = pool(Puppet())
    async with client(asked, tmp_path) as http:
        await until(asked, "1/1 workers")
        found = (await http.get("/api/info")).json()
        assert (found["model"], found["timestamps"], found["supported_languages"]) == ("puppet", False, ["英文"])
