"""The replicas that serve one verb: which of them is ready, which is least busy, and what to say when none is."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import structlog

from gateway import caller
from gateway.admission import Gate
from gateway.errors import EngineBusy, EngineError, EngineLoading, EngineUnavailable, EngineUnreachable
from gateway.metering import Meter
from gateway.verbs import Engine, EngineHealth, State, Verb

J = TypeVar("J")
E = TypeVar("E")

log = structlog.get_logger(__name__)
_REST = 5.0
"""Seconds after a failure in which others are asked first: what fails at once is always the least busy."""


class Turn(Protocol):
    """Of a verb whose engines share a GPU with another's (gateway/gpu_group.py)."""

    @property
    def rests(self) -> bool:
        """Whether it is another's turn."""
        ...

    async def take(self) -> None:
        """For one request. Raises EngineBusy."""
        ...

    def give(self) -> None: ...

    def refusal(self) -> EngineBusy:
        """For a request that comes while it is another's turn."""
        ...


@dataclass(slots=True)
class Replica(Generic[J, E]):
    engine: Engine[J, E]
    health: EngineHealth = field(default=EngineHealth(State.LOADING, reason="not asked yet"))
    running: int = 0
    rests_until: float = 0.0
    """Loop time."""

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
        meter: Meter[J, E] | None = None,
    ) -> None:
        """slots: of each engine; queue, patience: see Gate. meter: of those who have a key; without one nobody's key is
        asked what it may."""
        self.name, self.adapter = name, adapter
        self.meter = meter
        self.members = [Replica(engine) for engine in engines]
        self.gate = Gate(name, slots * len(self.members), queue, patience=patience)
        self._slots = slots
        self.turn: Turn | None = None

    def __repr__(self) -> str:
        return f"{self.gate!r} {self.members!r}"

    def session(self, job: J, *, at: Engine[J, E] | None = None) -> "_Session[J, E]":
        """upload → normalise → **admit → engine** → stream: waits for a slot, then for the engine to accept the job.

        at: the one of them that it has to be, whatever its health. Raises EngineBusy, EngineLoading, EngineUnavailable
        and whatever the adapter raises. A replica that cannot be reached, or takes no more, is passed over for the next
        one: nothing has been answered yet.
        """
        return _Session(self, job, self.meter, at)

    @property
    def unmetered(self) -> Verb[J, E]:
        """For what is part of another verb's session, and costs nothing of its own."""
        return _Unmetered(self)

    def unreachable(self, replica: Replica[J, E], exc: EngineUnreachable) -> None:
        """Noted at once; the next health check may find otherwise."""
        self._note(replica, EngineHealth(State.DOWN, replica.health.model, reason=str(exc)))

    def ready(self, at: Engine[J, E] | None = None) -> list[Replica[J, E]]:
        """Those that can be asked now, the least busy first; behind them those that have just failed. at: it alone.

        Raises EngineLoading, EngineUnavailable, or EngineBusy where another engine has their GPU."""
        if at is not None:
            return [one for one in self.members if one.engine is at]
        if self.turn is not None and self.turn.rests:
            raise self.turn.refusal()
        found = [one for one in self.members if one.health.state is State.READY]
        if not found:
            raise self._none_ready()
        if len(found) == 1:
            return found
        now = asyncio.get_running_loop().time()
        return sorted(found, key=lambda one: (one.rests_until > now, one.running))

    def _none_ready(self) -> EngineLoading | EngineUnavailable:
        health = self.health()
        text = f"{self.name} is {health.state}: {health.reason or health.progress or 'no replica is ready'}"
        return EngineLoading(text) if health.state is State.LOADING else EngineUnavailable(text)

    @property
    def rests(self) -> bool:
        """Whether they are not there because another engine has their GPU; whoever asks claims it."""
        return self.turn is not None and self.turn.rests

    def health(self) -> EngineHealth:
        """The best that any replica says; of those that rest, that they can be asked."""
        return EngineHealth(State.READY, self.members[0].health.model) if self.rests else self.best()

    def best(self) -> EngineHealth:
        """The same, whoever has their GPU."""
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


def _rest(replica: Replica[Any, Any], exc: BaseException | None) -> None:
    """Where it is the engine that failed. Of one that cannot be reached the health checks say when it is back."""
    if isinstance(exc, EngineError) and not isinstance(exc, EngineBusy | EngineUnreachable):
        replica.rests_until = asyncio.get_running_loop().time() + _REST


class _Session(Generic[J, E]):
    """The scope of `Replicas.session`, a class because generators cost too much on this path."""

    def __init__(
        self, replicas: Replicas[J, E], job: J, meter: Meter[J, E] | None, at: Engine[J, E] | None = None
    ) -> None:
        self._replicas, self._job, self._meter, self._at = replicas, job, meter, at

    async def __aenter__(self) -> AsyncIterator[E]:
        meter, asking = self._meter, caller.current()
        if meter is not None:
            asking.require(meter.right)
            if asking.payer is None:
                meter = None
            else:
                asking.afford()
                self._job = meter.asked(self._job, asking)
        events = await self._enter()
        if meter is None:
            return events
        try:
            return meter.begun(self._job, events, asking)
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        _rest(self._replica, exc)
        try:
            return await self._inner.__aexit__(kind, exc, trace)
        finally:
            self._replica.running -= 1
            self._replicas.gate.release()
            if self._replicas.turn is not None:
                self._replicas.turn.give()

    async def _enter(self) -> AsyncIterator[E]:
        turn = self._replicas.turn
        if turn is None:
            return await self._admitted()
        await turn.take()
        try:
            return await self._admitted()
        except BaseException:
            turn.give()
            raise

    async def _admitted(self) -> AsyncIterator[E]:
        self._replicas.ready(self._at)  # before queueing for an engine that is not there
        await self._replicas.gate.acquire()
        try:
            return await self._open()
        except BaseException:
            self._replicas.gate.release()
            raise

    async def _open(self) -> AsyncIterator[E]:
        """Asks one replica after the other. A request that made two engines close without an answer may be the reason
        itself, and visits no third."""
        candidates, closed = self._replicas.ready(self._at), 0
        for replica in candidates:
            inner = replica.engine.session(self._job)
            replica.running += 1
            try:
                events = await inner.__aenter__()
            except (EngineUnavailable, EngineBusy) as exc:
                replica.running -= 1
                _rest(replica, exc)
                if isinstance(exc, EngineUnreachable):
                    self._replicas.unreachable(replica, exc)
                closed += not isinstance(exc, EngineUnreachable | EngineBusy)
                if replica is candidates[-1] or closed == 2:
                    raise
            except BaseException as exc:
                replica.running -= 1
                _rest(replica, exc)
                raise
            else:
                self._inner, self._replica = inner, replica
                return events
        raise AssertionError("ready() is never empty")


class _Unmetered(Generic[J, E]):
    def __init__(self, replicas: Replicas[J, E]) -> None:
        self._replicas = replicas

    def session(self, job: J) -> _Session[J, E]:
        return _Session(self._replicas, job, None)

    def health(self) -> EngineHealth:
        return self._replicas.health()
