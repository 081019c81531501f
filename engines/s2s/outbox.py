"""What a client is sent, in two lanes: messages at once, and the sound of replies hardly sooner than it is heard, so
that an interruption has something to interrupt. What comes behind a reply's sound waits in its lane.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus

PAGE_SECONDS = opus.FRAME / opus.RATE
_PAGE = 2 * opus.FRAME
_MESSAGES = 2000
"""That may wait for a client to read; a reply has some hundred."""


class TooSlow(Exception):
    """The client does not read; the text is for it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    lead: float = 1.0
    """That sound may be ahead of its being heard."""
    waiting: float = 120.0
    """Of sound that may wait; then whoever makes it waits as well."""
    ping: float = 10.0
    """Without any other message."""
    unread: float = 15.0
    """That a message may take to leave."""


@dataclass(frozen=True, slots=True)
class _Sound:
    pcm: bytes = field(repr=False)
    """Of a page, or less at the end of a piece."""
    sent: Callable[[], None]


class Outbox:
    def __init__(self, send: Callable[[bytes], Awaitable[None]], pace: Pace) -> None:
        """send: waits while the client does not read."""
        self._send, self._pace = send, pace
        self._messages: deque[bytes] = deque()
        self._sounds: deque[_Sound | Callable[[], None]] = deque()
        self._open = 0
        """Bytes of sound since the last end of a reply."""
        self._packer: opus.Packer | None = None
        """For all replies of a connection: clients have one decoder."""
        self._played = 0.0
        """When all that has been sent will have been heard, at the soonest."""
        self._last = 0.0
        """When a message was sent."""
        self._more, self._less = asyncio.Event(), asyncio.Event()

    def forget(self) -> None:
        """Nobody reads any more: all that waits goes at once, with the codec."""
        self._messages.clear()
        self._sounds.clear()
        self._packer = None

    def __repr__(self) -> str:
        return f"<{len(self._messages)} messages, {len(self._sounds) * PAGE_SECONDS:.1f} s of sound>"

    def say(self, *messages: wire.Message) -> None:
        """What comes when too much waits already is lost, and the connection with it: see `check`."""
        if len(self._messages) <= _MESSAGES:
            self._messages.extend(map(wire.encode, messages))
        self._more.set()

    def check(self) -> None:
        """Raises TooSlow where too much waits."""
        if len(self._messages) > _MESSAGES:
            raise TooSlow(f"{_MESSAGES} messages wait to be read")

    async def sound(self, pcm: bytes, sent: Callable[[], None]) -> None:
        """pcm: mono s16le at 24 kHz. sent: called for each page. Waits while too much is unsent."""
        self._add(pcm, sent)
        while len(self._sounds) * PAGE_SECONDS > self._pace.waiting:
            self._less.clear()
            await self._less.wait()

    def behind(self, act: Callable[[], None]) -> None:
        """A reply ends. act: called when all its sound has been sent; soon where there is none."""
        if self._open:  # padded to whole pages, and one more for what the codec holds back
            self._add(bytes(-self._open % _PAGE + _PAGE), lambda: None)
        self._open = 0
        self._sounds.append(act)
        self._more.set()

    def drop(self) -> None:
        """Nothing that waits in the lane of sound is sent, or called, any more."""
        self._sounds.clear()
        self._open = 0
        self._less.set()
        if self._packer is not None:
            self._packer.drop()

    async def write(self) -> None:
        """Sends, for as long as the connection lasts. Raises TooSlow, and what `send` raises."""
        self._last = _now()
        while True:
            self.check()
            if self._messages:
                await self._put(self._messages.popleft())
            elif self._sounds and self._early() <= 0:
                await self._next()
            elif not await self._awaken():
                await self._put(wire.encode(wire.Ping()))

    # Private

    def _add(self, pcm: bytes, sent: Callable[[], None]) -> None:
        self._open += len(pcm)
        self._sounds.extend(_Sound(pcm[at : at + _PAGE], sent) for at in range(0, len(pcm), _PAGE))
        self._more.set()

    def _early(self) -> float:
        """Seconds until what is next in the lane of sound may leave."""
        if not isinstance(self._sounds[0], _Sound):
            return 0.0
        return self._played - self._pace.lead - _now()

    async def _next(self) -> None:
        found = self._sounds.popleft()
        self._less.set()
        if not isinstance(found, _Sound):
            found()
            return
        self._packer = self._packer or opus.Packer()
        for page in self._packer.feed(found.pcm):
            self._played = max(self._played, _now()) + PAGE_SECONDS
            await self._put(wire.encode(wire.Audio(page)))
            found.sent()
        await asyncio.sleep(0)  # a whole lead at once would keep the others waiting

    async def _put(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(self._pace.unread):
                await self._send(message)
        except TimeoutError:
            raise TooSlow(f"nothing has been read for {self._pace.unread:g} s") from None
        self._last = _now()

    async def _awaken(self) -> bool:
        """Waits for something to do; false where a ping is due first."""
        self._more.clear()
        ping = self._last + self._pace.ping - _now()
        try:
            async with asyncio.timeout(min(self._early(), ping) if self._sounds else ping):
                await self._more.wait()
        except TimeoutError:
            return _now() < self._last + self._pace.ping
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
