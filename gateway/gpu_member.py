"""One engine's part in a group that shares a GPU: what runs, who waits, who is refused."""

import asyncio
from collections import deque
from typing import Any, Protocol

from gateway.errors import EngineBusy
from gateway.replicas import Replicas

_RETRY_SECONDS = 10
"""What a client that is refused is told to wait."""
CLAIM_SECONDS = 3.0 * _RETRY_SECONDS
"""How long its claim counts, unless it comes again."""


class Group(Protocol):
    """What its members ask of it."""

    changed: asyncio.Event

    @property
    def whose(self) -> str:
        """What is said of the GPU to those who wait."""
        ...

    def rests(self, member: "Member") -> bool: ...


class Member:
    """One engine's part in it: what gateway/replicas.py knows as its Turn."""

    def __init__(self, group: Group, replicas: Replicas[Any, Any], start: str, stop: str, *, waits: bool) -> None:
        """waits: whether its requests are jobs, which wait for the turn."""
        self._group, self.replicas = group, replicas
        self.start, self.stop, self._waits = start, stop, waits
        self.up = True
        """Whether it may be on the GPU."""
        self.running, self.waiting = 0, 0
        self.claimed_at = 0.0
        """Loop time since which it has waited, where it does."""
        self.served = asyncio.Event()
        self._claims: deque[float] = deque()
        """When each refused request is forgotten."""

    def __repr__(self) -> str:
        return f"<{self.name}: {self.running} running, {self.claims} waiting>"

    @property
    def name(self) -> str:
        return self.replicas.name

    @property
    def rests(self) -> bool:
        return self._group.rests(self)

    @property
    def claims(self) -> int:
        """Requests that wait, here or at their clients'."""
        moment = now()
        while self._claims and self._claims[0] <= moment:
            self._claims.popleft()
        return self.waiting + len(self._claims)

    async def take(self) -> None:
        """Its turn, for one request. Raises EngineBusy where it is another's and this one's requests do not wait."""
        if not self.served.is_set():
            if not self._waits:
                raise self.refusal()
            await self._wait()
        self.running += 1

    def give(self) -> None:
        self.running -= 1
        self._group.changed.set()

    def refusal(self) -> EngineBusy:
        """For a request that does not wait; with it the turn is claimed."""
        self._claim()
        self._claims.append(now() + CLAIM_SECONDS)
        text = f"{self.name} waits for the GPU, which {self._group.whose}; place {self.claims} in its queue"
        return EngineBusy(text, code="gpu_taken", retry_after=_RETRY_SECONDS)

    def begins(self) -> None:
        """What has been refused comes again, or does not want it any more."""
        self._claims.clear()
        self.served.set()

    # Private

    def _claim(self) -> None:
        if not self.claims:
            self.claimed_at = now()
        self._group.changed.set()

    async def _wait(self) -> None:
        self._claim()
        self.waiting += 1
        try:
            while not self.served.is_set():
                await self.served.wait()
        finally:
            self.waiting -= 1


def now() -> float:
    """Loop time."""
    return asyncio.get_running_loop().time()
