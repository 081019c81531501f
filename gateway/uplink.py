"""What a client says, on its way to the engine: a bounded queue that never makes the client's side wait."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import TooLarge
from gateway.events import Audio, Opus
from gateway.verbs import Begin, Change, Reply, Said
from gateway.wire import opus

MOST_SECONDS, MOST_BYTES, MOST_ITEMS = 60.0, 4 * 1024 * 1024, 8192
"""Of audio that no engine has taken. An engine reads at once; until it has opened, or when it hangs, this is held."""
_OVERHEAD = 100
"""Bytes that a piece costs besides its audio."""


@dataclass(slots=True)
class Turn:
    """A turn that the client began. Times are the loop's."""

    number: int
    """In the dialogue."""
    since: float
    """The end of the user's speech."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, as Ended has them."""
    queued: float | None = None
    """Since when it has been waiting for the engine; None while it does not."""
    ended: bool = False
    replies: bool = True
    """Whether it is answered; else only its words are wanted."""
    answers: "Turn | None" = None
    """Of a reply that was asked for: the turn before it whose words were wanted, from whose end it is timed."""

    @property
    def spoken(self) -> float:
        """The end of the speech that it is about."""
        return self.since if self.answers is None else self.answers.since

    def wait(self, now: float) -> None:
        """It is queued."""
        if self.queued is None:
            self.queued = now

    def work(self, now: float) -> None:
        """The engine is busy with it."""
        if self.queued is not None:
            self.timings["queued"] = self.timings.get("queued", 0.0) + now - self.queued
            self.queued = None


class Uplink:
    """Items leave in order. Control messages always get in; who starts turns asks `full` before."""

    __slots__ = ("_bytes", "_items", "_reader", "_seconds", "direct")

    def __init__(self) -> None:
        self._items: deque[tuple[Said, float, Turn | None]] = deque()
        self._seconds, self._bytes = 0.0, 0
        self._reader: asyncio.Future[None] | None = None
        self.direct: Callable[[Opus], bool] | None = None
        """Of the engine: takes a page that nothing is before, or does not."""

    def __repr__(self) -> str:
        return f"<uplink: {len(self._items)} items, {self._seconds:.2f} s of audio>"

    @property
    def full(self) -> bool:
        return len(self._items) >= MOST_ITEMS

    @property
    def crowded(self) -> bool:
        """Whether half of its room is taken."""
        return self._seconds > MOST_SECONDS / 2 or self._bytes > MOST_BYTES / 2 or len(self._items) > MOST_ITEMS / 2

    @property
    def turns(self) -> list[Turn]:
        """Those that nobody has taken."""
        return [turn for _, _, turn in self._items if turn is not None]

    @property
    def restarts(self) -> bool:
        """Whether a Begin waits."""
        return any(isinstance(item, Begin) for item, _, _ in self._items)

    def hear(self, piece: Audio | Opus, seconds: float) -> None:
        """Raises TooLarge where nobody takes what is said."""
        if self._seconds > MOST_SECONDS or self._bytes > MOST_BYTES or self.full:
            raise TooLarge("the engine does not take the audio as fast as it comes", code="too_far_ahead")
        self._put(piece, seconds, None)

    def hear_now(self, page: Opus) -> bool:
        """Whether the engine has it already."""
        waits = self._reader is not None and not self._reader.done()
        return waits and not self._items and self.direct is not None and self.direct(page)

    def say(self, item: Said, turn: Turn | None = None) -> None:
        """turn: which one `item` begins, if it does."""
        if isinstance(item, Change) and self._joins(item):
            return
        last = self._items[-1][0] if self._items else None
        if last != item or not isinstance(item, Begin):
            self._put(item, 0.0, turn)

    def restart(self) -> None:
        """Begin: of what nobody has taken only wishes and headers of the audio are still of use."""
        kept = [one for one in self._items if isinstance(one[0], Change) or _is_header(one[0])]
        self._items.clear()
        self._seconds, self._bytes = 0.0, 0
        for item, _, _ in kept:
            self.say(item)
        self.say(Begin())

    def clear(self) -> None:
        """Begin(interrupts=False): what was said since the last turn is of no use."""
        while self._items and isinstance(self._items[-1][0], Audio):
            item, seconds, _ = self._items.pop()
            self._seconds -= seconds
            self._bytes -= _size(item)
        self.say(Begin(interrupts=False))

    async def take(self) -> tuple[Said, Turn | None]:
        """The next item, and the turn that it begins. One reader at a time."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item, seconds, turn = self._items.popleft()
        self._seconds -= seconds
        self._bytes -= _size(item)
        return item, turn

    # Private

    def _joins(self, change: Change) -> bool:
        """Whether wishes for the same turn waited already: there is one Change for each turn, so that they are bounded
        too, a quarter of a megabyte of tools each."""
        for back, (item, _, turn) in enumerate(reversed(self._items), 1):
            if turn is not None:
                return False
            if isinstance(item, Change):
                self._items[-back] = item.then(change), 0.0, None
                return True
        return False

    def _put(self, item: Said, seconds: float, turn: Turn | None) -> None:
        self._items.append((item, seconds, turn))
        self._seconds += seconds
        self._bytes += _size(item)
        if self._reader is not None:
            if not self._reader.done():
                self._reader.set_result(None)
            self._reader = None


def _size(item: Said) -> int:
    if isinstance(item, Opus):
        return _OVERHEAD + len(item.page)
    if isinstance(item, Reply):
        return _OVERHEAD + sum(len(message.text) for message in item.messages)
    return _OVERHEAD + (len(item.pcm) if isinstance(item, Audio) else 0)


def _is_header(item: Said) -> bool:
    return isinstance(item, Opus) and opus.is_header(item.page)
