"""Jobs that outlive the process which took them: asynchronous synthesis, talking videos, calls of webhooks.

Rule 1: a job is stored before its client is told its id, and ends exactly once: succeeded, failed or cancelled.
Rule 2: work may be begun more than once (a gateway was killed in it, an engine died in it) but its outcome is taken
once; whatever it makes has a name that is in the payload, so that a second try replaces what the first has made.
Rule 3: never for live traffic. Jobs wait for a place at the engines like everybody else, few at a time.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.cleanup import locked
from gateway.database import Database
from gateway.errors import EngineBusy
from gateway.job_rows import Job, JobRows, State, Submission
from gateway.job_runner import Kind, Runner

__all__ = ["Job", "Jobs", "Kind", "State", "Submission", "owner_of"]

_SWEPT = 100
"""Ended jobs that are looked up in one go."""


class Jobs:
    """One of the process, owned by the lifespan. Kinds are registered before `at_work`."""

    def __init__(self, database: Database, owner: str, *, keep: float) -> None:
        """owner: who this process is (`owner_of`); keep: seconds after which an ended job is forgotten."""
        self._rows = JobRows(database)
        self._runner = Runner(self._rows, owner)
        self._keep = timedelta(seconds=keep)

    def __repr__(self) -> str:
        return repr(self._runner)

    def register(self, kind: Kind) -> None:
        self._runner.add(kind)

    def at_work(self) -> AbstractAsyncContextManager[None]:
        """Scope of everything that runs here. What is unfinished when it is left waits for the next process."""
        return self._runner.at_work()

    async def submit(self, wanted: Submission) -> str:
        """The id of the job, which will be done whatever happens to this process. Raises EngineBusy."""
        kind = self._runner.kind(wanted.kind)
        if await self._rows.count_waiting(kind.name) >= kind.queue:
            raise EngineBusy(f"{kind.queue} jobs wait already; try again later")
        found = await self._rows.add(wanted, datetime.now(UTC))
        self._runner.wake()
        return found

    async def get(self, job_id: str) -> Job | None:
        """None where nobody knows it, or it is to be forgotten."""
        return self._known(await self._rows.get(job_id))

    async def find(self, kind: str, tenant: str, key: str) -> Job | None:
        return self._known(await self._rows.find(kind, tenant, key))

    async def newest(self, kind: str, tenant: str | None = None, most: int = 100) -> list[Job]:
        """The newest first; of all tenants with None."""
        return [job for job in await self._rows.newest(kind, tenant, most) if self._known(job)]

    async def places(self, kind: str, jobs: Sequence[Job]) -> dict[str, int]:
        """By id, the place in the queue of those that wait, from 1."""
        return await self._rows.places(kind, [job.id for job in jobs])

    async def cancel(self, job_id: str) -> bool:
        """Whether it had not ended yet; now it has."""
        job = await self._rows.get(job_id)
        if job is None or job.state.ended:
            return False
        return await self._runner.end(replace(job, state=State.CANCELLED), owner=None)

    async def sweep(self) -> int:
        """Forgets the jobs that ended long ago, with what belongs to them; how many."""
        swept = 0
        while old := await self._rows.ended_before(datetime.now(UTC) - self._keep, _SWEPT):
            for job in old:
                if self._runner.knows(job.kind):
                    await self._runner.kind(job.kind).remove(job)
                await self._rows.delete(job)
            swept += len(old)
        return swept

    # Private

    def _known(self, job: Job | None) -> Job | None:
        forgotten = job is None or (job.ended_at is not None and job.ended_at < datetime.now(UTC) - self._keep)
        return None if forgotten else job


@contextmanager
def owner_of(data: Path) -> Iterator[str]:
    """Who runs jobs here: the same after each restart, so that what a killed process has left is known as one's own.
    A second process on the same folder is another, and what it leaves is taken over when its time is over."""
    data.mkdir(parents=True, exist_ok=True)
    with locked(data / "jobs.lock", wait=False) as alone:
        name = data / "jobs.owner"
        if not alone or not name.exists():
            fresh = secrets.token_hex(16)
            if alone:
                name.write_text(fresh)
            yield fresh
        else:
            yield name.read_text().strip()
