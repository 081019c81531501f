"""What a Realtime client is told: events in order, as fast as it reads them, and sound that was not sent can be taken
back."""

import asyncio
import secrets
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.errors import ClientGone, GatewayError, TooSlow
from gateway.socket import Socket
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_beta import Dialect
from gateway.wire.openai_realtime_fields import Wrong

MOST_BYTES = 128 * 1024
"""Of what waits to be sent; then whoever brings more of a reply waits, and the client is not read. 2 s of PCM."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: str
    response: str = ""
    """Of a reply's sound or its words: it can be taken back."""
    seconds: float = 0.0
    letters: int = 0


class Line:
    """One client's. `run` is for a task of its own."""

    def __init__(self, socket: Socket, dialect: Dialect, patience: float) -> None:
        """patience: seconds for which the client may read nothing."""
        self._socket, self.dialect, self._patience = socket, dialect, patience
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._gone = False
        """Whether the client has left."""
        self._filled, self._drained = asyncio.Event(), asyncio.Event()

    def __repr__(self) -> str:
        return f"<line: {len(self._waiting)} events, {self._bytes} bytes>"

    def emit(self, type: str, **fields: Any) -> None:  # noqa: A002
        self._put(_Waiting(self._encoded(type, fields)))

    def emit_delta(self, type: str, response: str, *, seconds: float = 0.0, letters: int = 0, **fields: Any) -> None:  # noqa: A002
        """A piece of a reply; seconds: of its sound; letters: of its words."""
        message = self._encoded(type, {"response_id": response, **fields})
        self._put(_Waiting(message, response, seconds, letters))

    def take_back(self, response: str) -> tuple[float, int]:
        """What was not sent of a reply: seconds, and letters."""
        kept, seconds, letters = deque[_Waiting](), 0.0, 0
        for one in self._waiting:
            if one.response == response:
                seconds, letters = seconds + one.seconds, letters + one.letters
                self._bytes -= len(one.message)
            else:
                kept.append(one)
        self._waiting = kept
        self._drained.set()
        return seconds, letters

    def fail(self, exc: GatewayError | Wrong, event_id: str | None = None) -> None:
        """event_id: of the client's event that it answers."""
        self._put(_Waiting(self.failure(exc, event_id)))

    def failure(self, exc: GatewayError | Wrong, event_id: str | None = None) -> str:
        """The message that says so."""
        if isinstance(exc, Wrong):
            fields = wire.error(400, exc.code, str(exc), exc.param, event_id)
        else:
            fields = wire.error(exc.status, exc.code, str(exc), None, event_id)
        return self._encoded("error", fields)

    async def room(self) -> None:
        """Waits while too much is unsent."""
        while self._bytes >= MOST_BYTES and not self._gone:
            self._drained.clear()
            await self._drained.wait()

    async def run(self) -> None:
        """Sends, until the client leaves: whoever reads it finds out. Raises TooSlow."""
        with suppress(ClientGone):
            await self._send_all()
        self._gone = True
        self._drained.set()

    # Private

    async def _send_all(self) -> None:
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            one = self._waiting.popleft()
            self._bytes -= len(one.message)
            self._drained.set()
            try:
                async with asyncio.timeout(self._patience):
                    await self._socket.send(one.message)
            except TimeoutError:
                raise TooSlow(f"you have read nothing for {self._patience:g} s") from None

    def _encoded(self, type: str, fields: dict[str, Any]) -> str:  # noqa: A002
        return wire.encode(type, fields, new_id("event"), self.dialect)

    def _put(self, one: _Waiting) -> None:
        if one.message and not self._gone:
            self._waiting.append(one)
            self._bytes += len(one.message)
            self._filled.set()


def new_id(kind: str) -> str:
    """item_…, resp_…, event_…: 96 random bits."""
    return f"{kind}_{secrets.token_hex(12)}"
