"""Who is connected to which chat now, and what is on its way to them.

Nothing here waits for a client: what one says to a chat is put into the outbox of each, and each delivers its own.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from gateway import caller
from gateway.errors import TooSlow
from gateway.socket import Socket

MOST_WAITING = 256
"""Messages that may wait for one client."""
PACE = 0.05
"""Seconds between two states of a message that grows."""
MOST_TOKENS = 10_000
"""Chats whose conversations can be taken up again."""
_Name = tuple[str, str]
"""A tenant, and the id of a chat."""


class Outbox:
    """Messages on their way to one client. A newer state of a message takes the place of an older one that has not
    left yet, so that a slow reader gets fewer of them, and each message whole in the end."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self._number = 0
        self._urgent = 0
        self._filled, self._hurry = asyncio.Event(), asyncio.Event()
        self._closed = self._overfull = False
        self._sending: asyncio.Timeout | None = None

    def put(self, text: str, key: str = "", *, grows: bool = False) -> None:
        """key: names the message, where it has several states; grows: whether another is to come."""
        if self._closed:
            return
        self._number += 1
        key = key or f"#{self._number}"
        if key in self._waiting or len(self._waiting) < MOST_WAITING:
            self._waiting[key] = (text, grows)
        else:
            self._give_up()
        if not grows:
            self._hurry.set()
        self._filled.set()

    def close(self) -> None:
        """What waits is still delivered, and nothing more."""
        self._closed = True
        self._filled.set()
        self._hurry.set()

    async def deliver(self, socket: Socket, idle: float) -> None:
        """Until it is closed. Raises TooSlow where too much waits, or the client takes nothing for `idle` seconds."""
        while not self._closed or self._waiting:
            await self._filled.wait()
            self._filled.clear()
            self._hurry.clear()
            grew = False
            for _ in range(len(self._waiting)):
                text, grows = self._waiting.popitem(last=False)[1]
                grew |= grows
                await self._send(socket, text, idle)
                await asyncio.sleep(0)  # a connection that is lost must be able to say so
            if grew:
                await self._rest()

    # Private

    def _give_up(self) -> None:
        self._overfull = True
        if self._sending is not None:  # that very message is what the client does not read
            self._sending.reschedule(asyncio.get_running_loop().time())

    async def _send(self, socket: Socket, text: str, idle: float) -> None:
        try:
            async with asyncio.timeout(0 if self._overfull else idle) as self._sending:
                await socket.send(text)
        except TimeoutError:
            why = "too many messages wait for you" if self._overfull else f"you have read nothing for {idle:g} s"
            raise TooSlow(why) from None
        finally:
            self._sending = None

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(PACE):
                await self._hurry.wait()
        except TimeoutError:
            return


@dataclass(slots=True)
class Room:
    """Everybody who is connected to one chat."""

    members: list[Outbox] = field(default_factory=list)
    ended: bool = False

    def tell(self, text: str, key: str = "", *, grows: bool = False) -> None:
        """As Outbox.put, to everybody."""
        for member in self.members:
            member.put(text, key, grows=grows)

    def end(self) -> None:
        self.ended = True
        for member in self.members:
            member.close()


class Rooms:
    """Of one process."""

    def __init__(self, keep: float) -> None:
        """keep: seconds for which a conversation that was left can be taken up again."""
        self.connections = 0
        """Open WebSockets of this client family."""
        self._keep = keep
        self._rooms: dict[_Name, Room] = {}
        self._tokens: OrderedDict[_Name, tuple[str, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<{self.connections} connected, {len(self._rooms)} rooms, {len(self._tokens)} to take up again>"

    @contextmanager
    def connected(self) -> Iterator[None]:
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    @contextmanager
    def enter(self, chat_id: str, outbox: Outbox) -> Iterator[Room]:
        name = _name(chat_id)
        room = self._rooms.setdefault(name, Room())
        room.members.append(outbox)
        try:
            yield room
        finally:
            room.members.remove(outbox)
            if not room.members:
                del self._rooms[name]

    def leave_token(self, chat_id: str, token: str) -> None:
        """Resume token of the conversation that was just left."""
        name = _name(chat_id)
        self._tokens.pop(name, None)
        self._tokens[name] = (token, monotonic() + self._keep)
        while len(self._tokens) > MOST_TOKENS:
            self._tokens.popitem(last=False)

    def take_token(self, chat_id: str) -> str:
        """That of the last one who left; empty where there is none, or another has taken it. Two that are there at
        once have a conversation each."""
        token, until = self._tokens.pop(_name(chat_id), ("", 0.0))
        return token if monotonic() < until else ""


def _name(chat_id: str) -> _Name:
    """A chat is one only among those of its tenant."""
    return caller.tenant(), chat_id
