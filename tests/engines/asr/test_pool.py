import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.asr.messages import Answer, Hello
from engines.asr.pool import Pool
from engines.asr.process import WorkerGone
from engines.asr.refusals import Busy, NotReady
from engines.asr.server import Limits, create_app


class Puppet:
    """A worker without a process."""

    def __init__(self, loads: bool | str = True) -> None:
        self._loads = loads
        self.did: list[str] = []
        self.free = asyncio.Event()
        self._dead = asyncio.Event()
        self.free.set()

    async def hello(self) -> Hello:
        if self._loads is False:
            await asyncio.Event().wait()
        if isinstance(self._loads, str):
            raise WorkerGone(self._loads)
        return Hello("puppet", "cpu", ("en",))

    async def run(self, path: str, language: str, hotwords: tuple[str, ...]) -> Answer:
        self.did.append(path)
        await self.free.wait()
        return Answer(1, 200, path)

    async def ended(self) -> None:
        await self._dead.wait()
        raise WorkerGone("a recognition worker died")

    def cancel(self) -> None:
        self.did.append("cancel")
        self.free.set()

    def die(self) -> None:
        self._dead.set()


def pool(*puppets: Puppet, waiting: int = 2) -> Pool:
    coming = iter(puppets)

    @asynccontextmanager
    async def start() -> AsyncIterator[Any]:
        yield next(coming, None) or Puppet(loads=False)

    return Pool(start, 1, waiting)


async def until(pool: Pool, shown: str) -> None:
    async with asyncio.timeout(2):
        while shown not in repr(pool):
            await asyncio.sleep(0.005)


async def test_requests_beyond_the_queue_are_refused_and_a_seat_is_free_again_afterwards() -> None:
    asked = pool(Puppet(), waiting=1)
    async with asked.running():
        await until(asked, "1/1 workers")
        with asked.seat(), asked.seat():
            assert repr(asked) == "<recognition: 1/1 workers, 2/2 requests>"
            with pytest.raises(Busy, match="1 requests wait"), asked.seat():
                pass
        with asked.seat():
            pass


async def test_the_worker_that_died_is_replaced_and_only_its_job_is_lost() -> None:
    first, second = Puppet(), Puppet()
    first.free.clear()
    asked = pool(first, second)
    async with asked.running():
        with asked.job("a", "en", ()) as lost, asked.job("b", "en", ()) as kept:
            await until(asked, "1/1 workers")
            first.die()
            assert (await lost.answer).status == 502
            assert (await kept.answer).text == "b"


async def test_an_idle_workers_death_is_noticed_before_the_next_job() -> None:
    first, second = Puppet(), Puppet()
    asked = pool(first, second)
    async with asked.running():
        await until(asked, "1/1 workers")
        first.die()
        await until(asked, "0/1 workers")
        assert asked.report.state == "loading"
        with asked.job("a", "en", ()) as job:
            assert (await job.answer).text == "a"
        assert not first.did


async def test_a_job_taken_back_while_it_waits_never_reaches_a_worker() -> None:
    busy = Puppet()
    busy.free.clear()
    asked = pool(busy)
    async with asked.running():
        with asked.job("a", "en", ()) as first:
            with asked.job("b", "en", ()):
                await until(asked, "1/1 workers")
            with asked.job("c", "en", ()) as third:
                busy.free.set()
                assert [(await job.answer).text for job in (first, third)] == ["a", "c"]
    assert busy.did == ["a", "c"]


async def test_a_job_taken_back_while_it_runs_is_cancelled() -> None:
    busy = Puppet()
    busy.free.clear()
    asked = pool(busy)
    async with asked.running():
        await until(asked, "1/1 workers")
        with asked.job("a", "en", ()):
            while not busy.did:
                await asyncio.sleep(0)
        assert busy.did == ["a", "cancel"]


async def test_a_model_that_cannot_be_loaded_is_a_failure_with_its_reason_until_it_can() -> None:
    asked = pool(Puppet(loads="OSError: no such model"), Puppet())
    async with asked.running():
        async with asyncio.timeout(2):
            while asked.report.state == "loading":
                await asyncio.sleep(0.005)
        assert (asked.report.state, asked.report.reason) == ("failed", "OSError: no such model")
        with pytest.raises(NotReady, match="no such model"), asked.seat():
            pass
        await until(asked, "1/1 workers")
        assert (asked.report.state, asked.report.reason) == ("ready", "")


async def test_while_the_model_loads_health_says_so_and_recognition_asks_to_come_back(tmp_path: Path) -> None:
    asked = pool(Puppet(loads=False))
    app = create_app(asked, Limits(tmp_path, 1000, 1))
    async with (
        asked.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as http,
    ):
        health = await http.get("/health")
        assert (health.status_code, health.json()["state"]) == (503, "loading")
        answer = await http.post("/api/transcribe", files={"audio": b"x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "the recognition model is being loaded", "success": False}


async def test_a_text_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    slow = Puppet()
    slow.free.clear()
    asked = pool(slow)
    app = create_app(asked, Limits(tmp_path, 1000, 0.05))
    async with (
        asked.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as http,
    ):
        await until(asked, "1/1 workers")
        answer = await http.post("/api/transcribe", files={"audio": b"x"})
        assert (answer.status_code, slow.did[1:]) == (504, ["cancel"])
        assert repr(asked) == "<recognition: 1/1 workers, 0/3 requests>"
