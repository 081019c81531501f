import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engines.asr.batches import SHORT, Batches
from engines.workers.messages import Fields, Hello, Piece
from engines.workers.pool import NotReady, Pool
from engines.workers.process import JobFailed, WorkerGone

ZH: Fields = {"language": "zh", "hotwords": [], "itn": True}


class Call:
    def __init__(self, ears: "Ears", paths: list[str]) -> None:
        self._ears, self._paths, self._next = ears, paths, 0

    async def piece(self) -> Piece | None:
        await self._ears.free.wait()
        if self._ears.failure:
            raise self._ears.failure
        index, self._next = self._next, self._next + 1
        if index == len(self._paths):
            return None
        path = self._paths[index]
        said: dict[str, Any] = {"status": 200, "heard": {"text": path}}
        return Piece(1, {"index": index, **(said if path != "bad" else {"status": 400, "text": "not audio"})})


class Ears:
    """A worker that hears the name of a file, as soon as it is let."""

    device, running, gone = "cpu", 0, None

    def __init__(self, together: int = 4) -> None:
        self.together, self.free = together, asyncio.Event()
        self.batches: list[list[str]] = []
        self.given_up = 0
        self.failure: Exception | None = None

    async def hello(self) -> Hello:
        return Hello("ears", "cpu", {"together": self.together})

    async def listen(self) -> None:
        await asyncio.Event().wait()

    @asynccontextmanager
    async def asking(self, task: str, fields: Fields) -> AsyncIterator[Call]:
        self.batches.append(fields["paths"])
        try:
            yield Call(self, fields["paths"])
        except asyncio.CancelledError:
            self.given_up += 1
            raise


@asynccontextmanager
async def hearing(ears: Ears) -> AsyncIterator[Batches]:
    @asynccontextmanager
    async def start(device: str) -> AsyncIterator[Any]:
        yield ears

    pool = Pool("recognition", start, ["cpu"], 64)
    batches = Batches(pool)
    async with pool.at_work(), batches.at_work():
        yield batches


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def all_heard(batches: Batches, ears: Ears, *paths: str, **asked: Any) -> list[Any]:
    """The first has the worker to itself, the others wait meanwhile."""
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(batches.heard("first", 1, ZH))
        await settle()
        others = [tasks.create_task(batches.heard(path, 1, {**ZH, **asked})) for path in paths]
        await settle()
        ears.free.set()
    return [task.result()["text"] for task in (first, *others)]


async def test_who_waits_at_the_same_time_is_heard_together_and_each_gets_its_own() -> None:
    ears = Ears()
    async with hearing(ears) as batches, asyncio.timeout(2):
        assert await all_heard(batches, ears, "a", "b", "c", "d", "e") == ["first", "a", "b", "c", "d", "e"]
    assert ears.batches == [["first"], ["a", "b", "c", "d"], ["e"]]


async def test_a_model_that_gains_nothing_hears_them_one_by_one() -> None:
    ears = Ears(together=1)
    async with hearing(ears) as batches, asyncio.timeout(2):
        assert await all_heard(batches, ears, "a", "b") == ["first", "a", "b"]
    assert ears.batches == [["first"], ["a"], ["b"]]


async def test_only_those_who_ask_for_the_same_go_along() -> None:
    ears = Ears()
    async with hearing(ears) as batches, asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        for path, size, asked in (
            ("first", 1, ZH), ("zh", 1, ZH), ("en", 1, {**ZH, "language": "en"}), ("zh too", 1, ZH),
            ("words", 1, {**ZH, "hotwords": ["x"]}), ("long", SHORT + 1, ZH), ("last zh", 1, ZH),
        ):  # fmt: skip
            tasks.create_task(batches.heard(path, size, asked))
            await settle()
        ears.free.set()
    assert ears.batches == [["first"], ["zh", "zh too", "last zh"], ["en"], ["words"], ["long"]]


async def test_a_recording_that_is_none_fails_alone() -> None:
    ears = Ears()
    async with hearing(ears) as batches, asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        tasks.create_task(batches.heard("first", 1, ZH))
        await settle()
        good = tasks.create_task(batches.heard("good", 1, ZH))
        bad = tasks.create_task(_failing(batches, "bad"))
        await settle()
        ears.free.set()
    assert good.result()["text"] == "good"
    assert (bad.result().status, str(bad.result())) == (400, "not audio")


async def _failing(batches: Batches, path: str) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        await batches.heard(path, 1, ZH)
    return failed.value


async def test_who_leaves_leaves_the_others_be_and_when_all_have_left_the_worker_is_told() -> None:
    ears = Ears()
    async with hearing(ears) as batches, asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        tasks.create_task(batches.heard("first", 1, ZH))
        await settle()
        leaves, stays = (tasks.create_task(batches.heard(path, 1, ZH)) for path in ("leaves", "stays"))
        waits = tasks.create_task(batches.heard("waits", 1, {**ZH, "itn": False}))
        await settle()
        waits.cancel()
        ears.free.set()
        await settle()
        ears.free.clear()
        assert (stays.result()["text"], leaves.result()["text"]) == ("stays", "leaves")
        both = [tasks.create_task(batches.heard(path, 1, ZH)) for path in ("x", "y")]
        await settle()
        both[0].cancel()
        await settle()
        assert ears.given_up == 0
        both[1].cancel()
        await settle()
    assert ears.given_up >= 1
    assert ["waits"] not in ears.batches


@pytest.mark.parametrize("failure", [WorkerGone("a worker died"), JobFailed("out of memory", 503)])
async def test_a_failure_reaches_everyone_in_the_batch_and_the_next_is_heard(failure: Exception) -> None:
    ears = Ears()
    ears.failure = failure
    ears.free.set()
    async with hearing(ears) as batches, asyncio.timeout(2):
        with pytest.raises(type(failure), match=str(failure)):
            await batches.heard("a", 1, ZH)
        ears.failure = None
        assert (await batches.heard("b", 1, ZH))["text"] == "b"


async def test_who_leaves_in_the_moment_when_all_are_turned_away_does_not_stop_the_rest() -> None:
    ears = Ears()
    ears.free.set()
    async with hearing(ears) as batches, asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        leaves, stays = (tasks.create_task(_turned_away(batches, path)) for path in ("leaves", "stays"))
        await asyncio.sleep(0)
        leaves.cancel()
        batches._turn_away(NotReady("no model"))
        await asyncio.wait([leaves, stays])
        assert (leaves.cancelled(), str(stays.result())) == (True, "no model")
        assert (await batches.heard("next", 1, ZH))["text"] == "next"


async def _turned_away(batches: Batches, path: str) -> NotReady:
    with pytest.raises(NotReady) as refused:
        await batches.heard(path, 1, ZH)
    return refused.value
