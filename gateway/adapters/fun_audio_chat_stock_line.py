"""The one connection to upstream's server, and what is known of the turn on it (see fun_audio_chat_stock.py)."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State as Connected

from gateway.adapters.fun_audio_chat_line import Unpacking, hang_up
from gateway.errors import EngineTimeout
from gateway.wire import fun_audio_chat as wire

log = structlog.get_logger(__name__)

PROCESSING = wire.encode(wire.Text(wire.PROCESSING))
_START, _PAUSE = (wire.encode(wire.Control(action)) for action in (wire.Action.START, wire.Action.PAUSE))
_SPEAK = "You are asked to generate both text and speech tokens at the same time."
"""What its model was trained to be told when it is to speak; a system prompt of one's own takes the place of it."""
_MESSAGE_BYTES = 4000
"""Of audio; its decoder fails on 20,000."""
_PER_MESSAGE = 0.01
"""Seconds in which it works off a message of audio."""
_START_SECONDS, _PAUSE_SECONDS = 0.05, 0.02
"""From a pong until what came before it has been acted upon."""
_SILENCE, _TEXT_SILENCE, _ERROR_SILENCE = 1.5, 1.0, 0.3
"""Seconds after the last audio, text or error in which nothing comes: the reply is over. Texts are 0.2 s apart."""
_BYTES_PER_SECOND = 16_000
"""Of Opus in a recording, at most."""
_PAGE_OVERHEAD = 64


class Recording:
    """What is said in one turn: the latest of it, as pages."""

    def __init__(self, most_seconds: float) -> None:
        self.pages: list[bytes] = []
        self.cut = 0
        """How many pages were dropped at its beginning."""
        self._lengths: deque[float] = deque()
        self.seconds, self._most_seconds = 0.0, most_seconds
        self._bytes = 0

    def add(self, page: bytes, seconds: float) -> None:
        self.pages.append(page)
        self._lengths.append(seconds)
        self.seconds += seconds
        self._bytes += len(page) + _PAGE_OVERHEAD
        most_bytes = self._most_seconds * _BYTES_PER_SECOND
        while len(self.pages) > 1 and (self.seconds > self._most_seconds or self._bytes > most_bytes):
            self.seconds -= self._lengths.popleft()
            self._bytes -= len(self.pages.pop(0)) + _PAGE_OVERHEAD
            if not self.cut:
                log.info("turn too long", kept_seconds=round(self.seconds))
            self.cut += 1


