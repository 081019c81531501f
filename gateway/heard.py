"""What is told of a stream's utterances, from when it happens to when its reader takes it."""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from gateway.errors import GatewayError
from gateway.events import Transcript
from gateway.recognition import Bell


@dataclass(frozen=True, slots=True)
class Began:
    number: int
    """Counts from 0. One that was cleared leaves a gap."""
    at: float
    """Seconds from the first sample of the stream, here and below."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What is said so far, as it seems; the next one of its number replaces it."""

    number: int
    text: str = field(repr=False)
    at: float
    """Up to where the recogniser was given the stream."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Its text is still to come."""

    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Final:
    number: int
    transcript: Transcript = field(repr=False)
    """Text empty where no words were said; `utterance` is the number, start and end are always known."""


@dataclass(frozen=True, slots=True)
class Failed:
    number: int
    error: GatewayError


Heard = Began | Partial | Ended | Final | Failed


class Untold:
    """What nobody has taken yet; of the partials of an utterance the latest."""

    def __init__(self, changed: Bell) -> None:
        """changed: rung whenever something is told or taken."""
        self._changed = changed
        self._events: deque[Heard] = deque()
        self.over = False
        """Whether there will be no more."""

    def __len__(self) -> int:
        return len(self._events)

    def about(self, number: int) -> bool:
        """Whether any of it is about that utterance."""
        return any(one.number == number for one in self._events)

    def tell(self, event: Heard) -> None:
        if isinstance(event, Partial):
            for at, untold in enumerate(self._events):
                if isinstance(untold, Partial) and untold.number == event.number:
                    self._events[at] = event
                    return
        self._events.append(event)
        self._changed.ring()

    def drop(self, number: int) -> None:
        """What is about that utterance is not told."""
        self._events = deque(event for event in self._events if event.number != number)

    def end(self) -> None:
        self.over = True
        self._changed.ring()

    async def take(self) -> AsyncGenerator[Heard]:
        """In the order in which it happened, to the end."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._changed.ring()
                yield event
            if self.over:
                return
            await self._changed.wait()

    async def take_in_turn(self, known: Callable[[int], bool]) -> AsyncGenerator[Heard]:
        """One utterance after the other. known: whether there may be more to tell of one; of those that were cleared
        there is not."""
        held: dict[int, list[Heard]] = {}
        current: int | None = None
        async for event in self.take():
            if current is not None and event.number != current and not known(current):
                current = None
            of_it = held.setdefault(event.number, [])
            if of_it and isinstance(event, Partial) and isinstance(of_it[-1], Partial):
                of_it.pop()
            of_it.append(event)
            while held and current in (None, min(held)):
                current = min(held)
                for one in held.pop(current):
                    yield one
                    if isinstance(one, Final | Failed):
                        current = None
