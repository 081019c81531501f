"""The workers of one kind, and the queue before them. A worker that dies is replaced; a queue that is full refuses."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress

from engines.workers.messages import Fields, Hello
from engines.workers.process import Worker, WorkerGone
from gateway.wire.engine_health import Report

log = logging.getLogger(__name__)

Start = Callable[[str], AbstractAsyncContextManager[Worker]]
"""A worker on a device."""
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 0.1, 10.0


class Busy(Exception):
    """As many requests wait as may."""

    status = 503


class NotReady(Exception):
    """No worker has its model yet, or none can load it; the text says which."""

    status = 503


class Pool:
    def __init__(
        self, name: str, start: Start, devices: Sequence[str], waiting: int, why: Callable[[], str] = str
    ) -> None:
        """name: what the workers do, for people. devices: of each worker. waiting: requests beyond those at work.
        why: says in a line what no worker can start without, if something is missing."""
        self.name, self._start, self._devices, self._waiting, self._why = name, start, devices, waiting, why
        self._ready: list[Worker] = []
        self._idle: list[Worker] = []
        self._queue: deque[asyncio.Future[Worker]] = deque()
        self._seats = 0
        self._hello: Hello | None = None
        self._reason = ""
        """Why the last worker could not load its model."""

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self._ready)}/{len(self._devices)} workers, {self._seats}/{self._most} requests>"

    @property
    def report(self) -> Report:
        state = "ready" if self._ready else "failed" if self._reason else "loading"
        model = self._hello.model if self._hello else ""
        devices = ",".join(sorted({worker.device for worker in self._ready})) or ",".join(sorted({*self._devices}))
        return Report(state, model, devices, "" if self._ready else self._reason)

    @property
    def facts(self) -> Fields:
        """What a worker said of its model. Raises NotReady before one has."""
        if self._hello is None:
            raise self._not_ready()
        return self._hello.facts

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A request's place, from its first byte to its last. Raises NotReady and Busy."""
        if not self._ready:
            raise self._not_ready()
        if self._seats >= self._most:
            raise Busy(
                f"all {len(self._devices)} {self.name} workers are busy and {self._waiting} requests wait already"
            )
        self._seats += 1
        try:
            yield
        finally:
            self._seats -= 1

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[Worker]:
        """A worker for oneself, in turn; of several idle ones one on the device that does least. Raises NotReady."""
        worker = await self._claimed()
        worker.running += 1
        try:
            yield worker
        finally:
            worker.running -= 1
            self._hand_on(worker)

    @contextmanager
    def sticky(self) -> Iterator[Worker]:
        """A worker to share with others, one of those that are shared least. Raises NotReady."""
        alive = [worker for worker in self._ready if not worker.gone]
        if not alive:
            raise self._not_ready()
        worker = min(alive, key=lambda one: one.running)
        worker.running += 1
        try:
            yield worker
        finally:
            worker.running -= 1

    @asynccontextmanager
    async def hurry(self) -> AsyncIterator[Worker]:
        """A worker for an urgent job, busy or not; where there is none, the next one."""
        if all(worker.gone for worker in self._ready):
            async with self.claim() as worker:
                yield worker
        else:
            with self.sticky() as worker:
                yield worker

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(device)) for device in self._devices]
            try:
                yield
            finally:
                for keeper in keepers:
                    keeper.cancel()

    # Private

    @property
    def _most(self) -> int:
        return len(self._devices) + self._waiting

    def _not_ready(self) -> NotReady:
        return NotReady(self._why() or self._reason or f"the {self.name} model is being loaded")

    async def _claimed(self) -> Worker:
        if idle := [worker for worker in self._idle if not worker.gone]:
            load = {device: self._load(device) for device in self._devices}
            worker = min(idle, key=lambda one: load[one.device])
            self._idle.remove(worker)
            return worker
        place: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._queue.remove(place)
            if place.done() and not place.cancelled() and place.exception() is None:  # both at once
                self._hand_on(place.result())
            raise

    def _load(self, device: str) -> int:
        return sum(worker.running for worker in self._ready if worker.device == device)

    def _hand_on(self, worker: Worker) -> None:
        """To who waits longest, if it is still alive: one that was killed is ready until its end is heard."""
        if worker.gone or worker not in self._ready:
            return
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(worker)
                return
        self._idle.append(worker)

    def _turn_away(self) -> None:
        """Whoever waits for a worker, where there is none and none can be had."""
        while self._queue and not self._ready:
            place = self._queue.popleft()
            if not place.done():
                place.set_exception(self._not_ready())

    async def _keep(self, device: str) -> None:
        """One worker after the other, each as long as it lives."""
        back_off = _FIRST_BACK_OFF
        while True:
            loaded = False
            try:
                async with self._start(device) as worker:
                    self._hello = await worker.hello()
                    loaded, self._reason, back_off = True, "", _FIRST_BACK_OFF
                    await self._serve(worker)
            except WorkerGone as exc:
                if not loaded:
                    self._reason = str(exc)
                    self._turn_away()
                log.warning("%s; it is replaced in %.1f s", exc, back_off)
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, _LONGEST_BACK_OFF)

    async def _serve(self, worker: Worker) -> None:
        """Raises WorkerGone."""
        self._ready.append(worker)
        self._hand_on(worker)
        try:
            await worker.listen()
        finally:
            self._ready.remove(worker)
            with suppress(ValueError):
                self._idle.remove(worker)