class Line:
    """The connection. One task uses it at a time."""

    def __init__(self, socket: ClientConnection, owner: object, packed: bool, patience: float) -> None:
        """owner: whose turns it answers. packed: whether that wants Opus. patience: seconds that a reply may take to
        begin."""
        self.owner: object | None = owner
        self.unpacking = Unpacking(packed)
        self._socket, self._patience = socket, patience
        self._loop = asyncio.get_running_loop()
        self._given: Recording | None = None
        self._cut = self._sent = 0
        """Of what was given: how many pages had been dropped at its beginning, and how many were sent."""
        self._records = True
        """Whether the server records already: it does from the start."""
        self._told = False
        """Whether it has seen the headers of the stream."""
        self._remembers = False
        """Whether it has had a turn."""
        self._idle_at = 0.0
        """Loop time at which it will have worked off all audio."""
        self._reply: _Reply | None = None

    def __repr__(self) -> str:
        return f"<line: {'replying' if self.running else 'silent'}, {'owned' if self.owner else 'abandoned'}>"

    @property
    def usable(self) -> bool:
        return self._socket.state is Connected.OPEN

    @property
    def running(self) -> bool:
        """Whether there is a reply that is not over."""
        return self._reply is not None

    @property
    def age(self) -> float:
        """Seconds since the reply that runs was asked for."""
        return self._loop.time() - self._reply.since if self._reply else 0.0

    def has(self, recording: Recording) -> bool:
        """Whether all of it was sent."""
        return self._given is recording and self._sent == len(recording.pages) and self._cut == recording.cut

    async def give(self, recording: Recording, headers: list[bytes]) -> None:
        """Sends what the server does not have of it. Raises ConnectionClosed, EngineTimeout."""
        new = self._given is not recording or self._cut != recording.cut
        self._given = None  # unless all of it gets there
        if new:
            await self._start()
            self._sent, self._cut = 0, recording.cut
        pages = recording.pages[self._sent :]
        data = b"".join(pages if self._told else [*headers, *pages])
        self._told = True
        for at in range(0, len(data), _MESSAGE_BYTES):
            await self._socket.send(b"\1" + data[at : at + _MESSAGE_BYTES])
            self._idle_at = max(self._idle_at, self._loop.time()) + _PER_MESSAGE
        if self._cut == recording.cut:
            self._given, self._sent = recording, self._sent + len(pages)

    async def settle(self) -> None:
        """Waits until what was given has been recorded. Raises ConnectionClosed, EngineTimeout."""
        await self._pong()
        await asyncio.sleep(max(self._idle_at - self._loop.time(), 0) + _PAUSE_SECONDS)

    async def ask(self, persona: str) -> None:
        """For a reply to what was given. Raises ConnectionClosed."""
        self._reply = _Reply(self._patience, self._loop.time())
        self._given = None
        if persona and not self._remembers:
            await self._socket.send(wire.encode(wire.metadata({"system_prompt": f"{_SPEAK} {persona}"})))
        self._remembers = True
        await self._socket.send(_PAUSE)

    async def next(self) -> bytes | None:
        """The next message of the reply; None when it is over. Raises EngineTimeout where none begins, and
        ConnectionClosed."""
        reply = self._reply
        while reply is not None:
            try:
                async with asyncio.timeout_at(reply.deadline):
                    data = await self._socket.recv()
            except TimeoutError:
                self._reply = None
                if not reply.begun:
                    what = "taken the turn, and then said" if reply.taken else "taken no turn, and said"
                    raise EngineTimeout(f"the engine has {what} nothing for {reply.patience:g} s") from None
                return None
            except ConnectionClosed:
                self._reply = None
                raise
            if isinstance(data, bytes) and data:
                reply.note(data, self._loop.time())
                if reply.taken or data[:1] == b"\5":  # what comes earlier is of a reply that was over too soon
                    return data
        return None

    async def rest(self) -> bool:
        """Returns when no reply runs any more; False where the one that did never began."""
        with suppress(ConnectionClosed):
            try:
                while await self.next() is not None:
                    pass
            except EngineTimeout:
                return False
        return True

    async def close(self) -> None:
        await hang_up(self._socket)

    def abort(self) -> None:
        self._socket.transport.abort()

    # Private

    async def _start(self) -> None:
        if not self._records:
            await self._socket.send(_START)
            await self._pong()
            await asyncio.sleep(_START_SECONDS)
        self._records = False

    async def _pong(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await (await self._socket.ping())
        except TimeoutError:
            raise EngineTimeout(f"the engine has taken no audio for {self._patience:g} s") from None


# Private


@dataclass(slots=True)
class _Reply:
    """When it is over. Loop times."""

    patience: float
    """Seconds that it may take to begin."""
    since: float
    """Of PAUSE, and then of the server's taking the turn."""
    taken: bool = False
    audible: bool = False
    _wait: float = 0.0
    """Seconds until its first sound."""
    _gap: float = 0.0
    """Longest between two messages of audio."""
    _audio_at: float = 0.0
    _over_at: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether anything has come of it."""
        return self._over_at > 0

    @property
    def deadline(self) -> float:
        """When silence until then means that it is over."""
        return self._over_at or self.since + self.patience

    def note(self, data: bytes, now: float) -> None:
        """A message of it has come."""
        if data == PROCESSING:
            self.since, self.taken = now, True
        elif data[:1] == b"\5":
            self._over_at = now + _ERROR_SILENCE
        elif data[:1] == b"\1" and self.taken:
            if self.audible:
                self._gap = max(self._gap, now - self._audio_at)
            else:
                self._wait = now - self.since
            self._audio_at, self.audible = now, True
            # the first sound takes more than twice as long as the next
            silence = min(max(_SILENCE, 0.75 * self._wait, 2 * self._gap), self.patience)
            self._over_at = max(self._over_at, now + silence)
        elif self.audible:
            self._over_at = max(self._over_at, now + _TEXT_SILENCE)
