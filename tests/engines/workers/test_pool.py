import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engines.workers.pool import Busy, NotReady, Pool
from engines.workers.process import Worker, WorkerGone, started
from tests.engines.workers.puppet import Puppet, pool, until


async def test_requests_beyond_the_queue_are_refused_and_a_seat_is_free_again_afterwards() -> None:
    asked = pool(Puppet(), waiting=1)
    async with asked.at_work():
        await until(asked, "1/1 workers")
        with asked.seat(), asked.seat():
            assert repr(asked) == "<recognition: 1/1 workers, 2/2 requests>"
            with pytest.raises(Busy, match="1 requests wait already"), asked.seat():
                pass
        with asked.seat():
            pass


async def test_the_worker_that_died_is_replaced_and_only_its_job_is_lost() -> None:
    first, second = Puppet(), Puppet()
    first.free.clear()
    asked = pool(first, second)

    async def job(path: str) -> str:
        try:
            async with asked.claim() as worker:
                return str((await worker.ask("transcribe", {"path": path}))["text"])
        except WorkerGone:
            return "lost"

    async with asked.at_work():
        await until(asked, "1/1 workers")
        async with asyncio.TaskGroup() as tasks:
            lost = tasks.create_task(job("a"))
            kept = tasks.create_task(job("b"))
            while not first.did:
                await asyncio.sleep(0)
            first.die()
        assert (lost.result(), kept.result()) == ("lost", "b")


async def test_an_idle_workers_death_is_noticed_before_the_next_job() -> None:
    first, second = Puppet(), Puppet()
    asked = pool(first, second)
    async with asked.at_work():
        await until(asked, "1/1 workers")
        first.die()
        await until(asked, "0/1 workers")
        assert asked.report.state == "loading"
        async with asked.claim() as worker:
            assert worker is second  # type: ignore[comparison-overlap]
        assert not first.did


async def test_whoever_leaves_the_queue_never_reaches_a_worker_and_the_next_one_does() -> None:
    asked = pool(Puppet())
    order: list[str] = []

    async def wait(name: str) -> None:
        async with asked.claim():
            order.append(name)

    async with asked.at_work():
        await until(asked, "1/1 workers")
        async with asyncio.TaskGroup() as tasks, asked.claim():
            left = tasks.create_task(wait("left"))
            tasks.create_task(wait("stays"))
            await asyncio.sleep(0)
            left.cancel()
        assert order == ["stays"]


async def test_of_two_devices_the_one_that_does_less_is_taken() -> None:
    workers = [Puppet(device=device) for device in ("cuda:0", "cuda:0", "cuda:1", "cuda:1")]
    asked = pool(*workers, devices=("cuda:0", "cuda:0", "cuda:1", "cuda:1"))
    async with asked.at_work():
        await until(asked, "4/4 workers")
        async with asked.claim() as first, asked.claim() as second, asked.claim(), asked.claim():
            assert {first.device, second.device} == {"cuda:0", "cuda:1"}


async def test_sessions_are_spread_over_the_workers_and_stay_where_they_are() -> None:
    asked = pool(Puppet(), Puppet(), devices=("cpu", "cpu"))
    async with asked.at_work():
        await until(asked, "2/2 workers")
        with asked.sticky() as first, asked.sticky() as second:
            assert first is not second
            with asked.sticky():
                assert sorted([first.running, second.running]) == [1, 2]
        with asked.sticky() as again:
            assert again.running == 1


async def test_a_model_that_cannot_be_loaded_is_a_failure_with_its_reason_until_it_can() -> None:
    asked = pool(Puppet(loads="OSError: no such model"), Puppet())
    async with asked.at_work():
        async with asyncio.timeout(2):
            while asked.report.state == "loading":
                await asyncio.sleep(0.005)
        assert (asked.report.state, asked.report.reason) == ("failed", "OSError: no such model")
        with pytest.raises(NotReady, match="no such model"), asked.seat():
            pass
        await until(asked, "1/1 workers")
        assert (asked.report.state, asked.report.reason) == ("ready", "")


async def test_whoever_asks_too_early_is_told_what_is_missing() -> None:
    asked = Pool("synthesis", never, ["cpu"], 2, lambda: "llm.pt is missing")
    with pytest.raises(NotReady, match="llm.pt is missing"), asked.seat():
        pass


def never(device: str) -> Any:
    raise AssertionError("nothing is started")


async def test_a_worker_returned_after_its_death_is_not_handed_on() -> None:
    first, second = Puppet(), Puppet()
    asked = pool(first, second)
    async with asked.at_work():
        await until(asked, "1/1 workers")
        async with asked.claim() as worker:
            first.die()
            await until(asked, "0/1 workers")
        async with asked.claim() as again:
            assert isinstance(worker, Puppet | Worker)
            assert again is second  # type: ignore[comparison-overlap]


async def test_a_worker_that_was_killed_is_not_handed_on_though_its_end_was_not_heard_yet() -> None:
    first, second = Puppet(), Puppet()
    asked = pool(first, second)

    async def next_one() -> object:
        async with asked.claim() as worker:
            return worker

    async with asked.at_work(), asyncio.TaskGroup() as tasks:
        await until(asked, "1/1 workers")
        async with asked.claim():
            waiting = tasks.create_task(next_one())
            await asyncio.sleep(0)
            first.gone = True
        with pytest.raises(NotReady), asked.sticky():
            pass
        first.die()
        assert await waiting is second


async def test_whoever_waits_is_turned_away_where_no_worker_can_be_had_any_more() -> None:
    first = Puppet()
    asked = pool(first, Puppet(loads="OSError: the disk has gone"))

    async def next_one() -> None:
        with pytest.raises(NotReady, match="the disk has gone"):
            async with asyncio.timeout(2), asked.claim():
                pass

    async with asked.at_work(), asyncio.TaskGroup() as tasks:
        await until(asked, "1/1 workers")
        async with asked.claim():
            waiting = tasks.create_task(next_one())
            await asyncio.sleep(0)
            first.die()
            await waiting


async def test_a_worker_that_cannot_be_started_is_tried_again_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    start = partial(started, "tests.engines.workers.backends", (), environment={})
    asked = Pool("recognition", start, ("cpu",), 0)
    async with asked.at_work():
        async with asyncio.timeout(2):
            while asked.report.state == "loading":
                await asyncio.sleep(0.005)
        assert "No such file" in asked.report.reason
