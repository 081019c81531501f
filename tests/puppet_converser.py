"""A conversation engine that does what a test says, word by word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.events import Audio, Conversed, Opus
from gateway.replicas import Replicas
from gateway.tasks import task_group
from gateway.verbs import Converse, EngineHealth, Said, State


class Played:
    """One session: what it was told, and what it tells. An exception in `tell` breaks it, None ends it."""

    def __init__(self, job: Converse) -> None:
        self.job = job
        self.said: list[Said] = []
        self.ended_by_us = self.closed = False
        self._told: asyncio.Queue[Conversed | BaseException | None] = asyncio.Queue()

    def tell(self, *events: Conversed | BaseException | None) -> None:
        for event in events:
            self._told.put_nowait(event)

    @property
    def pcm(self) -> bytes:
        return b"".join(one.pcm for one in self.said if isinstance(one, Audio))

    @property
    def pages(self) -> list[bytes]:
        return [one.page for one in self.said if isinstance(one, Opus)]

    @property
    def controls(self) -> list[Said]:
        return [one for one in self.said if not isinstance(one, Audio | Opus)]

    async def read(self) -> None:
        async for item in self.job.said:
            self.said.append(item)
        self.ended_by_us = True

    async def events(self) -> AsyncIterator[Conversed]:
        while (event := await self._told.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event


class Puppet:
    url = "puppet"

    def __init__(self, packed: bool = False, follows: bool = True) -> None:
        self.packed, self.follows = packed, follows
        self.reads = True
        """Whether sessions read what is said."""
        self.fails: Exception | None = None
        """What opening the next sessions raises."""
        self.opens = asyncio.Event()
        self.opens.set()
        self.played: list[Played] = []

    @property
    def last(self) -> Played:
        return self.played[-1]

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        await self.opens.wait()
        if self.fails:
            raise self.fails
        played = Played(job)
        self.played.append(played)
        try:
            async with task_group() as tasks:
                reading = tasks.create_task(played.read()) if self.reads else None
                try:
                    yield played.events()
                finally:
                    if reading:
                        reading.cancel()
        finally:
            played.closed = True

    async def health(self) -> EngineHealth:
        return EngineHealth(State.READY)


async def group(*puppets: Puppet, sessions: int = 8) -> Replicas[Converse, Conversed]:
    replicas: Replicas[Converse, Conversed] = Replicas("s2s", "puppet", puppets, slots=sessions, queue=0)
    await replicas.refresh()
    return replicas
