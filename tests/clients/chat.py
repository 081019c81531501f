"""A chat API that answers by rule: what a real client's conversation is checked against."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

STORY = " ".join(
    f"This is sentence number {number} of a long story." for number in ("one", "two", "three", "four", "five")
)


class ChatApi:
    """Calls the first function where there is one, tells a long story where its instructions say so, else gives back
    what it was told."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ChatApi"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length:")[2].split("\r\n")[0])
            asked = json.loads(await reader.readexactly(size))
            self.asked.append(asked)
            lines = [json.dumps({"choices": [{"delta": delta}]}) for delta in _deltas(asked)]
            body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}\r\n"
            writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _deltas(asked: dict[str, Any]) -> list[dict[str, Any]]:
    said = [one for one in asked["messages"] if one["role"] != "system"]
    last = said[-1] if said else {"role": "user", "content": "nothing"}
    if last["role"] == "tool":
        return [{"content": f"The answer is {last['content']}."}]
    if asked.get("tools"):
        function = {"name": asked["tools"][0]["function"]["name"], "arguments": '{"city": "Paris"}'}
        return [{"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}]
    if any("story" in one["content"] for one in asked["messages"] if one["role"] == "system"):
        return [{"content": f"{word} "} for word in STORY.split()]
    return [{"content": "You said: "}, {"content": f"{last['content']}."}]
