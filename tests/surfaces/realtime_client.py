"""A client of Realtime as a test leads it, and a gateway whose cascade it talks to."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.replicas import Replicas
from tests.adapters.spoken import World, world
from tests.conftest import Gateway

Event = dict[str, Any]
PATH = "/v1/realtime?model=gpt-realtime"
MANUAL = {"audio": {"input": {"turn_detection": None}}}
RATE = 24_000


def spoken(seconds: float, rate: int = RATE, hertz: float = 400.0) -> bytes:
    """Speech, for the scripted ears."""
    t = np.arange(round(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * hertz * t)).astype("<i2").tobytes()


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def cascade(gateway: Gateway, **settings: Any) -> World:
    """A scripted cascade converses for this gateway from now on."""
    there = world(gateway.state["scratch"].parent / "cascade", **settings)
    replicas: Replicas[Any, Any] = Replicas("s2s", "cascade", [there.cascade], slots=64, queue=0)
    await replicas.refresh()
    gateway.state["converse"] = replicas
    return there


@dataclass
class Client:
    socket: ClientConnection
    events: list[Event] = field(default_factory=list)
    count: int = 0

    async def send(self, kind: str, **fields: Any) -> str:
        """Gives the event's id."""
        self.count += 1
        name = f"mine_{self.count}"
        await self.socket.send(json.dumps({"type": kind, "event_id": name, **fields}))
        return name

    async def next(self, seconds: float = 5.0) -> Event:
        async with asyncio.timeout(seconds):
            event: Event = json.loads(await self.socket.recv())
        assert event["event_id"] not in [one["event_id"] for one in self.events]
        self.events.append(event)
        return event

    async def until(self, kind: str, seconds: float = 5.0, **fields: Any) -> Event:
        """Reads on to the next event of that type, and with these fields."""
        async with asyncio.timeout(seconds):
            while True:
                event = await self.next()
                if event["type"] == kind and fields.items() <= event.items():
                    return event

    async def error(self, name: str | None = None) -> Event:
        """The next error; name: of the event that it must answer."""
        error: Event = (await self.until("error"))["error"]
        if name is not None:
            assert error["event_id"] == name
        assert set(error) == {"type", "code", "message", "param", "event_id"}
        return error

    async def quiet(self) -> list[Event]:
        """What has come up to now: the answer to an update is behind all that was under way."""
        before = len(self.events)
        await self.send("session.update", session={"type": "realtime"})
        await self.until("session.updated")
        return self.events[before:-1]

    async def update(self, **session: Any) -> Event:
        await self.send("session.update", session={"type": "realtime", **session})
        return (await self.until("session.updated"))["session"]  # type: ignore[no-any-return]

    async def say(self, pcm: bytes, step: float = 0.1) -> None:
        size = 2 * int(RATE * step)
        for at in range(0, len(pcm), size):
            await self.send("input_audio_buffer.append", audio=packed(pcm[at : at + size]))

    async def write(self, text: str, role: str = "user", **more: Any) -> Event:
        """A message; gives the item."""
        part = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": part, "text": text}]}
        await self.send("conversation.item.create", item=item, **more)
        return (await self.until("conversation.item.done"))["item"]  # type: ignore[no-any-return]

    async def respond(self, **response: Any) -> Event:
        """A response to its end."""
        await self.send("response.create", **({"response": response} if response else {}))
        return await self.done()

    async def done(self) -> Event:
        return (await self.until("response.done"))["response"]  # type: ignore[no-any-return]

    def of(self, kind: str, **fields: Any) -> list[Event]:
        return [one for one in self.events if one["type"] == kind and fields.items() <= one.items()]

    def types(self, since: int = 0) -> list[str]:
        """Each type once where it comes several times in a row."""
        kinds = [one["type"] for one in self.events[since:]]
        return [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]

    def sound(self, kind: str = "response.output_audio.delta") -> bytes:
        return b"".join(base64.b64decode(one["delta"]) for one in self.of(kind))

    async def closed(self, seconds: float = 5.0) -> tuple[int, str]:
        async with asyncio.timeout(seconds):
            try:
                while True:
                    await self.next(seconds)
            except ConnectionClosed as exc:
                assert exc.rcvd is not None, "it was cut"
                return exc.rcvd.code, exc.rcvd.reason


@asynccontextmanager
async def dialled(gateway: Gateway, path: str = PATH, **options: Any) -> AsyncIterator[Client]:
    """A client that has read session.created."""
    address = f"ws://127.0.0.1:{gateway.port}{path}"
    async with connect(address, proxy=None, compression=None, **options) as socket:
        client = Client(socket)
        created = await client.next()
        assert created["type"] in ("session.created", "transcription_session.created")
        yield client
