"""The worker processes and the queue before them. A worker that dies is replaced; a queue that is full refuses."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress

from engines.asr.messages import Answer, Hello
from engines.asr.process import Worker, WorkerGone
from engines.asr.refusals import Busy, NotReady
from gateway.wire.engine_health import Report

log = logging.getLogger(__name__)

Start = Callable[[], AbstractAsyncContextManager[Worker]]
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 0.1, 10.0


class Job:
    """One recognition that somebody waits for."""

    def __init__(self, path: str, language: str, hotwords: tuple[str, ...]) -> None:
        self.path, self.language, self.hotwords = path, language, hotwords
        self.worker: Worker | None = None
        """Who is at it."""
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def finish(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def abandon(self) -> None:
        """Nobody waits any more: if a worker is at it, it is told to stop."""
        self.finish(Answer(0, 499, "cancelled"))
        if self.worker is not None:
            self.worker.cancel()


class Pool:
    def __init__(self, start: Start, workers: int, waiting: int) -> None:
        self._start, self._workers, self._waiting = start, workers, waiting
        self._queue: deque[Job] = deque()
        self._queued = asyncio.Semaphore(0)
        self._seats = self._ready = 0
        self._hello: Hello | None = None
        self._reason = ""
        """Why the last worker could not load its model."""

    def __repr__(self) -> str:
        return f"<recognition: {self._ready}/{self._workers} workers, {self._seats}/{self._most} requests>"

    @property
    def report(self) -> Report:
        state = "ready" if self._ready else "failed" if self._reason else "loading"
        model, device = (self._hello.model, self._hello.device) if self._hello else ("", "")
        return Report(state, model, device, "" if self._ready else self._reason)

    @property
    def languages(self) -> tuple[str, ...]:
        """Known once a worker has been ready. Raises NotReady before."""
        if self._hello is None:
            raise NotReady(self._reason or "the recognition model is being loaded")
        return self._hello.languages

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A request's place, from its first byte to its last. Raises NotReady and Busy."""
        if not self._ready:
            raise NotReady(self._reason or "the recognition model is being loaded")
        if self._seats >= self._most:
            raise Busy(f"all {self._workers} recognition workers are busy and {self._waiting} requests wait already")
        self._seats += 1
        try:
            yield
        finally:
            self._seats -= 1

    @contextmanager
    def job(self, path: str, language: str, hotwords: tuple[str, ...]) -> Iterator[Job]:
        """A job in the queue; where the block ends before its answer, it is taken back."""
        job = Job(path, language, hotwords)
        self._queue.append(job)
        self._queued.release()
        try:
            yield job
        finally:
            job.abandon()
            with suppress(ValueError):
                self._queue.remove(job)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep()) for _ in range(self._workers)]
            try:
                yield
            finally:
                for keeper in keepers:
                    keeper.cancel()

    # Private

    @property
    def _most(self) -> int:
        return self._workers + self._waiting

    async def _keep(self) -> None:
        """One worker after the other, each as long as it lives."""
        back_off = _FIRST_BACK_OFF
        while True:
            loaded = False
            try:
                async with self._start() as worker:
                    self._hello = await worker.hello()
                    loaded, self._reason, back_off = True, "", _FIRST_BACK_OFF
                    await self._work(worker)
            except WorkerGone as exc:
                if not loaded:
                    self._reason = str(exc)
                log.warning("%s; it is replaced in %.1f s", exc, back_off)
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, _LONGEST_BACK_OFF)

    async def _work(self, worker: Worker) -> None:
        """Gives the worker job after job. Raises WorkerGone."""
        self._ready += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.ended())
                while True:
                    await self._queued.acquire()
                    if self._queue:  # what was taken back left its count behind
                        await _run(self._queue.popleft(), worker)
        except* WorkerGone as group:
            raise WorkerGone(str(group.exceptions[0])) from None
        finally:
            self._ready -= 1


async def _run(job: Job, worker: Worker) -> None:
    job.worker = worker
    try:
        job.finish(await worker.run(job.path, job.language, job.hotwords))
    finally:
        job.worker = None
        job.finish(Answer(0, 502, "the recognition worker died; try again"))
