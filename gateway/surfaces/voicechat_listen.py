"""`WS /ws` of the voice chat backend: audio in, recognised words out while it arrives.

In: s16le, mono, 16 kHz, binary frames of any size. Out: plain text, only what is new (gateway/deltas.py), or with
?format=json (or the subprotocol `json`) an asr_update for each state of an utterance. An empty binary frame,
{"type": "end"} or {"is_speaking": false} ends it: the rest is said, then it closes with 1000. ?language= names the
language. Other text is passed over; with JSON it is answered by an error.
"""

import asyncio
import uuid
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from gateway.deltas import Appended
from gateway.dictation import Microphone, dictate
from gateway.errors import BadRequest, ClientGone, GatewayError, TooSlow
from gateway.events import Transcript
from gateway.socket import Socket
from gateway.state import State
from gateway.surfaces.voicechat import one_more
from gateway.tasks import task_group
from gateway.wire import voice_chat as wire


def _now() -> datetime:
    return datetime.now(UTC)


async def listen(socket: Socket) -> None:
    """WS /ws: audio → words, until the client ends it or leaves."""
    state: State = socket.state
    language = socket.query("language").strip()[:50]
    pen = await _accepted(socket)
    listener = _Listener(socket, pen, state["settings"].client_idle_timeout)
    with state["rooms"].connected():
        try:
            async with task_group() as tasks:
                reading = tasks.create_task(listener.read())
                while await listener.microphone.spoken():
                    async with aclosing(listener.microphone.pieces()) as pieces:
                        await dictate(
                            state["transcribe"], state["settings"], state["scratch"], pieces, language, listener.heard
                        )
                    await listener.send(pen.pause())
                reading.cancel()
        except (ClientGone, TooSlow):
            raise
        except GatewayError as exc:
            await listener.send(pen.failed(exc))
            raise


async def farewell(socket: Socket, exc: GatewayError) -> None:
    """To whom the door does not let in, or shows out. Clients of plain text have the reason of the close alone."""
    pen = _pen(socket) if socket.opened else await _accepted(socket)
    if told := pen.failed(exc):
        await socket.send(told)


async def _accepted(socket: Socket) -> "_Pen":
    await socket.accept(wire.JSON_FORMAT if _offers_json(socket) else None)
    return _pen(socket)


def _pen(socket: Socket) -> "_Pen":
    return _Json() if _offers_json(socket) or socket.query("format") == wire.JSON_FORMAT else _Plain()


def _offers_json(socket: Socket) -> bool:
    return wire.JSON_FORMAT in socket.scope.get("subprotocols", ())


class _Pen(Protocol):
    """How a client of /ws is written to; what it gives may be empty, and is not sent then."""

    def heard(self, said: Transcript) -> str: ...

    def pause(self) -> str:
        """No more is recognised of the utterance that runs."""
        ...

    def failed(self, exc: GatewayError) -> str: ...

    def pong(self) -> str: ...


class _Plain:
    def __init__(self) -> None:
        self._page = Appended()

    def heard(self, said: Transcript) -> str:
        return self._page.final(said.text) if said.final else self._page.partial(said.text)

    def pause(self) -> str:
        return self._page.end()

    def failed(self, exc: GatewayError) -> str:
        return ""

    def pong(self) -> str:
        return ""


class _Json:
    def __init__(self) -> None:
        self._id = ""
        """Of the utterance that runs; empty between two."""
        self._revision = 0
        self._text = ""

    def heard(self, said: Transcript) -> str:
        if said.text == self._text and not said.final:
            return ""
        if not self._id:
            if not said.text:
                return ""
            self._id, self._revision = str(uuid.uuid4()), -1
        self._revision += 1
        self._text = said.text
        update = wire.asr_update(self._id, self._revision, said.text, _now(), final=said.final)
        if said.final:
            self._id = self._text = ""
        return update

    def pause(self) -> str:
        return self.heard(Transcript(self._text, "")) if self._id else ""

    def failed(self, exc: GatewayError) -> str:
        return wire.failure(exc.code, str(exc), _now(), exc.retry_after)

    def pong(self) -> str:
        return wire.pong(_now())


class _Listener:
    """One client of /ws."""

    def __init__(self, socket: Socket, pen: _Pen, idle: float) -> None:
        self._socket, self._pen, self._idle = socket, pen, idle
        self.microphone = Microphone()
        self._mistakes = 0

    async def read(self) -> None:
        """Until the client leaves: also after its end, so that its leaving is seen."""
        while True:
            frame = await self._socket.receive()
            if self.microphone.ended:
                continue
            if isinstance(frame, str):
                await self._take_text(frame)
            elif frame:
                self._mistakes = 0
                await self.microphone.put(frame)
            else:
                self.microphone.end()

    async def heard(self, said: Transcript) -> None:
        await self.send(self._pen.heard(said))

    async def send(self, text: str) -> None:
        if text:
            try:
                async with asyncio.timeout(self._idle):
                    await self._socket.send(text)
            except TimeoutError:
                raise TooSlow(f"you have read nothing for {self._idle:g} s") from None

    async def _take_text(self, frame: str) -> None:
        try:
            asked = wire.read_listener(frame)
        except ValueError as exc:
            self._mistakes = one_more(self._mistakes)
            await self.send(self._pen.failed(BadRequest(str(exc))))
            return
        self._mistakes = 0
        if isinstance(asked, wire.End):
            self.microphone.end()
        elif isinstance(asked, wire.Ping):
            await self.send(self._pen.pong())
