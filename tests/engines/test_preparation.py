import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import pytest

from engines import preparation
from engines.preparation import Left, Preparation
from gateway.wire.engine_health import Progress

Tell = Callable[[Progress], None]
MODULE = "tests.engines.workers.backends"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_health_says_how_far_it_is_and_a_worker_starts_when_all_is_there(tmp_path: Path) -> None:
    let = Event()

    def provide(tell: Tell) -> Sequence[Path]:
        tell(Progress("model", 1, 4))
        assert let.wait(5)
        return [tmp_path]

    prepared = Preparation(provide, threads=3)
    async with prepared.at_work():
        await until(lambda: prepared.report is not None and prepared.report.progress == Progress("model", 1, 4))
        assert prepared.report is not None
        assert prepared.report.state == "loading"
        assert prepared.why() == "the engine is loading: model, 25 % of 0.0 MB"
        let.set()
        async with prepared.worker(MODULE, [], "cpu") as worker:
            assert (await worker.hello()).device == "cpu"
        assert (prepared.report, prepared.why()) == (None, "")


async def test_what_cannot_be_had_is_a_failure_with_its_reason_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparation, "_AGAIN", 0.05)
    tries: list[int] = []

    def provide(tell: Tell) -> Sequence[Path]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("the mirror is down")
        return []

    prepared = Preparation(provide, threads=1)
    async with prepared.at_work():
        await until(lambda: prepared.report is not None and prepared.report.state == "failed")
        assert prepared.report is not None
        assert prepared.report.reason == prepared.why() == "the mirror is down"
        await until(lambda: prepared.report is None)
    assert len(tries) == 3


async def test_a_server_that_ends_does_not_wait_and_the_one_who_provides_is_told() -> None:
    let, told = Event(), Event()

    def provide(tell: Tell) -> Sequence[Path]:
        assert let.wait(5)
        try:
            tell(Progress("model"))
        except Left:
            told.set()
            raise
        return []

    async with Preparation(provide, threads=1).at_work():
        await asyncio.sleep(0)
    let.set()
    assert await asyncio.to_thread(told.wait, 5)
