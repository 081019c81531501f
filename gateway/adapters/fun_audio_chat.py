"""Conversation by Fun-Audio-Chat's server, upstream's or ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters.connections import Client
from gateway.errors import EngineUnavailable
from gateway.events import Conversed
from gateway.settings import Settings
from gateway.verbs import Converse, Converser, EngineHealth, State


class FunAudioChat:
    packed = True

    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._http, self._settings = http, settings

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        raise EngineUnavailable("not yet")
        yield

    async def health(self) -> EngineHealth:
        return EngineHealth(State.DOWN, reason="not yet")


_: type[Converser] = FunAudioChat
