"""Conversation made of the other verbs: endpointing → transcribe → a reply → speak."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import EngineUnavailable
from gateway.events import Audio, Conversed, Transcript
from gateway.settings import Settings
from gateway.verbs import Converse, Converser, EngineHealth, Speak, State, Transcribe, Verb


class Cascade:
    url = "cascade"
    packed = False

    def __init__(self, settings: Settings, transcribe: Verb[Transcribe, Transcript], speak: Verb[Speak, Audio]) -> None:
        self._settings, self._transcribe, self._speak = settings, transcribe, speak

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        raise EngineUnavailable("not yet")
        yield

    async def health(self) -> EngineHealth:
        """As ready as the verbs that it is made of."""
        heard, spoken = self._transcribe.health(), self._speak.health()
        worst = next((one for one in (heard, spoken) if one.state is not State.READY), None)
        return worst or EngineHealth(State.READY, f"{heard.model} + {spoken.model}")


_: type[Converser] = Cascade
