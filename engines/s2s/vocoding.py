"""Codes made audible in a worker process that several replies share.

No job of such a worker is ever taken back: one that does not stop at once would be killed, and everybody's reply with
it. A reply that is left lets its last job end, and its stream is closed behind it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from engines.workers.messages import Fields
from engines.workers.pool import Pool
from engines.workers.process import JobFailed, Worker, WorkerGone


class Silent(Exception):
    """A worker said nothing for too long, and has been killed."""


class Vocoders:
    def __init__(self, pool: Pool, silence: float) -> None:
        """silence: seconds after which a worker that answers nothing is killed."""
        self._pool, self._silence = pool, silence
        self._streams = itertools.count(1)
        self._owner: asyncio.TaskGroup | None = None
        self._jobs: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Owns the jobs that outlive their replies."""
        async with asyncio.TaskGroup() as self._owner:
            try:
                yield
            finally:
                for job in self._jobs:
                    job.cancel()

    @asynccontextmanager
    async def stream(self, voice: str) -> AsyncIterator["Stream"]:
        """One reply's. Raises NotReady, WorkerGone, JobFailed and Silent."""
        with self._pool.sticky() as worker:
            stream = Stream(self, worker, next(self._streams))
            try:
                await stream.open(voice)
                yield stream
            finally:
                with suppress(WorkerGone):
                    self.start(stream.close())

    async def finished(self, worker: Worker, job: Coroutine[Any, Any, bytes]) -> bytes:
        """What a job comes to; whoever leaves before it does, leaves it running. Raises as `stream` does."""
        try:
            async with asyncio.timeout(self._silence):
                found, failure = await asyncio.shield(self.start(job))
        except TimeoutError:
            worker.kill()
            raise Silent(f"the vocoder said nothing for {self._silence:g} s") from None
        if failure is not None:
            raise failure
        return found

    def start(self, job: Coroutine[Any, Any, bytes]) -> "asyncio.Task[tuple[bytes, Exception | None]]":
        assert self._owner is not None, "at_work comes first"
        try:
            task = self._owner.create_task(_settled(job))
        except RuntimeError:  # it has ended
            job.close()
            raise WorkerGone("the engine ends") from None
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task


class Stream:
    def __init__(self, vocoders: Vocoders, worker: Worker, number: int) -> None:
        self._vocoders, self._worker, self._number = vocoders, worker, number

    async def open(self, voice: str) -> None:
        await self._ask("open", {"voice": voice})

    async def feed(self, codes: Sequence[int], *, last: bool) -> bytes:
        """Mono s16le, what can be said by now; after the last codes all that is left."""
        return await self._ask("feed", {"codes": list(codes), "last": last})

    async def close(self) -> bytes:
        return await self._sound("close", {})

    async def _ask(self, task: str, fields: Fields) -> bytes:
        return await self._vocoders.finished(self._worker, self._sound(task, fields))

    async def _sound(self, task: str, fields: Fields) -> bytes:
        async with self._worker.asking(task, {"stream": self._number, **fields}) as call:
            found = b""
            while (piece := await call.piece()) is not None:
                found += piece.data
            return found


async def _settled(job: Coroutine[Any, Any, bytes]) -> tuple[bytes, Exception | None]:
    """A task group takes the exceptions of its tasks for its own."""
    try:
        return await job, None
    except (WorkerGone, JobFailed) as exc:
        return b"", exc
