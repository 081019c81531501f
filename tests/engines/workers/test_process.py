"""A worker as a real process, and the server's end of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from engines.workers import messages
from engines.workers.process import JobFailed, Worker, WorkerGone, started

MODULE = "tests.engines.workers.backends"


@asynccontextmanager
async def worker(*options: str, device: str = "cpu") -> AsyncIterator[Worker]:
    async with started(MODULE, options, device, {"PYTHONPATH": str(Path(__file__).parents[3])}) as running:
        assert (await running.hello()).facts == {"answer": 42}
        async with asyncio.TaskGroup() as tasks:
            ears = tasks.create_task(_listen(running))
            yield running
            ears.cancel()


async def _listen(running: Worker) -> None:
    with suppress(WorkerGone):
        await running.listen()


async def test_pieces_come_in_order_and_then_the_answer() -> None:
    async with worker() as running, running.asking("count", {"to": 3}, b"pcm") as call:
        pieces = [await call.piece() for _ in range(3)]
        assert [(piece.fields["number"], piece.data) for piece in pieces if piece] == [(n, b"pcm") for n in range(3)]
        assert await call.piece() is None
        assert call.fields == {"done": "count"}


async def test_a_refusal_keeps_its_status_and_words_and_any_other_failure_only_its_kind(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with worker() as running:
        with pytest.raises(JobFailed, match="not like this") as refused:
            await running.ask("refuse", {})
        assert refused.value.status == 422
        with pytest.raises(JobFailed) as failed:
            await running.ask("fail", {})
        assert (failed.value.status, str(failed.value)) == (500, "RuntimeError in the engine")
        assert await running.ask("count", {"to": 0}) == {"done": "count"}, "it works again"
    log = capfd.readouterr().err
    assert "a job failed: RuntimeError" in log
    assert 'in run\n    raise RuntimeError("a secret")' in log, "the line of code"
    assert "RuntimeError: a secret" not in log


async def test_a_job_that_is_left_is_stopped_and_the_worker_goes_on() -> None:
    async with worker() as running:
        async with running.asking("until stopped", {}) as call:
            assert await call.piece()
        assert call.over
        assert await running.ask("count", {"to": 1}) == {"done": "count"}


async def test_what_is_urgent_is_done_in_the_pauses_of_a_long_job_and_at_once_where_there_is_none() -> None:
    async with worker() as running:
        async with running.asking("long", {}) as call:
            assert await call.piece()
            assert await running.ask("hurry", {}, urgent=True) == {"done": "hurry"}
            assert await call.answer() == {"done": "long"}
        assert await running.ask("hurry", {}, urgent=True) == {"done": "hurry"}


async def test_a_slow_reader_holds_the_worker_back_and_may_leave_all_the_same() -> None:
    async with worker() as running:
        async with running.asking("count", {"to": 10_000}, bytes(4096)) as call:
            await call.piece()
            await asyncio.sleep(0.2)
        assert await running.ask("count", {"to": 1}) == {"done": "count"}


async def test_a_reader_who_reads_nothing_is_not_read_ahead_for_without_end(tmp_path: Path) -> None:
    async with worker() as running:
        async with running.asking("count", {"to": 1000, "log": str(tmp_path / "said")}, bytes(100_000)) as call:
            await call.piece()
            said, before = -1, -2
            while said != before:  # until it is held back
                before = said
                await asyncio.sleep(0.2)
                said = (tmp_path / "said").stat().st_size
            assert 4 < said < 20
        assert call.over


async def test_a_job_that_is_larger_than_a_message_is_refused_and_the_worker_goes_on() -> None:
    async with worker() as running:
        for fields, data in (
            ({"to": 0}, bytes(messages.LONGEST + 1)),
            ({"to": 0, "text": "x" * messages.LONGEST}, b""),
        ):
            with pytest.raises(JobFailed, match="too large") as refused:
                await running.ask("count", fields, data)
            assert refused.value.status == 413
        assert await running.ask("count", {"to": 1}, bytes(20 * 2**20)) == {"done": "count"}


async def test_whoever_waits_for_an_answer_when_the_server_ends_is_told() -> None:
    async with started(MODULE, [], "cpu", {"PYTHONPATH": str(Path(__file__).parents[3])}, patience=60) as running:
        await running.hello()
        async with asyncio.TaskGroup() as tasks:
            ears = tasks.create_task(_listen(running))
            async with running.asking("deaf", {}) as call:
                await call.piece()
                ears.cancel()
                async with asyncio.timeout(2):
                    with pytest.raises(WorkerGone, match="the engine ends"):
                        await call.answer()


async def test_a_worker_has_its_time_to_stop_however_often_its_job_is_cancelled() -> None:
    async with started(MODULE, [], "cpu", {"PYTHONPATH": str(Path(__file__).parents[3])}, patience=60) as running:
        await running.hello()
        begun = asyncio.Event()

        async def work() -> None:
            async with running.asking("slow to stop", {}) as call:
                await call.piece()
                begun.set()
                await call.answer()

        async with asyncio.TaskGroup() as tasks:
            ears = tasks.create_task(_listen(running))
            job = tasks.create_task(work())
            await begun.wait()
            for _ in range(5):
                job.cancel()
                await asyncio.sleep(0.05)
            await asyncio.wait([job])
            assert job.cancelled()
            assert await running.ask("count", {"to": 1}) == {"done": "count"}, "it was not killed"
            ears.cancel()


async def test_a_worker_that_does_not_stop_is_killed() -> None:
    async with worker() as running:
        async with running.asking("deaf", {}) as call:
            assert await call.piece()
            await asyncio.sleep(0.1)  # now it is in its long sleep
        with pytest.raises(WorkerGone):
            await running.ask("count", {"to": 1})


async def test_a_death_reaches_everyone_who_waits() -> None:
    async with worker() as running:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(_gone(running, task)) for task in ("die", "count", "count")]
        assert [one.result() for one in asked] == ["a worker died"] * 3


async def _gone(running: Worker, task: str) -> str:
    with pytest.raises(WorkerGone) as gone:
        await running.ask(task, {"to": 1})
    return str(gone.value)


async def test_a_worker_that_has_died_is_asked_in_vain_and_says_so() -> None:
    async with worker() as running:
        running.kill()
        async with asyncio.timeout(5):
            while True:
                try:
                    await running.ask("count", {"to": 0})
                except WorkerGone:
                    break
            with pytest.raises(WorkerGone):
                await running.ask("count", {"to": 0})


async def test_a_model_that_cannot_be_loaded_is_said() -> None:
    async with started(MODULE, ["--broken"], "cpu", {}) as running:
        with pytest.raises(WorkerGone, match="OSError: no such model"):
            await running.hello()


async def test_a_worker_sees_its_own_device_only() -> None:
    async with started(MODULE, [], "cuda:3", {}) as running:
        hello = await running.hello()
        (process,) = [one for one in psutil.Process().children() if MODULE in one.cmdline()]
        own = process.environ()
        assert (hello.device, own["CUDA_VISIBLE_DEVICES"]) == ("cuda:0", "3")
        assert own["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "as the operator's nvidia-smi counts them"


async def test_the_process_is_gone_when_the_block_ends() -> None:
    async with worker():
        (process,) = [one for one in psutil.Process().children() if MODULE in one.cmdline()]
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_what_a_killed_worker_leaves_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with worker() as running:
        (folder,) = tmp_path.iterdir()
        (folder / "left").write_bytes(b"by a library")
        running.kill()
        with pytest.raises(WorkerGone):
            await running.ask("count", {"to": 1})
    assert not list(tmp_path.iterdir())


async def test_a_worker_whose_model_is_heavy_is_given_time_to_stop() -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    async with started(MODULE, [], "cpu", environment, patience=30) as running:
        await running.hello()
        async with asyncio.TaskGroup() as tasks:
            ears = tasks.create_task(_listen(running))
            async with running.asking("slow to stop", {}) as call:
                await call.piece()
            assert await running.ask("count", {"to": 1}) == {"done": "count"}
            ears.cancel()
