"""The connections of this process to its engines: opened, kept for the next request, watched, closed."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from gateway.adapters.http1 import Connection
from gateway.errors import EngineUnreachable

_IDLE_KEPT = 30.0
_TICK = 0.5


class Client:
    """The connections of one process to its engines. Times in seconds."""

    def __init__(self, *, connect: float, idle: float, total: float) -> None:
        self._connect, self._idle, self._total = connect, idle, total
        self._kept: dict[str, list[Connection]] = defaultdict(list)
        self._all: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._others: list[Callable[[], Awaitable[object]]] = []
        self._trusted: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        kept = sum(len(connections) for connections in self._kept.values())
        return f"<engine connections: {len(self._all) - kept} busy, {kept} kept>"

    async def __aenter__(self) -> "Client":
        self._loop = asyncio.get_running_loop()
        self._tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._all):
            connection.abort()
        await asyncio.sleep(0)  # connection_lost arrives in the next round
        for close in self._others:
            await close()

    def owns(self, close: Callable[[], Awaitable[object]]) -> None:
        """Connections that an adapter makes in another way: `close` is awaited when these are closed."""
        self._others.append(close)

    async def send(
        self, base: str, method: bytes, path: str, headers: bytes = b"", body: Sequence[bytes] = (), more: int = 0
    ) -> "Connection":
        """A connection on which the head and `body` have been written; `more` bytes of body are still to come.

        base: "http://host:port", with a path prefix or not. headers: whole lines. Raises EngineUnreachable.
        """
        host, prefix = _split(base)
        size = sum(map(len, body)) + more
        length = b"content-length: %d\r\n" % size if size or method == b"POST" else b""
        target = (prefix + path).encode()
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (method, target, host, length, headers)
        connection = self._take(base) or await self._open(base)
        connection.begin(self._loop.time(), more)
        connection.write([head, *body])
        return connection

    def give_back(self, connection: "Connection") -> None:
        """After an answer: kept for the next request, or closed when it is not at its end."""
        if connection.reusable():
            connection.since = self._loop.time()
            self._kept[connection.base].append(connection)
        else:
            connection.abort()

    def remember(self, connection: "Connection") -> None:
        self._all.add(connection)

    def forget(self, connection: "Connection") -> None:
        self._all.discard(connection)
        if connection in (kept := self._kept[connection.base]):
            kept.remove(connection)

    # Private

    def _take(self, base: str) -> "Connection | None":
        kept = self._kept[base]
        return kept.pop() if kept else None

    async def _open(self, base: str) -> "Connection":
        parts = urlsplit(base)
        secure = await self._trust() if parts.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self, base),
                    parts.hostname or "",
                    parts.port or (443 if secure else 80),
                    ssl=secure,
                )
        except TimeoutError:
            raise EngineUnreachable(f"the engine does not accept a connection within {self._connect:g} s") from None
        except OSError as exc:
            raise EngineUnreachable(f"the engine cannot be reached ({type(exc).__name__})") from exc
        return connection

    async def _trust(self) -> ssl.SSLContext:
        """Whom this machine trusts; read once, in a thread: it takes tens of milliseconds."""
        if self._trusted is None:
            self._trusted = await asyncio.to_thread(ssl.create_default_context)
        return self._trusted

    def _tick(self) -> None:
        """One timer for all connections: far cheaper than one for each read."""
        now = self._loop.time()
        for connection in list(self._all):
            connection.check(now, idle=self._idle, total=self._total, kept=_IDLE_KEPT)
        self._timer = self._loop.call_later(_TICK, self._tick)


def _split(base: str) -> tuple[bytes, str]:
    """(host header, path prefix) of a base URL."""
    if base not in _SPLIT:
        parts = urlsplit(base)
        _SPLIT[base] = (parts.netloc.encode(), parts.path.rstrip("/"))
    return _SPLIT[base]


_SPLIT: dict[str, tuple[bytes, str]] = {}
"""Bounded by the settings: one entry for each engine address."""
