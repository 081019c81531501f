"""What has to be there before a worker can be started: provisioned in a thread, while /health says how far it is."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread

from engines.workers.process import Worker, started
from gateway.wire.engine_health import Progress, Report

log = logging.getLogger(__name__)

Provide = Callable[[Callable[[Progress], None]], Sequence[Path]]
"""Blocks until everything is there, telling how far it is; gives what goes first on the workers' path of modules.
Raises whatever says in one line what is wrong."""

_AGAIN = 30.0
"""Seconds after which what could not be had is tried again: a mirror may be back, a disk may have been cleared."""
_PATIENCE = 60.0
"""Seconds that a worker may take to stop: one step of a large model takes long, and loading it takes longer."""
_ROOT = Path(__file__).resolve().parents[1]


class Left(Exception):
    """Told to whoever provisions for a server that has ended."""


class Preparation:
    def __init__(self, provide: Provide, threads: int) -> None:
        """threads: of each worker that computes on the CPU."""
        self._provide, self._threads = provide, threads
        self._progress = Progress("starting")
        self._reason = ""
        self._left = False
        self._provided: asyncio.Future[Sequence[Path]] | None = None

    @property
    def report(self) -> Report | None:
        """None once everything is there."""
        if self._provided is not None and self._provided.done():
            return None
        if self._reason:
            return Report("failed", reason=self._reason)
        return Report("loading", progress=self._progress)

    def why(self) -> str:
        """Why there is no worker yet, in a line; empty once everything is there."""
        report = self.report
        return "" if report is None else report.reason or f"the engine is loading: {report.progress}"

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self._provided = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._prepare(self._provided))
            try:
                yield
            finally:
                work.cancel()

    @asynccontextmanager
    async def worker(
        self, module: str, options: Sequence[str], device: str, patience: float = _PATIENCE
    ) -> AsyncIterator[Worker]:
        """A worker, as soon as what it needs is there. Raises process.WorkerGone."""
        assert self._provided is not None, "at_work comes first"
        provided = await asyncio.shield(self._provided)
        path = ":".join(map(str, (*provided, _ROOT)))
        # Threads that spin while they wait for each other take the cores from those that they wait for: on a machine
        # with other work, two threads on two cores were up to fifteen times slower. VADs compute on the CPU everywhere.
        threads = {"OMP_WAIT_POLICY": "PASSIVE"}
        if device == "cpu":  # more threads than cores slow each other down tenfold
            threads["OMP_NUM_THREADS"] = str(self._threads)
        environment = {"PYTHONPATH": path, **threads}
        async with started(module, options, device, environment, patience) as worker:
            yield worker

    # Private

    async def _prepare(self, provided: "asyncio.Future[Sequence[Path]]") -> None:
        while not provided.done():
            try:
                provided.set_result(await self._in_a_thread())
            except Exception as exc:
                self._reason = str(exc) or type(exc).__name__
                log.error("%s; trying again in %.0f s", self._reason, _AGAIN)
                await asyncio.sleep(_AGAIN)

    async def _in_a_thread(self) -> Sequence[Path]:
        """One that the process need not wait for when it is told to end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Sequence[Path]] = loop.create_future()

        def settle(failure: Exception | None, found: Sequence[Path]) -> None:
            if done.done():
                return
            if failure is None:
                done.set_result(found)
            else:
                done.set_exception(failure)

        def work() -> None:
            failure: Exception | None = None
            found: Sequence[Path] = ()
            try:
                found = tuple(self._provide(self._tell))
            except Exception as exc:
                failure = exc
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, failure, found)

        Thread(target=work, name="provision", daemon=True).start()
        try:
            return await done
        except asyncio.CancelledError:
            self._left = True
            raise

    def _tell(self, progress: Progress) -> None:
        if self._left:
            raise Left
        if progress.phase != self._progress.phase:
            log.info("preparing: %s", progress.phase)
        self._progress, self._reason = progress, ""  # told from the thread: two assignments, each of them whole
