"""What a cascade's conversation has to say, in order, until its reader takes it.

Bounded: audio and text by `room`, which their writers wait for; all else by `few`, which whoever reads the client
waits for.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from gateway.errors import GatewayError
from gateway.events import Audio, Conversed, Phase, ReplyAudio, ReplyText, ToolCall, Transcript, Turn

MOST_BYTES = 1024 * 1024
"""Of replies that nobody has read; then synthesis waits. 20 s of audio, besides what surfaces hold."""
MOST_EVENTS = 4096
_OVERHEAD = 100
"""Bytes that an event costs besides its content."""


class Events:
    """An iterator of events, for one reader."""

    def __init__(self, taken: Callable[[Conversed], None]) -> None:
        """taken: told of each event in the moment that the reader takes it."""
        self._taken = taken
        self._events: deque[Conversed] = deque()
        self._bytes = 0
        self._ended = False
        self._error: GatewayError | None = None
        self._filled, self._drained = asyncio.Event(), asyncio.Event()

    def put(self, event: Conversed) -> None:
        """Nothing waits here; a partial takes the place of the one before it."""
        if self._events and _replaces(event, self._events[-1]):
            self._bytes -= _size(self._events.pop())
        self._events.append(event)
        self._bytes += _size(event)
        self._filled.set()

    async def room(self) -> None:
        """Waits until more of a reply may be put."""
        while self._bytes >= MOST_BYTES:
            self._drained.clear()
            await self._drained.wait()

    async def few(self) -> None:
        """Waits until more of anything may be put."""
        while len(self._events) >= MOST_EVENTS:
            self._drained.clear()
            await self._drained.wait()

    def drop(self, turn: int) -> None:
        """Takes back what was not read of that turn, but for what its user said."""
        self._events = deque(event for event in self._events if not _of(event, turn))
        self._bytes = sum(map(_size, self._events))
        self._drained.set()

    def end(self, error: GatewayError | None = None) -> None:
        """Nothing follows; `error` is what the reader gets at the end."""
        self._ended, self._error = True, error
        self._filled.set()

    def leave(self) -> None:
        """Nobody reads any more. Its writer, which it tells of nothing now, is freed with it."""
        self._taken = _nobody
        self._events.clear()

    def __aiter__(self) -> AsyncIterator[Conversed]:
        return self

    async def __anext__(self) -> Conversed:
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        event = self._events.popleft()
        self._bytes -= _size(event)
        self._drained.set()
        self._taken(event)
        return event


def ends(event: Conversed) -> bool:
    """Whether it ends a turn."""
    return isinstance(event, Turn) and event.phase not in (Phase.QUEUED, Phase.WORKING)


def _replaces(event: Conversed, last: Conversed) -> bool:
    """Whether nobody needs `last` any more."""
    if not (isinstance(event, Transcript) and isinstance(last, Transcript)):
        return False
    return not last.final and last.utterance == event.utterance


def _nobody(_: Conversed) -> None:
    """Wants to know what is taken."""


def _of(event: Conversed, turn: int) -> bool:
    if isinstance(event, Turn):
        return event.number == turn
    return isinstance(event, ReplyAudio | ReplyText | ToolCall) and event.turn == turn


def _size(event: Conversed) -> int:
    match event:
        case ReplyAudio(audio=Audio(pcm)):
            return _OVERHEAD + len(pcm)
        case ReplyText(text=text) | Transcript(text=text):
            return _OVERHEAD + len(text)
    return _OVERHEAD
