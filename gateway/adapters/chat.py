"""Replies from any OpenAI-compatible chat API: OpenAI's, vLLM, llama.cpp, Ollama and their like.

Rule 1: its key is in the header of a request and nowhere else: in no log, and in no reason that a client is told.
Rule 2: a reply that ends before it was whole is a failure, however much of it was heard.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    EngineUnreachable,
    GatewayError,
)
from gateway.memory import Asked, Call, Message
from gateway.settings import Settings
from gateway.wire import openai_chat as wire

PERSONA = (
    "You are a friendly voice assistant: what you write is read aloud. Answer in the language of the user, briefly, "
    "in plain sentences without lists, markup, links or emoji."
)
"""For conversations that name no other."""
_HEADERS = b"content-type: application/json\r\naccept: text/event-stream\r\nuser-agent: voxgate\r\n"
_ANSWER_BYTES = 4 * 1024 * 1024
_MOST_WAIT = 3600


class Chat:
    def __init__(self, settings: Settings, http: Client) -> None:
        self._http, self._url, self._model = http, settings.chat_url.rstrip("/"), settings.chat_model
        self._key, self._idle = settings.chat_key, settings.chat_timeout

    def __repr__(self) -> str:
        return f"<chat: {self._model or 'any model'}>"

    def reply(self, asked: Asked) -> "_Reply":
        """Raises EngineUnavailable, EngineBusy, EngineBroke, EngineTimeout, BadRequest."""
        system = wire.message("system", asked.persona or PERSONA)
        body = wire.request(self._model, [system, *map(_message, asked.messages)], asked.tools, asked.tool_choice)
        key = b"authorization: Bearer %b\r\n" % self._key.encode() if self._key else b""
        post = engine_http.Post(self._http, self._url, wire.PATH, _HEADERS + key, [body], refused=self._refusal)
        return _Reply(post, self._idle, self._shown)

    # Private

    def _refusal(self, status: int, body: bytes, retry_after: bytes) -> GatewayError:
        says = self._shown(wire.read_error(body))
        because = f": {says}" if says else ""
        if status in (401, 403):
            return EngineUnavailable("the chat API refuses our key")  # its words may hold a part of it
        if status == 404:
            return EngineUnavailable(f"the chat API knows no such model or address{because}", quotes=bool(says))
        if status in (429, 503):
            wait = min(int(retry_after[:9]), _MOST_WAIT) if retry_after.isdigit() else EngineBusy.retry_after
            return EngineBusy(f"the chat API cannot take it now{because}", retry_after=wait, quotes=bool(says))
        if status in (400, 413, 422):
            return BadRequest(f"the chat API refuses it{because}", code="engine_refused", quotes=bool(says))
        return EngineBroke(f"the chat API answered {status}{because}", quotes=bool(says))

    def _shown(self, says: str) -> str:
        return says.replace(self._key, "…") if self._key else says


class _Reply:
    """The scope of one reply, and an iterator of its pieces."""

    def __init__(self, post: engine_http.Post, idle: float, shown: Callable[[str], str]) -> None:
        self._post, self._idle, self._shown = post, idle, shown
        self._stream = wire.Stream()
        self._found: deque[wire.Found] = deque()
        self._ended = False

    async def __aenter__(self) -> "_Reply":
        try:
            async with asyncio.timeout(self._idle):
                self._answer = await self._post.__aenter__()
        except TimeoutError:
            raise self._silent() from None
        except EngineUnreachable as exc:
            raise EngineUnavailable(f"the chat API: {exc}") from exc
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._post.__aexit__(kind, exc, trace)

    def __aiter__(self) -> AsyncIterator[str | Call]:
        return self

    async def __anext__(self) -> str | Call:
        try:
            async with asyncio.timeout(self._idle):  # what only keeps the connection alive is no token
                while not self._found and not self._ended:
                    await self._read()
        except TimeoutError:
            raise self._silent() from None
        match self._found.popleft() if self._found else None:
            case wire.Text(text):
                return text
            case wire.ToolCall(call, name, arguments):
                return Call(call, name, arguments)
            case wire.Done() as done if not done.whole:
                raise EngineError(f"the chat API ended its reply early ({done.reason[:40]})", code="reply_cut")
        raise StopAsyncIteration

    # Private

    async def _read(self) -> None:
        try:
            if self._answer.headers.get(b"content-type", b"").startswith(b"application/json"):
                self._found += wire.read_whole(await self._answer.body(_ANSWER_BYTES))
            else:
                data = await self._answer.read()
                self._found += self._stream.feed(data) if data else self._stream.end()
            self._ended = any(isinstance(one, wire.Done) for one in self._found)
        except wire.Refused as exc:
            raise EngineBroke(f"the chat API broke its reply off: {self._shown(str(exc))}", quotes=True) from None
        except wire.NotChat as exc:
            raise EngineBroke(f"the chat API's answer is not of its protocol: {exc}") from None

    def _silent(self) -> EngineTimeout:
        return EngineTimeout(f"the chat API was silent for {self._idle:g} s")


def _message(said: Message) -> dict[str, object]:
    calls = [wire.ToolCall(call.id, call.name, call.arguments) for call in said.calls]
    return wire.message(str(said.role), said.text, calls, said.call)
