"""The replicas that serve one verb: which of them is ready, which is least busy, and what to say when none is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar

import structlog

from gateway.admission import Gate
from gateway.errors import EngineBusy, EngineLoading, EngineUnavailable, EngineUnreachable
from gateway.verbs import Engine, EngineHealth, State

J = TypeVar("J")
E = TypeVar("E")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Replica(Generic[J, E]):
    engine: Engine[J, E]
    health: EngineHealth = field(default=EngineHealth(State.LOADING, reason="not asked yet"))
    running: int = 0

    def __repr__(self) -> str:
        return f"<{self.engine.url}: {self.health.state}, {self.running} running>"


class Replicas(Generic[J, E]):
    """One verb's engines behind one gate. Built and closed by the lifespan."""

    def __init__(
        self,
        name: str,
        adapter: str,
        engines: Sequence[Engine[J, E]],
        *,
        slots: int,
        queue: int,
        patience: float | None = None,
    ) -> None:
        """slots: of each engine; queue, patience: see Gate."""
        self.name, self.adapter = name, adapter
        self.members = [Replica(engine) for engine in engines]
        self.gate = Gate(name, slots * len(self.members), queue, patience=patience)
        self._slots = slots

    def __repr__(self) -> str:
        return f"{self.gate!r} {self.members!r}"

    def session(self, job: J) -> "_Session[J, E]":
        """upload → normalise → **admit → engine** → stream: waits for a slot, then for the engine to accept the job.

        Raises EngineBusy, EngineLoading, EngineUnavailable and whatever the adapter raises. A replica that cannot be
        reached, or takes no more, is passed over for the next one: nothing has been answered yet.
        """
        return _Session(self, job)

    def unreachable(self, replica: Replica[J, E], exc: EngineUnreachable) -> None:
        """Noted at once; the next health check may find otherwise."""
        self._note(replica, EngineHealth(State.DOWN, replica.health.model, reason=str(exc)))

    def ready(self) -> list[Replica[J, E]]:
        """Those that can be asked now, the least busy first. Raises EngineLoading or EngineUnavailable."""
        found = [one for one in self.members if one.health.state is State.READY]
        if not found:
            raise self._none_ready()
        return found if len(found) == 1 else sorted(found, key=_running)

    def _none_ready(self) -> EngineLoading | EngineUnavailable:
        health = self.health()
        text = f"{self.name} is {health.state}: {health.reason or health.progress or 'no replica is ready'}"
        return EngineLoading(text) if health.state is State.LOADING else EngineUnavailable(text)

    def health(self) -> EngineHealth:
        """The best that any replica says."""
        order = (State.READY, State.LOADING, State.FAILED, State.DOWN)
        return min((one.health for one in self.members), key=lambda health: order.index(health.state))

    async def refresh(self) -> None:
        """Asks every replica now; all at once, none waits for another."""
        answers = await asyncio.gather(*(one.engine.health() for one in self.members))
        for replica, health in zip(self.members, answers, strict=True):
            self._note(replica, health)

    def _note(self, replica: Replica[J, E], health: EngineHealth) -> None:
        if health.state is not replica.health.state:
            why = {"reason": health.reason} if health.reason else {}
            log.info("engine", name=self.name, state=str(health.state), url=replica.engine.url, **why)
        replica.health = health
        ready = sum(one.health.state is State.READY for one in self.members)
        self.gate.resize(self._slots * max(ready, 1))


def _running(replica: Replica[Any, Any]) -> int:
    return replica.running


class _Session(Generic[J, E]):
    """The scope of `Replicas.session`, a class because generators cost too much on this path."""

    def __init__(self, replicas: Replicas[J, E], job: J) -> None:
        self._replicas, self._job = replicas, job

    async def __aenter__(self) -> AsyncIterator[E]:
        self._replicas.ready()  # before queueing for an engine that is not there
        await self._replicas.gate.acquire()
        try:
            return await self._open()
        except BaseException:
            self._replicas.gate.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(kind, exc, trace)
        finally:
            self._replica.running -= 1
            self._replicas.gate.release()

    async def _open(self) -> AsyncIterator[E]:
        """Asks one replica after the other. A request that made two engines close without an answer may be the reason
        itself, and visits no third."""
        candidates, closed = self._replicas.ready(), 0
        for replica in candidates:
            inner = replica.engine.session(self._job)
            replica.running += 1
            try:
                events = await inner.__aenter__()
            except (EngineUnavailable, EngineBusy) as exc:
                replica.running -= 1
                if isinstance(exc, EngineUnreachable):
                    self._replicas.unreachable(replica, exc)
                closed += not isinstance(exc, EngineUnreachable | EngineBusy)
                if replica is candidates[-1] or closed == 2:
                    raise
            except BaseException:
                replica.running -= 1
                raise
            else:
                self._inner, self._replica = inner, replica
                return events
        raise AssertionError("ready() is never empty")
