"""Speech out of worker processes, when they die."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engines.tts.job import Job
from engines.tts.source import Processes
from engines.workers.process import JobFailed, WorkerGone
from gateway.wire import cosyvoice as wire
from tests.engines.workers.puppet import Puppet, pool, until


class Dying(Puppet):
    async def ask(self, *_: Any, **__: Any) -> Any:
        raise WorkerGone("a worker died")

    @asynccontextmanager
    async def asking(self, *_: Any) -> AsyncIterator[None]:
        raise WorkerGone("a worker died")
        yield


async def test_a_worker_that_dies_before_its_answer_is_the_engines_failure_whatever_was_asked() -> None:
    workers = pool(Dying())
    source = Processes(workers)
    async with source.at_work():
        await until(workers, "1/1 workers")
        for asking in (_spoken(source), source.register("name", Job(wire.REGISTER, "")), source.registered()):
            with pytest.raises(JobFailed, match="a worker died before it answered; try again") as failed:
                await asking
            assert failed.value.status == 502
        assert "0/3 requests" in repr(workers)


async def _spoken(source: Processes) -> None:
    async with source.speaking(Job(wire.SFT, "hello")):
        pass
