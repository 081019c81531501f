"""Live recognition over real sockets, with models that do what a test tells them, and a client to talk to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from engines.asr.live.endpoint import Limits, Live
from engines.asr.live.events import Began, Delta, Ended, Event
from engines.asr.live.models import ModelFailed, Models, NoModel, NotKnown, Stream
from engines.asr.live.tape import Samples
from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_2pass import Config

BLOCK = 1920
"""Samples at 16 kHz that stand for one letter."""


def letters(text: str, rate: int = 16_000) -> bytes:
    """120 ms of a steady level for each letter a to z; a blank is silence. Mono s16le."""
    levels = [0 if letter == " " else (ord(letter) - 96) * 0.03 for letter in text]
    return (np.repeat(levels, BLOCK * rate // 16_000) * 32767).astype("<i2").tobytes()


def read(samples: Samples) -> str:
    """The letters again, from the middle of each 120 ms."""
    blocks = [samples[at : at + BLOCK] for at in range(0, len(samples) - BLOCK // 2, BLOCK)]
    codes = [round(float(np.median(block)) / 0.03) for block in blocks]
    return "".join(" " if code == 0 else chr(96 + code) for code in codes)


@dataclass(slots=True)
class Scripted:
    """Models that read letters: an utterance is what stands between blanks; the second pass reads it in capitals."""

    why_not: str = ""
    second_pass: bool = True
    fails_at: str = ""
    """A letter that breaks the stream, or a capital that breaks the second pass."""
    answering: asyncio.Event | None = None
    """When the second pass may answer."""
    hearing: asyncio.Event | None = None
    """When streams may be heard."""
    streams: list[Config] = field(default_factory=list)
    asked: list[Config] = field(default_factory=list)
    """Of second passes."""
    open: int = 0
    working: int = 0
    """Second passes begun and not ended."""

    @asynccontextmanager
    async def stream(self, asked: Config) -> AsyncIterator[Stream]:
        if self.why_not:
            raise NoModel(self.why_not)
        if asked.language == "xx":
            raise NotKnown("this engine cannot recognise xx")
        self.streams.append(asked)
        self.open += 1
        try:
            yield _Stream(self, asked)
        finally:
            self.open -= 1

    async def recognise(self, samples: Samples, asked: Config) -> str:
        self.asked.append(asked)
        self.working += 1
        try:
            if self.answering is not None:
                await self.answering.wait()
            text = read(samples).strip().upper()
            if self.fails_at and self.fails_at in text:
                raise ModelFailed("a recognition worker died; begin again")
            return text
        finally:
            self.working -= 1

    def refusal(self) -> str:
        return self.why_not


class _Stream:
    def __init__(self, models: Scripted, asked: Config) -> None:
        self._models, self._asked = models, asked
        self._rest = np.zeros(0, np.float32)
        self._place = 0
        self._start: int | None = None

    async def feed(self, samples: Samples, *, last: bool) -> Sequence[Event]:
        if self._models.hearing is not None:
            await self._models.hearing.wait()
        self._rest = np.concatenate([self._rest, samples])
        events: list[Event] = []
        while len(self._rest) >= (BLOCK // 2 if last else BLOCK):
            letter, self._rest = read(self._rest[:BLOCK]), self._rest[BLOCK:]
            events += self._event(letter)
            self._place += 120
        if last and self._start is not None:
            events.append(Ended(self._start, self._place))
        return events

    def _event(self, letter: str) -> list[Event]:
        if self._models.fails_at and self._models.fails_at == letter:
            raise ModelFailed("a recognition worker died; begin again")
        if letter == " ":
            if self._start is None:
                return []
            start, self._start = self._start, None
            return [Ended(start, self._place)]
        began: list[Event] = []
        if self._start is None:
            self._start = self._place
            began = [Began(self._place)]
        return [*began, Delta(letter)] if self._asked.mode != "offline" or not self._models.second_pass else began


@dataclass(slots=True)
class Serving:
    port: int
    live: Live

    @asynccontextmanager
    async def talking(self, **options: Any) -> AsyncIterator["Talk"]:
        given = {"subprotocols": ["binary"], "compression": None, "proxy": None} | options
        async with connect(f"ws://127.0.0.1:{self.port}/", **given) as socket:
            yield Talk(socket)

    async def idle(self, models: Scripted | None = None) -> None:
        """Waits until no connection is open; fails when that takes long."""
        async with asyncio.timeout(5):
            while self.live.open or (models is not None and (models.open or models.working)):
                await asyncio.sleep(0.005)


@dataclass(slots=True)
class Talk:
    socket: ClientConnection

    async def begin(self, **fields: Any) -> None:
        await self.socket.send(json.dumps({"mode": "2pass", "wav_name": "call", "is_speaking": True} | fields))

    async def say(self, pcm: bytes, packet: int = 1920) -> None:
        for at in range(0, len(pcm), packet):
            await self.socket.send(pcm[at : at + packet])

    async def end(self, *, ack: bool = True) -> None:
        await self.socket.send(wire.end(ack=ack))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            found: dict[str, Any] = json.loads(await self.socket.recv())
        return found

    async def rest(self) -> list[dict[str, Any]]:
        """All answers up to the end ack, without it."""
        found = []
        while not (answer := await self.hear()).get("is_end"):
            found.append(answer)
        return found

    async def closed(self) -> int:
        """The code, once the server has closed."""
        async with asyncio.timeout(10):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


def shown(answers: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(answer["mode"], answer["text"], answer["is_final"]) for answer in answers]


@asynccontextmanager
async def serving(models: Models, limits: Limits | None = None) -> AsyncIterator[Serving]:
    """A server of this process, in this event loop."""
    live = Live(models, limits or Limits())
    app = Starlette(routes=[WebSocketRoute(wire.PATH, live)])
    server = uvicorn.Server(
        uvicorn.Config(app, "127.0.0.1", 0, ws="websockets-sansio", log_config=None, lifespan="off")
    )
    task = asyncio.get_running_loop().create_task(server._serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield Serving(server.servers[0].sockets[0].getsockname()[1], live)
    finally:
        server.should_exit = True
        await task


_: type[Models] = Scripted
