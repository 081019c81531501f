"""A client of NLS sockets, as FunSpeech's and Alibaba's are: what it sends, and what it makes of what comes."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection

Event = dict[str, Any]


@dataclass
class NlsClient:
    socket: ClientConnection
    namespace: str
    task_id: str = "0123456789abcdef0123456789abcdef"
    audio: bytearray = field(default_factory=bytearray)
    """All of it, since the last `begin`."""
    order: list[str] = field(default_factory=list)
    """Names of events, and "audio" for each binary message."""
    events: list[Event] = field(default_factory=list)

    async def send(self, name: str, payload: Any = None, **header: Any) -> None:
        whole = {"message_id": "0" * 32, "task_id": self.task_id, "namespace": self.namespace, "name": name} | header
        message = {"header": whole, "context": {"sdk": {"name": "nls-python-sdk", "language": "python"}}}
        await self.socket.send(json.dumps(message if payload is None else message | {"payload": payload}))

    async def next(self, seconds: float = 10.0) -> Event | bytes:
        async with asyncio.timeout(seconds):
            data = await self.socket.recv()
        if isinstance(data, bytes):
            self.audio += data
            self.order.append("audio")
            return data
        event: Event = json.loads(data)
        self.events.append(event)
        self.order.append(event["header"]["name"])
        return event

    async def until(self, *names: str, seconds: float = 10.0) -> Event:
        """The next event of one of these names; everything before it is kept too. A failure that is not awaited is an
        error."""
        while True:
            event = await self.next(seconds)
            if isinstance(event, dict):
                name = event["header"]["name"]
                if name in names:
                    return event
                assert name != "TaskFailed", event["header"]

    async def refused(self) -> str:
        """The reason of the next TaskFailed."""
        return str((await self.until("TaskFailed"))["header"]["status_text"])

    def forget(self) -> None:
        """Before another task on the same connection."""
        self.audio.clear()
        self.order.clear()
        self.events.clear()
