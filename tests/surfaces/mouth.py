"""A synthesis engine of a test's own, put in the place of a running gateway's: what it says can be told by ear."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.errors import GatewayError
from gateway.events import Audio
from gateway.replicas import Replicas
from gateway.verbs import EngineHealth, Speak, State
from tests.conftest import Gateway
from tests.sound import tone


@dataclass
class Mouth:
    """Says each text as a tone of `hertz`, 50 ms for each character."""

    rate: int = 24000
    hertz: Callable[[str], float] = lambda text: 440.0
    loudness: float = 0.5
    character: float = 0.05
    piece: float = 0.1
    """Seconds."""
    fails: GatewayError | None = None
    """Raised after the first piece of a text with "fail" in it."""
    refuses: GatewayError | None = None
    stuck: asyncio.Event | None = None
    """Until it is set, nothing comes after the first piece."""
    asked: list[Speak] = field(default_factory=list)
    open: int = 0
    most: int = 0
    url: str = "fake://mouth"

    @property
    def texts(self) -> list[str]:
        return [job.text for job in self.asked]

    def seconds(self, text: str) -> float:
        return self.character * len(text)

    @asynccontextmanager
    async def session(self, job: Speak) -> AsyncIterator[AsyncIterator[Audio]]:
        if self.refuses is not None:
            raise self.refuses
        self.asked.append(job)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield self._say(job)
        finally:
            self.open -= 1

    async def health(self) -> EngineHealth:
        return EngineHealth(State.READY, "mouth-1", "cpu")

    async def _say(self, job: Speak) -> AsyncIterator[Audio]:
        sound = tone(self.rate, self.seconds(job.text) / job.speed, self.hertz(job.text), self.loudness)
        size = round(self.rate * self.piece) * 2
        for at in range(0, len(sound), size):
            await asyncio.sleep(0)
            if at and self.fails is not None and "fail" in job.text:
                raise self.fails
            if at and self.stuck is not None:
                await self.stuck.wait()
            yield Audio(sound[at : at + size], self.rate)


async def speaks(gateway: Gateway, mouth: Mouth, slots: int = 8, queue: int = 8) -> Mouth:
    """`mouth` speaks for this gateway from now on."""
    replicas: Replicas[Speak, Audio] = Replicas("tts", "fake", [mouth], slots=slots, queue=queue, patience=1.0)
    await replicas.refresh()
    gateway.state["speak"] = replicas
    gateway.state["verbs"]["tts"] = replicas
    return mouth
