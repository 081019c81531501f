"""Workers without a process, for the tests of those who use them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engines.workers.messages import Fields, Hello, Piece
from engines.workers.pool import Pool
from engines.workers.process import WorkerGone

FACTS = {"languages": ["en"], "timestamps": False, "together": 1}


class Puppet:
    """It answers a job with the job's own fields, as soon as it is let."""

    def __init__(self, loads: bool | str = True, device: str = "cpu") -> None:
        self._loads, self.device, self.running = loads, device, 0
        self.gone = False
        """Whether it was killed; its end is heard when it dies."""
        self.did: list[str] = []
        self.free = asyncio.Event()
        self._dead = asyncio.Event()
        self.free.set()

    async def hello(self) -> Hello:
        if self._loads is False:
            await asyncio.Event().wait()
        if isinstance(self._loads, str):
            raise WorkerGone(self._loads)
        return Hello("puppet", "cpu", FACTS)

    async def listen(self) -> None:
        await self._dead.wait()
        raise WorkerGone("a worker died")

    @asynccontextmanager
    async def asking(self, task: str, fields: Fields, data: bytes = b"") -> AsyncIterator["_Call"]:
        yield _Call(self, fields)

    async def ask(self, task: str, fields: Fields, data: bytes = b"") -> Fields:
        self.did.append(fields.get("path", task))
        try:
            async with asyncio.TaskGroup() as tasks:
                dead = tasks.create_task(self._dead.wait())
                free = tasks.create_task(self.free.wait())
                await asyncio.wait([dead, free], return_when=asyncio.FIRST_COMPLETED)
                died = dead.done()
                dead.cancel()
                free.cancel()
        except asyncio.CancelledError:
            self.did.append("cancel")
            raise
        if died:
            raise WorkerGone("a worker died")
        return {"text": fields.get("path", ""), "language": "", "words": []}

    def die(self) -> None:
        self._dead.set()


class _Call:
    """Of several recordings, which come to nothing."""

    def __init__(self, puppet: Puppet, fields: Fields) -> None:
        self._puppet, self._left = puppet, list(enumerate(fields["paths"]))

    async def piece(self) -> Piece | None:
        if not self._left:
            return None
        index, path = self._left.pop(0)
        return Piece(1, {"index": index, "status": 200, "heard": await self._puppet.ask("transcribe", {"path": path})})


def pool(*puppets: Puppet, waiting: int = 2, devices: tuple[str, ...] = ("cpu",)) -> Pool:
    coming = list(puppets)

    @asynccontextmanager
    async def start(device: str) -> AsyncIterator[Any]:
        mine = next((one for one in coming if one.device == device), None)
        if mine is not None:
            coming.remove(mine)
        yield mine or Puppet(loads=False)

    return Pool("recognition", start, devices, waiting)


async def until(pool: Pool, shown: str) -> None:
    async with asyncio.timeout(2):
        while shown not in repr(pool):
            await asyncio.sleep(0.005)
