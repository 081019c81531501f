"""Who runs jobs: begins what may begin, keeps what runs, takes over what a dead process has left.

Rule 1: the table decides. What is here is only what this process does now; it may be killed at any point.
Rule 2: tenants take turns, so that a thousand jobs of one do not keep another from its first.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from gateway.errors import CallerError, EngineBusy, EngineLoading, EngineUnavailable, GatewayError
from gateway.job_rows import Job, JobRows, State, Submission
from gateway.tasks import shielded, task_group

Result = dict[str, Any]
log = structlog.get_logger(__name__)

_OWNED_SECONDS = 30.0
"""How long a job stays with a process that shows no sign of life."""
_LOOK_SECONDS = 5.0
"""How often it shows one, and looks for what others have left; well below _OWNED_SECONDS."""


def _nothing_follows(_: Job) -> Sequence[Submission]:
    return ()


async def _nothing_to_remove(_: Job) -> None:
    return


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of jobs. Times in seconds."""

    name: str
    work: Callable[[Job], Awaitable[Result]]
    """Gives the result, JSON. Raises CallerError where no try will ever succeed, another GatewayError where one may."""
    slots: int
    """At a time, in this process."""
    queue: int = 10_000
    """That may wait; the next one is refused."""
    attempts: int = 5
    """Begun so often, and neither succeeded nor refused, it has failed: such a job may be what kills its engine."""
    patience: float = 24 * 3600.0
    """How long it is tried again while its engine is not there, or busy."""
    first_pause: float = 1.0
    """Before the second try; doubled each time."""
    longest_pause: float = 60.0
    follows: Callable[[Job], Sequence[Submission]] = _nothing_follows
    """What is submitted, at once or not at all, with the end of such a job."""
    remove: Callable[[Job], Awaitable[None]] = _nothing_to_remove
    """Deletes what belongs to a job that has not succeeded, or is forgotten. It may not be there, or not any more."""


@dataclass(slots=True)
class _Running:
    """What this process does for one kind."""

    kind: Kind
    tasks: "dict[str, asyncio.Task[None]]" = field(default_factory=dict)
    tenants: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    """How often, by id, a job has waited for its engine since this process began."""
    turns: dict[str, int] = field(default_factory=dict)
    """When each tenant had its last turn."""


