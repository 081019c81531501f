"""One session of an engine within a dialogue: opened, fed, watched, and freed when nothing comes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import structlog

from gateway.errors import EngineBroke, EngineTimeout, GatewayError, TooLarge
from gateway.events import Conversed, Opus, ReplyAudio
from gateway.outbox import Outbox
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.uplink import Turn, Uplink
from gateway.verbs import Change, Converse, Said

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a session tells the dialogue: each event, and once why it is of no use any more."""

    note: Callable[["Session", Conversed], None]
    broken: Callable[["Session", GatewayError], None]


class Session:
    """Also what the engine reads of it: Converse.said, and Direct. It is of no use any more once `broken` was told."""

    def __init__(self, settings: Settings, outbox: Outbox, owner: Owner) -> None:
        self._settings, self._outbox, self._owner = settings, outbox, owner
        self.uplink = Uplink()
        self._turns: dict[int, Turn] = {}
        """Those that the engine has taken, by its own numbers."""
        self.count = 0
        """The number of the last one."""
        self.task: asyncio.Task[None] | None = None
        """The one in `run`."""
        self._alive = 0.0
        """Loop time of the engine's last sign of life."""
        self._held = False
        """Whether it waits for the surface, so that its silence is not its own."""
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<session: {self.count} turns taken, {self.uplink!r}>"

    async def run(self, converse: Replicas[Converse, Conversed], opus: bool, resume: str, wishes: Change) -> None:
        """Its whole life at an engine."""
        error: GatewayError = EngineBroke("the engine has ended the conversation")
        try:
            async with converse.session(Converse(self, opus, resume, wishes)) as events:
                await self._read(events)
        except GatewayError as exc:
            error = exc
        except Exception:
            log.exception("conversation failed", adapter=converse.adapter)
            error = GatewayError()
        finally:  # an adapter may cancel itself by mistake
            self.task = None
            self._break(error)

    def begin(self, item: Said, turn: Turn) -> None:
        """A turn begins with `item`. Raises TooLarge where the engine takes nothing."""
        if self.uplink.full:
            raise TooLarge("the engine takes no more turns", code="too_far_ahead")
        self.uplink.say(item, turn)
        if self._watch is None:
            self._look_after(self._settings.converse_timeout)

    def turn(self, number: int) -> Turn | None:
        """The one that the engine has this number for, as long as it has not ended."""
        turn = self._turns.get(number)
        return None if turn is None or turn.ended else turn

    def close(self) -> None:
        """The engine is told, and frees what it has."""
        self._closed, self.uplink.direct = True, None
        if self._watch is not None:
            self._watch.cancel()
        if self.task is not None:
            self.task.cancel()

    # What the engine reads.

    def __aiter__(self) -> AsyncIterator[Said]:
        return self

    async def __anext__(self) -> Said:
        if self._closed:
            raise StopAsyncIteration
        item, turn = await self.uplink.take()
        if turn is not None:
            for number in [number for number, old in self._turns.items() if old.ended]:
                del self._turns[number]
            self.count += 1
            self._turns[self.count] = turn
        return item

    def direct(self, hear: Callable[[Opus], bool]) -> None:
        self.uplink.direct = hear

    def reply(self, audio: ReplyAudio) -> bool:
        if self._closed or self._outbox.full:
            return False
        self._alive = asyncio.get_running_loop().time()
        self._owner.note(self, audio)
        return True

    # Private

    async def _read(self, events: AsyncIterator[Conversed]) -> None:
        loop = asyncio.get_running_loop()
        async for event in events:
            if self._outbox.full:
                self._held = True
                await self._outbox.room()
                self._held = False
            self._alive = loop.time()
            if not self._closed:
                self._owner.note(self, event)

    def _break(self, error: GatewayError) -> None:
        if not self._closed:
            self.close()
            self._owner.broken(self, error)

    def _look_after(self, seconds: float) -> None:
        self._watch = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Ends the session of an engine that shows no sign of life while it has something to do."""
        self._watch, now = None, asyncio.get_running_loop().time()
        waiting = self._oldest()
        if self._closed or waiting is None:
            return
        if self._held:
            self._alive = now
        queued = waiting.queued is not None
        patience = self._settings.engine_total_timeout if queued else self._settings.converse_timeout
        left = max(self._alive, waiting.since) + patience - now
        if left > 0:
            self._look_after(min(left, self._settings.converse_timeout))
        else:
            self._break(EngineTimeout(f"the engine has shown no sign of life for {patience:g} s"))

    def _oldest(self) -> Turn | None:
        """The turn that the engine should be busy with: they are answered in order."""
        return next((turn for turn in (*self._turns.values(), *self.uplink.turns) if not turn.ended), None)
