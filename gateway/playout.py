"""Replies on their way to one client, as Ogg Opus pages at the pace of speech.

Rule 1: at most LEAD of a reply is sent before it can have been heard, so that an interruption has something to stop.
Rule 2: what is said of a turn may overtake its own sound, but not that of an earlier one; its end follows its sound.
Rule 3: what waits here is bounded; then whoever brings more has to wait, and with them the engine.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.errors import TooSlow
from gateway.events import Audio, Opus
from gateway.resample import Resampler
from gateway.wire import opus

LEAD = 1.0
"""Seconds of sound that a client may have before it is due."""
MOST_SECONDS, MOST_BYTES = 10.0, 1024 * 1024
"""Of what waits. Beyond it only the rest of a piece."""
_HEADER_BYTES = 64 * 1024
"""Of the headers of a stream. Nobody has a reason to send more."""
_SLICE = 0.04
"""Seconds of PCM that are packed at a time, in 0.2 ms: the loop is for others too."""

Send = Callable[[bytes], Awaitable[None]]
SendNow = Callable[[bytes], bool]
"""Gives whether it was sent; False where it would have to wait."""
Build = Callable[[float, bool], bytes]
"""The message that ends a turn, from the seconds of sound that were sent of it, and whether it was cut short."""


@dataclass(frozen=True, slots=True)
class _Sound:
    turn: int
    piece: Audio | Opus
    seconds: float

    @property
    def size(self) -> int:
        return len(self.piece.page if isinstance(self.piece, Opus) else self.piece.pcm)


@dataclass(frozen=True, slots=True)
class _Words:
    turn: int
    message: bytes
    reply: bool

    @property
    def size(self) -> int:
        return len(self.message)


@dataclass(slots=True)
class _End:
    turn: int
    build: Build
    cut: bool = False
    size = 0


class Playout:
    """One task runs `run`, one brings what is to be said; whoever hears an interruption calls `cut`."""

    __slots__ = (
        "_blocked",
        "_bytes",
        "_cuts",
        "_headers",
        "_lane",
        "_packer",
        "_page",
        "_patience",
        "_resampler",
        "_room",
        "_seconds",
        "_send",
        "_sending",
        "_sent",
        "_turn",
        "_unpacked",
        "_until",
        "_waker",
        "_words",
    )

    def __init__(self, send: Send, page: Callable[[bytes], bytes], patience: float) -> None:
        """page: the message that holds a page. patience: seconds for which a client may hold up one reply."""
        self._send, self._page, self._patience = send, page, patience
        self._lane: deque[_Sound | _Words | _End] = deque()
        self._seconds, self._bytes, self._words = 0.0, 0, 0
        """Of what is in the lane; the last counts messages, and the one on its way."""
        self._sending: _Sound | _Words | _End | None = None
        """What has left the lane, and not yet us."""
        self._until = 0.0
        """Loop time when all that was sent will have been heard, if the client plays it at once."""
        self._turn, self._sent, self._blocked = 0, 0.0, 0.0
        """The turn that sounds, the seconds sent of it, and those for which its client held it up."""
        self._cuts = 0
        self._headers = b""
        """Of a stream that begins; they go with its first page, in one message."""
        self._packer: opus.Packer | None = None
        self._resampler: Resampler | None = None
        self._unpacked = False
        """Whether PCM has been taken that may not have come out."""
        self._waker: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<playout: turn {self._turn}, {self._sent:.2f} s sent, {self._seconds:.2f} s wait>"

    async def run(self) -> None:
        """Sends what is due, for ever. Raises TooSlow."""
        while True:
            delay = self._delay()
            if delay is None or delay > 0:
                await self._rest(delay)
                continue
            item = self._lane.popleft()
            self._bytes -= item.size
            self._sending = item
            try:
                await self._put(item)
            finally:
                self._sending = None

    async def play(self, turn: int, piece: Audio | Opus) -> None:
        """Sound of a reply. Waits while too much of it waits; raises TooSlow."""
        if isinstance(piece, Opus):
            seconds = opus.seconds(piece.page)
            if not self._lane and self._sending is None and self._due():
                await self._opus(turn, piece.page, seconds)
            elif await self._admitted() or opus.is_header(piece.page):
                self._add(_Sound(turn, piece, seconds))
            return
        if await self._admitted():
            step = 2 * max(1, int(piece.sample_rate * _SLICE))
            for at in range(0, len(piece.pcm), step):
                pcm = piece.pcm[at : at + step]
                self._add(_Sound(turn, Audio(pcm, piece.sample_rate), len(pcm) / 2 / piece.sample_rate))

    def play_now(self, turn: int, page: bytes, send: SendNow) -> bool:
        """Whether a page was sent already; else it is for `play`."""
        if self._lane or self._sending is not None or not self._due() or not (seconds := opus.seconds(page)):
            return False
        if not send(self._page(self._headers + page)):
            return False
        self._headers = b""
        self._count(turn, seconds)
        return True

    async def say(self, turn: int, message: bytes, *, reply: bool = False) -> None:
        """A message about a turn. reply: it is a part of the reply, and falls with it."""
        first = self._sending or (self._lane[0] if self._lane else None)
        if not self._words and (first is None or first.turn == turn):
            await self._send(message)
        elif await self._admitted() or not reply:
            self._words += 1
            self._add(_Words(turn, message, reply))

    def end(self, turn: int, build: Build) -> None:
        """Nothing more comes of the turn: says so, after its last sound."""
        self._add(_End(turn, build))

    def cut(self) -> bool:
        """Forgets at once what has not been sent of the replies; what has to be said all the same stays. Gives whether
        the client was still hearing one, or about to."""
        sounds = {item.turn for item in self._lane if isinstance(item, _Sound)}
        kept = [item for item in self._lane if _stays(item)]
        for item in kept:
            if isinstance(item, _End):
                item.cut = item.turn in sounds
        audible = bool(sounds) or self._unpacked or self._until > asyncio.get_running_loop().time()
        self._words -= sum(isinstance(item, _Words) for item in self._lane)
        self._words += sum(isinstance(item, _Words) for item in kept)
        self._lane.clear()
        self._lane.extend(kept)
        self._bytes, self._seconds, self._until = sum(item.size for item in kept), 0.0, 0.0
        self._cuts += 1
        _wake(self._waker)
        _wake(self._room)
        return audible

    async def hush(self) -> None:
        """After a cut: a page of silence, in which the codec ends what it held of the reply."""
        if self._packer is not None and self._unpacked:
            self._unpacked, self._resampler = False, None
            self._packer.drop()
            for message in self._packer.feed(bytes(2 * opus.FRAME)):
                await self._send(self._page(message))

    # Private

    def _delay(self) -> float | None:
        """Seconds until the first in the lane is due; None where there is none."""
        if not self._lane:
            return None
        if not isinstance(self._lane[0], _Sound):
            return 0.0
        return self._until - LEAD - asyncio.get_running_loop().time()

    def _due(self) -> bool:
        return self._until - LEAD <= asyncio.get_running_loop().time()

    def _add(self, item: _Sound | _Words | _End) -> None:
        self._lane.append(item)
        self._bytes += item.size
        if isinstance(item, _Sound):
            self._seconds += item.seconds
        if len(self._lane) == 1:
            _wake(self._waker)

    async def _admitted(self) -> bool:
        """Waits for room; gives whether what waited is still wanted."""
        cuts = self._cuts
        while self._seconds >= MOST_SECONDS or self._bytes >= MOST_BYTES:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        return cuts == self._cuts

    async def _put(self, item: _Sound | _Words | _End) -> None:
        if isinstance(item, _Sound):
            self._seconds = max(0.0, self._seconds - item.seconds)
            _wake(self._room)
            await self._play(item)
        elif isinstance(item, _Words):
            _wake(self._room)
            try:
                await self._send(item.message)
            finally:
                self._words -= 1
        else:
            await self._finish(item)

    async def _play(self, item: _Sound) -> None:
        if isinstance(item.piece, Opus):
            await self._opus(item.turn, item.piece.page, item.seconds)
            return
        cuts = self._cuts
        for message in self._packed(item.piece):
            await self._sound(item.turn, message, opus.FRAME / opus.RATE)
        await asyncio.sleep(0)  # writing does not wait while the client reads
        if cuts != self._cuts:
            await self.hush()

    async def _opus(self, turn: int, page: bytes, seconds: float) -> None:
        if not seconds and opus.is_header(page):
            self._headers = page if page[5] & 2 else self._headers[:_HEADER_BYTES] + page  # 2: the first of its stream
            return
        headers, self._headers = self._headers, b""
        await self._sound(turn, headers + page, seconds)

    def _packed(self, piece: Audio) -> list[bytes]:
        if self._packer is None:
            self._packer = opus.Packer()
        pages: list[bytes] = []
        if self._resampler is not None and self._resampler.source != piece.sample_rate:
            pages = self._packer.feed(self._resampler.feed(b"", last=True))
            self._resampler = None
        if self._resampler is None and piece.sample_rate != opus.RATE:
            self._resampler = Resampler(piece.sample_rate, opus.RATE)
        self._unpacked = True
        return pages + self._packer.feed(self._resampler.feed(piece.pcm) if self._resampler else piece.pcm)

    async def _finish(self, item: _End) -> None:
        if self._unpacked and self._packer is not None:
            rest = self._resampler.feed(b"", last=True) if self._resampler is not None else b""
            self._unpacked, self._resampler = False, None
            for message in self._packer.feed(rest) + self._packer.end():
                await self._sound(item.turn, message, opus.FRAME / opus.RATE)
        await self._send(item.build(self._sent if self._turn == item.turn else 0.0, item.cut))

    async def _sound(self, turn: int, page: bytes, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._count(turn, seconds)
        begun = loop.time()
        await self._send(self._page(page))
        self._blocked += loop.time() - begun
        if self._blocked > self._patience:
            raise TooSlow("you read your reply more slowly than it is spoken")

    def _count(self, turn: int, seconds: float) -> None:
        if turn != self._turn:
            self._turn, self._sent, self._blocked = turn, 0.0, 0.0
        self._until = max(self._until, asyncio.get_running_loop().time()) + seconds
        self._sent += seconds

    async def _rest(self, seconds: float | None) -> None:
        """Until woken, or for so long."""
        loop = asyncio.get_running_loop()
        self._waker = waker = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _wake, waker)
        try:
            await waker
        finally:
            if timer is not None:
                timer.cancel()


def _stays(item: _Sound | _Words | _End) -> bool:
    """Whether it outlives a cut: the headers of a stream do, whatever else becomes of it."""
    if isinstance(item, _Sound):
        return isinstance(item.piece, Opus) and opus.is_header(item.piece.page)
    return not (isinstance(item, _Words) and item.reply)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