class Runner:
    def __init__(self, rows: JobRows, owner: str) -> None:
        self._rows, self._owner = rows, owner
        self._kinds: dict[str, _Running] = {}
        self._changed = asyncio.Event()
        self._turn = 0

    def __repr__(self) -> str:
        kinds = (f"{len(it.tasks)}/{it.kind.slots} {name}" for name, it in self._kinds.items())
        return f"<jobs: {', '.join(kinds)} running>"

    def add(self, kind: Kind) -> None:
        self._kinds[kind.name] = _Running(kind)

    def knows(self, name: str) -> bool:
        return name in self._kinds

    def kind(self, name: str) -> Kind:
        return self._kinds[name].kind

    def wake(self) -> None:
        """There is a new job."""
        self._changed.set()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with task_group() as tasks:
            looking = tasks.create_task(self._look(tasks))
            try:
                yield
            finally:
                looking.cancel()
                for kind in self._kinds.values():
                    for task in list(kind.tasks.values()):
                        task.cancel()

    async def end(self, job: Job, *, owner: str | None) -> bool:
        """Takes the outcome that `job` has, with what follows from it, and stops what this process does for it. False
        where it has ended already, or is another's by now; with None it is everybody's."""
        return await shielded(self._end(job, owner))

    # Private

    async def _end(self, job: Job, owner: str | None) -> bool:
        kind = self._kinds[job.kind]
        job = replace(job, ended_at=_now())
        expected = [State.RUNNING, State.WAITING] if job.state is State.CANCELLED else [State.RUNNING]
        taken = await self._rows.end(job, expected, owner, kind.kind.follows(job))
        if taken:
            self._changed.set()
        if not taken or job.state is not State.SUCCEEDED:
            await self._clear(kind.kind, job)
        if job.state is State.CANCELLED and (task := kind.tasks.get(job.id)) is not None:
            task.cancel()
        return taken

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Begins what may begin, keeps what runs, and takes over what others have left, for ever."""
        loop, next_look = asyncio.get_running_loop(), 0.0
        while True:
            self._changed.clear()
            pause = _LOOK_SECONDS
            try:
                if loop.time() >= next_look:
                    await self._take_over()
                    next_look = loop.time() + _LOOK_SECONDS / 2
                pause = await self._begin_all(tasks)
            except Exception as exc:
                log.error("jobs are held up", error=f"{type(exc).__name__}: {exc}")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _take_over(self) -> None:
        running = [job_id for kind in self._kinds.values() for job_id in kind.tasks]
        if running:
            await self._rows.keep(running, self._owner, _now() + timedelta(seconds=_OWNED_SECONDS))
        for job in await self._rows.abandoned(self._owner, running, _now()):
            if (kind := self._kinds.get(job.kind)) is None:
                continue
            if job.attempts >= kind.kind.attempts:
                await self._fail(job, GatewayError(f"given up after {job.attempts} attempts"), owner=None)
            else:  # at once after the first, but what kills the process each time must not keep others from theirs
                pause = 0.0 if job.attempts == 1 else _pause(kind.kind, job.attempts - 1)
                await self._rows.put_back(job, None, _now() + timedelta(seconds=pause), counts=True)
                log.info("job taken over", kind=job.kind, job=job.id, attempts=job.attempts)

    async def _begin_all(self, tasks: asyncio.TaskGroup) -> float:
        """Seconds until it is worth looking again."""
        free = []
        for kind in self._kinds.values():
            while len(kind.tasks) < kind.kind.slots and await self._begin_one(kind, tasks):
                pass
            if len(kind.tasks) < kind.kind.slots:
                free.append(kind.kind.name)
        due = await self._rows.next_due(free) if free else None
        return _LOOK_SECONDS if due is None else min(max((due - _now()).total_seconds(), 0.01), _LOOK_SECONDS)

    async def _begin_one(self, kind: _Running, tasks: asyncio.TaskGroup) -> bool:
        """The next turn is the tenant's with the fewest jobs running, then of the one whose last turn was earliest."""
        heads = await self._rows.heads(kind.kind.name, _now())
        if not heads:
            return False
        tenant, number = min(heads, key=lambda head: (kind.tenants[head[0]], kind.turns.get(head[0], 0), head[1]))
        until = _now() + timedelta(seconds=_OWNED_SECONDS)
        job = await self._rows.claim(number, self._owner, until, _now())
        if job is not None:
            self._turn += 1
            kind.turns = {one: kind.turns.get(one, 0) for one, _ in heads} | {tenant: self._turn}
            kind.tenants[tenant] += 1
            task = kind.tasks[job.id] = tasks.create_task(self._run(kind, job))
            task.add_done_callback(lambda _: self._left(kind, job))  # a task cancelled at once never runs a finally
        return True

    async def _run(self, kind: _Running, job: Job) -> None:
        try:
            await self._attempt(kind, job)
        except asyncio.CancelledError:  # the gateway stops, or the job was cancelled, which put_back finds out
            await shielded(self._stopped(kind.kind, job))
            raise
        except Exception as exc:  # it stays with us until nobody keeps it, then it is taken over
            log.error("a job could not be ended", kind=job.kind, job=job.id, error=f"{type(exc).__name__}: {exc}")

    def _left(self, kind: _Running, job: Job) -> None:
        del kind.tasks[job.id]
        kind.tenants[job.tenant] -= 1
        self._changed.set()

    async def _stopped(self, kind: Kind, job: Job) -> None:
        if not await self._rows.put_back(job, self._owner, _now(), counts=False):
            await self._clear(kind, job)

    async def _clear(self, kind: Kind, job: Job) -> None:
        """Removes what an attempt has made, unless it is the outcome of another one, or of one to come."""
        found = await self._rows.get(job.id)
        if found is None or found.state in (State.FAILED, State.CANCELLED):
            await kind.remove(job)

    async def _attempt(self, kind: _Running, job: Job) -> None:
        try:
            result = await kind.kind.work(job)
            kind.pauses.pop(job.id, None)
        except CallerError as exc:
            await self._fail(job, exc, owner=self._owner)
        except (EngineUnavailable, EngineLoading, EngineBusy) as exc:
            age = (_now() - job.created_at).total_seconds()
            await self._again(kind, job, exc, counts=False, hope=age < kind.kind.patience)
        except Exception as exc:
            if not isinstance(exc, GatewayError):
                log.exception("job failed", kind=job.kind, job=job.id)
                exc = GatewayError()
            await self._again(kind, job, exc, counts=True, hope=job.attempts < kind.kind.attempts)
        else:
            await self.end(replace(job, state=State.SUCCEEDED, result=result), owner=self._owner)

    async def _again(self, kind: _Running, job: Job, exc: GatewayError, *, counts: bool, hope: bool) -> None:
        if not hope:
            kind.pauses.pop(job.id, None)
            await self._fail(job, exc, owner=self._owner)
            return
        if not counts:
            kind.pauses[job.id] += 1
        tries = job.attempts if counts else kind.pauses[job.id]
        due = _now() + timedelta(seconds=_pause(kind.kind, tries))
        log.info("job put back", kind=job.kind, job=job.id, code=exc.code)
        await self._rows.put_back(job, self._owner, due, counts=counts)

    async def _fail(self, job: Job, exc: GatewayError, *, owner: str | None) -> None:
        log.info("job failed", kind=job.kind, job=job.id, code=exc.code)
        await self.end(replace(job, state=State.FAILED, error=str(exc), code=exc.code), owner=owner)


def _pause(kind: Kind, tries: int) -> float:
    """Seconds before the try after so many."""
    return min(kind.first_pause * 2.0 ** min(tries - 1, 30), kind.longest_pause)


def _now() -> datetime:
    return datetime.now(UTC)
