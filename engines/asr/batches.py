"""Short recordings that wait for a worker at the same time, and ask for the same, are heard together.

Rule 1: nobody waits to be joined: a batch is what waits already when a worker is free.
Rule 2: a recording fails alone, and whoever leaves leaves the others be; when all have left, the worker is told.
Rule 3: a long recording is heard alone, so that no short one waits for its end.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from engines.workers.messages import Fields
from engines.workers.pool import NotReady, Pool
from engines.workers.process import JobFailed, Worker, WorkerGone

SHORT = 4 * 2**20
"""Bytes of a file: two minutes at 16 kHz."""
MOST = 16
"""Recordings heard together, where the model can."""


@dataclass(eq=False, slots=True)
class Waiting:
    path: str
    asked: Fields
    """The fields of backends.Asked."""
    alone: bool
    heard: "asyncio.Future[Fields]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def kind(self) -> Hashable:
        return self.asked["language"], tuple(self.asked["hotwords"]), self.asked["itn"]


class Batches:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[Waiting] = deque()
        self._some = asyncio.Event()

    def __repr__(self) -> str:
        return f"<{len(self._waiting)} recordings wait>"

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            dispatcher = tasks.create_task(self._dispatch(tasks))
            try:
                yield
            finally:
                dispatcher.cancel()

    async def heard(self, path: str, size: int, asked: Fields) -> Fields:
        """The fields of backends.Heard. Raises JobFailed, WorkerGone and NotReady."""
        one = Waiting(path, asked, size > SHORT)
        self._waiting.append(one)
        self._some.set()
        try:
            return await one.heard
        finally:
            one.heard.cancel()
            if one in self._waiting:
                self._waiting.remove(one)

    # Private

    async def _dispatch(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._some.wait()
            async with AsyncExitStack() as stack:
                try:
                    worker = await stack.enter_async_context(self._pool.claim())
                except NotReady as exc:
                    self._turn_away(exc)
                    continue
                if batch := self._next():
                    tasks.create_task(self._hear(worker, batch, stack.pop_all()))

    def _turn_away(self, exc: NotReady) -> None:
        for one in self._waiting:
            if not one.heard.done():  # somebody may be just leaving
                one.heard.set_exception(exc)
        self._waiting.clear()
        self._some.clear()

    def _next(self) -> list[Waiting]:
        """Who waits longest, and all that can go along."""
        most = min(MOST, self._pool.facts["together"])
        batch: list[Waiting] = []
        for one in list(self._waiting):
            fits = not batch or (one.kind == batch[0].kind and not (one.alone or batch[0].alone))
            if fits and len(batch) < most:
                batch.append(one)
                self._waiting.remove(one)
        if not self._waiting:
            self._some.clear()
        return batch

    async def _hear(self, worker: Worker, batch: list[Waiting], claim: AsyncExitStack) -> None:
        """Every future of the batch has an outcome afterwards."""
        async with claim:
            try:
                async with asyncio.TaskGroup() as tasks:
                    work = tasks.create_task(_answer(worker, batch))
                    left = tasks.create_task(_all_have_left(batch))
                    await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
                    work.cancel()
                    left.cancel()
            finally:
                for one in batch:
                    one.heard.cancel()


async def _answer(worker: Worker, batch: list[Waiting]) -> None:
    fields = {"paths": [one.path for one in batch], **batch[0].asked}
    failure: Exception = JobFailed("the engine forgot this recording", 500)
    try:
        async with worker.asking("transcribe", fields) as call:
            while (piece := await call.piece()) is not None:
                _settle(batch[piece.fields["index"]], piece.fields)
    except (JobFailed, WorkerGone) as exc:
        failure = exc
    for one in batch:
        if not one.heard.done():
            one.heard.set_exception(failure)


def _settle(one: Waiting, said: Fields) -> None:
    if one.heard.done():
        return
    if said["status"] == 200:
        heard: dict[str, Any] = said["heard"]
        one.heard.set_result(heard)
    else:
        one.heard.set_exception(JobFailed(said["text"], said["status"]))


async def _all_have_left(batch: list[Waiting]) -> None:
    await asyncio.wait([one.heard for one in batch])
    if not all(one.heard.cancelled() for one in batch):
        await asyncio.Event().wait()  # then the answer ends it
