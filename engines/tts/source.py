"""Where speech comes from: a backend in this process's threads, or in worker processes. The doors know no other word.

There is no queue of audio. The next piece is asked for when the last one has gone into the socket, so that a slow
reader costs one sentence of memory, or a few pieces where a worker makes them.
"""

import functools
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from anyio import CancelScope, CapacityLimiter, create_task_group, sleep_forever, to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from engines.preparation import Preparation
from engines.tts.backends import Backend
from engines.tts.job import Job
from engines.tts.readiness import Readiness
from engines.workers.messages import Fields
from engines.workers.pool import Pool
from engines.workers.process import Call, JobFailed, Worker, WorkerGone
from gateway.wire.engine_health import Report


@dataclass(frozen=True, slots=True)
class Speech:
    """An answer that has begun."""

    sample_rate: int
    """Hz."""
    pieces: AsyncIterator[bytes]
    """Mono s16le PCM, never empty."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces


class Source(Protocol):
    @property
    def report(self) -> Report: ...

    @property
    def speakers(self) -> tuple[str, ...]:
        """Built in. Raises an exception with status 503 before they are known."""
        ...

    def speaking(self, job: Job) -> AbstractAsyncContextManager[Speech]:
        """Entered once the backend has taken the job; leaving early cancels it.

        Raises an exception with a `status`, as of HTTP, for what the caller is to read.
        """
        ...

    async def register(self, name: str, job: Job) -> None:
        """Makes the voice of `job.prompt` known as `name`. Raises as `speaking` does."""
        ...

    async def registered(self) -> tuple[str, ...]: ...

    def at_work(self) -> AbstractAsyncContextManager[None]: ...


class Threads:
    """For a backend that is light, and gives up the interpreter while it works."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._readiness = Readiness(backend)
        self._threads = CapacityLimiter(backend.parallel)

    @property
    def report(self) -> Report:
        return self._readiness.report

    @property
    def speakers(self) -> tuple[str, ...]:
        self._readiness.require()
        return self._backend.speakers

    @asynccontextmanager
    async def speaking(self, job: Job) -> AsyncIterator[Speech]:
        self._readiness.require()
        gone = Event()
        async with _set_when_left(gone):
            work = functools.partial(self._backend.speak, job, gone.is_set)
            pieces = await to_thread.run_sync(work, limiter=self._threads)
            try:
                yield Speech(self._backend.rate(job), self._each(pieces))
            finally:
                gone.set()
                # At shutdown a thread may still be in it; `gone` ends that one.
                with CancelScope(shield=True), suppress(ValueError):
                    await to_thread.run_sync(pieces.close, limiter=self._threads)

    async def register(self, name: str, job: Job) -> None:
        self._readiness.require()
        await to_thread.run_sync(self._backend.register, name, job, limiter=self._threads)

    async def registered(self) -> tuple[str, ...]:
        self._readiness.require()
        return self._backend.registered

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self._readiness.start()
        yield

    async def _each(self, pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
        while piece := await to_thread.run_sync(next, pieces, b"", limiter=self._threads):
            yield piece
        await checkpoint_if_cancelled()  # a job that was given up in its thread has not ended: it was stopped


class Processes:
    """For a backend that is heavy: each model in a process of its own, on a device of its own."""

    def __init__(self, pool: Pool, preparation: Preparation | None = None) -> None:
        self._pool, self._preparation = pool, preparation

    @property
    def report(self) -> Report:
        return (self._preparation and self._preparation.report) or self._pool.report

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(self._pool.facts["speakers"])

    @asynccontextmanager
    async def speaking(self, job: Job) -> AsyncIterator[Speech]:
        fields, wav = packed(job)
        async with self._worker() as worker, AsyncExitStack() as stack:
            with _another():
                call = await stack.enter_async_context(worker.asking("speak", fields, wav))
                speech = await _begun(call)
            yield speech

    async def register(self, name: str, job: Job) -> None:
        fields, wav = packed(job)
        async with self._worker() as worker:
            with _another():
                await worker.ask("register", {"name": name, **fields}, wav)

    async def registered(self) -> tuple[str, ...]:
        async with self._worker() as worker:
            with _another():
                return tuple((await worker.ask("registered", {}))["names"])

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        if self._preparation is None:
            async with self._pool.at_work():
                yield
        else:
            async with self._preparation.at_work(), self._pool.at_work():
                yield

    # Private

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[Worker]:
        with self._pool.seat():
            async with self._pool.claim() as worker:
                yield worker


def packed(job: Job) -> tuple[Fields, bytes]:
    """A job as a worker is told it: fields, and the WAV of its prompt."""
    fields = {name: getattr(job, name) for name in Job.__slots__ if name != "prompt"}
    return fields, job.prompt.wav if job.prompt else b""


@contextmanager
def _another() -> Iterator[None]:
    """A worker's death before the answer is the engine's failure, and another one may do better."""
    try:
        yield
    except WorkerGone as exc:
        raise JobFailed(f"{exc} before it answered; try again", 502) from exc


async def _begun(call: Call) -> Speech:
    first = await call.piece()
    if first is None:
        raise JobFailed("the engine made no sound", 500)
    return Speech(first.fields["sample_rate"], _pieces(call, first.data))


async def _pieces(call: Call, first: bytes) -> AsyncIterator[bytes]:
    if first:
        yield first
    while (piece := await call.piece()) is not None:
        if piece.data:
            yield piece.data


@asynccontextmanager
async def _set_when_left(gone: Event) -> AsyncIterator[None]:
    """Sets `gone` when the block is left, or cancelled while a thread is waited for."""

    async def watch() -> None:
        try:
            await sleep_forever()
        finally:
            gone.set()

    try:
        async with create_task_group() as tasks:
            tasks.start_soon(watch)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:  # a lone failure keeps its type
            raise group.exceptions[0] from None
        raise
