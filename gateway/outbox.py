"""What a client is to be told of its conversation, until its surface takes it."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gateway.errors import GatewayError
from gateway.events import Opus, ReplyAudio, ReplyText, Resumable, ToolCall, Transcript, Turn
from gateway.wire import opus

MOST_BYTES = 1024 * 1024
"""Then the engine has to wait. 20 s of PCM, minutes of Opus: an engine is done with a turn long before it was heard."""
_OVERHEAD = 200
"""Bytes that an event costs besides its words or its audio."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Hands-free: somebody begins to speak, or has ended."""

    turn: int
    started: bool
    at: float
    """Seconds of the connection's audio."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Exactly one for each turn that was begun by End, Write, or the last of its tools' results."""

    turn: int
    status: str
    """completed, cancelled or failed."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, named as in gateway/wire/turns.py ReplyDone."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something failed; the dialogue goes on."""

    error: GatewayError
    turn: int = 0
    """0 where it belongs to none."""


Out = Turn | Transcript | ReplyAudio | ReplyText | ToolCall | Resumable | Speech | Ended | Trouble
"""Of a Turn only QUEUED and WORKING: Ended tells the rest."""


class Outbox:
    """One reader. The engine's side asks for `room` first; what the client itself brings about always gets in."""

    __slots__ = ("_bytes", "_closed", "_events", "_headers", "_reader", "_replies", "_writer", "direct")

    def __init__(self) -> None:
        self._events: deque[Out] = deque()
        self._bytes = self._replies = 0
        """_replies: how many of the events are of one."""
        self._headers: list[Opus] = []
        """Of the engine's audio, where they were dropped with a reply: what follows cannot be played without."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._closed = False
        self.direct: Callable[[ReplyAudio], bool] | None = None
        """Of the reader: takes an event that it is waiting for, or does not."""

    def __repr__(self) -> str:
        return f"<outbox: {len(self._events)} events, {self._bytes} bytes>"

    @property
    def full(self) -> bool:
        return self._bytes >= MOST_BYTES

    @property
    def overfull(self) -> bool:
        """Whether even the client's own doings have filled it: the surface has stopped to read."""
        return self._bytes >= 2 * MOST_BYTES

    def put(self, event: Out) -> None:
        if self._headers and isinstance(event, ReplyAudio):
            headers, self._headers = self._headers, []
            if not _begins_stream(event):
                for page in headers:
                    self.put(ReplyAudio(event.turn, page))
        if self.direct is not None and self._awaited and isinstance(event, ReplyAudio) and self.direct(event):
            return
        self._events.append(event)
        self._bytes += _size(event)
        self._replies += isinstance(event, _REPLIES)
        _wake(self._reader)

    @property
    def _awaited(self) -> bool:
        """Whether the reader has done with everything before."""
        return self._reader is not None and not self._reader.done() and not self._events

    async def get(self) -> Out | None:
        """The next event; None after the last one."""
        while not self._events:
            if self._closed:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
        self._bytes -= _size(event)
        self._replies -= isinstance(event, _REPLIES)
        if not self.full:
            _wake(self._writer)
        return event

    async def room(self) -> None:
        """Waits until the surface has taken enough. For one at a time."""
        while self.full:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def drop(self, event: ReplyAudio) -> None:
        """One that is not wanted."""
        if isinstance(event.audio, Opus) and opus.is_header(event.audio.page):
            self._headers = [event.audio] if _begins_stream(event) else [*self._headers, event.audio]

    def drop_replies(self) -> None:
        """Takes back whatever waits of replies; those that had ended count as cancelled now."""
        if not self._replies:
            return
        waiting = list(self._events)
        cut = {event.turn for event in waiting if isinstance(event, ReplyAudio | ReplyText)}
        for event in waiting:
            if isinstance(event, ReplyAudio):
                self.drop(event)
        kept = [_cancelled(event, cut) for event in waiting if not isinstance(event, _REPLIES)]
        self._events.clear()
        self._events.extend(kept)
        self._bytes, self._replies = sum(map(_size, kept)), 0
        if not self.full:
            _wake(self._writer)

    def close(self) -> None:
        """No more comes; what waits can still be read."""
        self._closed, self.direct = True, None
        _wake(self._reader)


def opens_stream(page: Opus) -> bool:
    """Whether it is the first page of an Ogg stream."""
    return bool(page.page[5] & 2)


# Private

_REPLIES = Turn | ReplyAudio | ReplyText | ToolCall


def _cancelled(event: Out, turns: set[int]) -> Out:
    if isinstance(event, Ended) and event.turn in turns and event.status == "completed":
        return replace(event, status="cancelled")
    return event


def _begins_stream(event: ReplyAudio) -> bool:
    return isinstance(event.audio, Opus) and opens_stream(event.audio)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _size(event: Out) -> int:
    if isinstance(event, ReplyAudio):
        return _OVERHEAD + len(event.audio.page if isinstance(event.audio, Opus) else event.audio.pcm)
    return _OVERHEAD + (len(event.text) if isinstance(event, ReplyText | Transcript) else 0)
