"""GET and HEAD /files/…: synthesised audio under an unguessable, expiring name, with Range. No key is asked."""

from gateway.exchange import Exchange
from gateway.files import TYPES
from gateway.ranges import part_of
from gateway.state import State
from gateway.stream import Reader

PREFIX = "/files/"


async def download(http: Exchange) -> None:
    state: State = http.state
    name = http.scope["path"].removeprefix(PREFIX)
    stored = await state["downloads"].open(name)
    kind = TYPES[name.rpartition(".")[2]]
    part = part_of(http, stored.size, stored.modified)
    if part.status == 416:
        await http.answer(416, b"", kind, part.headers)
        return
    async with http.until_gone(), Reader(http, state["settings"].client_idle_timeout) as reader:
        await reader.start(part.status, kind, part.headers)
        if http.scope["method"] != "HEAD":
            async for chunk in state["downloads"].stream(name, part.start, part.end):
                await reader.write(chunk)
        await reader.end()
