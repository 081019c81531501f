"""The table of jobs: every change of one is a single statement that names the state it expects, or one transaction.

Rule 1: who runs a job owns it until a time; a change of a running job names its owner, and does nothing once the job is
another's, or has ended.
Rule 2: what follows from the end of a job is stored in the transaction that ends it.
"""

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import Database
from gateway.database import jobs as table


class State(StrEnum):
    WAITING = "waiting"
    """For its turn, or for its next try."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    number: int
    """Their order."""
    id: str
    kind: str
    tenant: str
    key: str | None
    state: State
    payload: dict[str, Any] = field(repr=False)
    """JSON, as it was submitted."""
    result: dict[str, Any] = field(repr=False)
    """JSON; empty until it has succeeded."""
    error: str = field(repr=False)
    """Why it has failed, in words for its client; empty otherwise."""
    code: str
    """The code of that error."""
    attempts: int
    """How often it was begun, but for the times that a stopping gateway put it back, or its engine was not there."""
    created_at: datetime
    due_at: datetime
    """UTC; not begun before."""
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is wanted."""

    kind: str
    payload: dict[str, Any] = field(repr=False)
    tenant: str = ""
    key: str | None = None
    """Names it among those of its kind and tenant: submitted again, it is the same job."""


class JobRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, wanted: Submission, now: datetime) -> str:
        """The id of the job, which may have been there already."""
        row = _row(wanted, now)
        try:
            await self._database.execute(insert(table).values(row))
        except IntegrityError:
            found = await self.find(wanted.kind, wanted.tenant, wanted.key or "")
            if found is None:
                raise
            return found.id
        return str(row["id"])

    async def get(self, job_id: str) -> Job | None:
        return await self._one(table.c.id == job_id)

    async def find(self, kind: str, tenant: str, key: str) -> Job | None:
        return await self._one(_named(kind, tenant, key))

    async def count_waiting(self, kind: str) -> int:
        waits = select(func.count()).where(table.c.kind == kind, table.c.state == State.WAITING)
        return int((await self._database.execute(waits))[0][0])

    async def newest(self, kind: str, tenant: str | None, most: int) -> list[Job]:
        mine = [table.c.kind == kind] if tenant is None else [table.c.kind == kind, table.c.tenant == tenant]
        rows = await self._database.execute(select(table).where(*mine).order_by(table.c.number.desc()).limit(most))
        return [_job(row) for row in rows]

    async def places(self, kind: str, ids: Collection[str]) -> dict[str, int]:
        """The place in the queue, from 1, of those that wait: tenants take turns, each with its oldest first."""
        turn = func.row_number().over(partition_by=table.c.tenant, order_by=table.c.number).label("turn")
        waits = select(table.c.id, table.c.number, turn).where(table.c.kind == kind, table.c.state == State.WAITING)
        inner = waits.subquery()
        place = func.row_number().over(order_by=(inner.c.turn, inner.c.number)).label("place")
        outer = select(inner.c.id, place).subquery()
        rows = await self._database.execute(select(outer).where(outer.c.id.in_(ids)))
        return {row.id: row.place for row in rows}

    async def heads(self, kind: str, now: datetime) -> list[tuple[str, int]]:
        """(tenant, number) of the oldest job of each tenant that may begin."""
        due = select(table.c.tenant, func.min(table.c.number).label("first")).where(_due(kind, now))
        rows = await self._database.execute(due.group_by(table.c.tenant))
        return [(row.tenant, row.first) for row in rows]

    async def next_due(self, kinds: Collection[str]) -> datetime | None:
        soon = select(func.min(table.c.due_at)).where(table.c.state == State.WAITING, table.c.kind.in_(kinds))
        found: datetime | None = (await self._database.execute(soon))[0][0]
        return found

    async def claim(self, number: int, owner: str, until: datetime, now: datetime) -> Job | None:
        """The job, which is `owner`'s to run now; None where somebody was faster."""
        mine = update(table).where(table.c.number == number, table.c.state == State.WAITING, table.c.due_at <= now)
        changed = {"state": State.RUNNING, "owner": owner, "owned_until": until, "attempts": table.c.attempts + 1}
        rows = await self._database.execute(mine.values(changed).returning(table))
        return _job(rows[0]) if rows else None

    async def keep(self, ids: Collection[str], owner: str, until: datetime) -> None:
        """They are `owner`'s for longer."""
        mine = update(table).where(table.c.id.in_(ids), _running(owner))
        await self._database.execute(mine.values(owned_until=until))

    async def put_back(self, job: Job, owner: str | None, due: datetime, *, counts: bool) -> bool:
        """It waits again; whether it was still running. counts: whether this attempt does."""
        changed: dict[str, Any] = {"state": State.WAITING, "owner": None, "owned_until": None, "due_at": due}
        if not counts:
            changed["attempts"] = table.c.attempts - 1
        back = update(table).where(table.c.id == job.id, _running(owner), table.c.attempts == job.attempts)
        return bool(await self._database.execute(back.values(changed).returning(table.c.id)))

    async def end(self, job: Job, states: Sequence[State], owner: str | None, then: Sequence[Submission]) -> bool:
        """Stores the outcome that `job` has, and what follows. False, and nothing, where it was not in `states` any
        more, or not `owner`'s."""
        assert job.ended_at is not None
        values = {
            "state": job.state,
            "result": json.dumps(job.result, ensure_ascii=False),
            "error": job.error,
            "code": job.code,
            "ended_at": job.ended_at,
            "owner": None,
            "owned_until": None,
        }
        mine = [table.c.id == job.id, table.c.state.in_(states)]
        if owner is not None:
            mine.append(table.c.owner == owner)

        async def work(connection: AsyncConnection) -> bool:
            done = await connection.execute(update(table).where(*mine).values(values).returning(table.c.id))
            if done.first() is None:
                return False
            for wanted in then:
                await connection.execute(insert(table).values(_row(wanted, job.ended_at)))
            return True

        return await self._database.transact(work)

    async def abandoned(self, owner: str, running: Collection[str], now: datetime) -> list[Job]:
        """Those that nobody runs: their owner's time is over, or it is `owner`, who does not know of them."""
        lost = and_(table.c.owner == owner, table.c.id.not_in(running))
        rows = await self._database.execute(
            select(table).where(table.c.state == State.RUNNING, or_(lost, table.c.owned_until < now))
        )
        return [_job(row) for row in rows]

    async def ended_before(self, moment: datetime, most: int) -> list[Job]:
        rows = await self._database.execute(select(table).where(table.c.ended_at < moment).limit(most))
        return [_job(row) for row in rows]

    async def delete(self, job: Job) -> None:
        await self._database.execute(delete(table).where(table.c.number == job.number))

    # Private

    async def _one(self, which: ColumnElement[bool]) -> Job | None:
        rows = await self._database.execute(select(table).where(which))
        return _job(rows[0]) if rows else None


def _row(wanted: Submission, now: datetime | None) -> dict[str, Any]:
    return {
        "id": secrets.token_hex(16),
        "kind": wanted.kind,
        "tenant": wanted.tenant,
        "key": wanted.key,
        "state": State.WAITING,
        "payload": json.dumps(wanted.payload, ensure_ascii=False),
        "result": "{}",
        "error": "",
        "code": "",
        "attempts": 0,
        "created_at": now,
        "due_at": now,
    }


def _job(row: Row[Any]) -> Job:
    known = {name: value for name, value in row._mapping.items() if name not in ("owner", "owned_until")}
    packed = {name: json.loads(known[name]) for name in ("payload", "result")}
    return Job(**(known | packed | {"state": State(known["state"])}))


def _named(kind: str, tenant: str, key: str) -> ColumnElement[bool]:
    return and_(table.c.kind == kind, table.c.tenant == tenant, table.c.key == key)


def _due(kind: str, now: datetime) -> ColumnElement[bool]:
    return and_(table.c.kind == kind, table.c.state == State.WAITING, table.c.due_at <= now)


def _running(owner: str | None) -> ColumnElement[bool]:
    running = table.c.state == State.RUNNING
    return running if owner is None else and_(running, table.c.owner == owner)
