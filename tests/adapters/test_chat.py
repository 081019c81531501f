"""Replies from a chat API: what reaches it, and what its answers, good and bad, become."""

import asyncio
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import connections
from gateway.adapters.chat import PERSONA, Chat
from gateway.adapters.connections import Client
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
)
from gateway.memory import Asked, Call, Message, Role
from gateway.settings import Settings
from gateway.verbs import Begin, Write
from tests.adapters.conftest import Line, answer, peer
from tests.adapters.spoken import Client as Talker
from tests.adapters.spoken import world

KEY = "sk-very-secret"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
Behave = Callable[[Line], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(reason: str | None = None, **said: Any) -> bytes:
    body = {"choices": [{"index": 0, "delta": said, "finish_reason": reason}]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def streamed(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return HEAD + b"".join(map(chunk, pieces)) + end


def asked(*texts: str, **more: Any) -> Asked:
    return Asked(tuple(Message(Role.USER, text) for text in texts or ("hello",)), **more)


@asynccontextmanager
async def api(behave: Behave, http: Client, **settings: Any) -> AsyncIterator[Chat]:
    async with peer(behave) as server:
        given = {"chat_url": f"{server.url}/v1", "chat_key": KEY, "chat_model": "tiny", "chat_timeout": 5}
        yield Chat(Settings.model_validate(given | settings), http)


def says(data: bytes, pieces: int | None = None) -> Behave:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(data, pieces)

    return behave


async def reply(chat: Chat, what: Asked | None = None) -> list[str | Call]:
    async with chat.reply(what or asked()) as pieces:
        return [piece async for piece in pieces]


async def refusal(data: bytes, http: Client) -> GatewayError:
    async with api(says(data), http) as chat:
        with pytest.raises(GatewayError) as caught:
            await reply(chat)
    assert KEY not in str(caught.value)
    return caught.value


ANSWER = streamed(delta(content="Héllo. "), delta(content="你好 🙂"), delta("stop"), DONE)


@pytest.mark.parametrize("pieces", [None, 1, 7])
async def test_the_pieces_of_a_reply_come_as_they_are_written(http: Client, pieces: int | None) -> None:
    async with api(says(ANSWER, pieces), http) as chat:
        assert await reply(chat) == ["Héllo. ", "你好 🙂"]


async def test_a_piece_is_there_before_the_next_one_is_written(http: Client) -> None:
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(HEAD + chunk(delta(content="One. ")))
        await go_on.wait()
        await line.send(chunk(delta(content="Two.")) + chunk(DONE) + b"0\r\n\r\n")

    async with api(behave, http) as chat, chat.reply(asked()) as pieces:
        assert await anext(pieces) == "One. "
        go_on.set()
        assert [piece async for piece in pieces] == ["Two."]


async def test_what_was_said_and_the_key_reach_the_api(http: Client) -> None:
    seen: list[tuple[bytes, Any]] = []

    async def behave(line: Line) -> None:
        for _ in range(2):
            head, body = await line.request()
            seen.append((head, json.loads(body)))
            await line.send(ANSWER)

    tools = ({"type": "function", "function": {"name": "time"}},)
    history = (
        Message(Role.USER, "time?"),
        Message(Role.ASSISTANT, "", (Call("a", "time", "{}"),)),
        Message(Role.TOOL, "noon", call="a"),
    )
    async with api(behave, http) as chat:
        await reply(chat, Asked(history, "Be a pirate.", tools=tools))
        await reply(chat)
    (head, first), (_, second) = seen
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer sk-very-secret\r\n" in head
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert (first["model"], first["stream"], first["tools"]) == ("tiny", True, list(tools))
    assert [one["role"] for one in first["messages"]] == ["system", "user", "assistant", "tool"]
    assert first["messages"][0]["content"] == "Be a pirate."
    assert first["messages"][3] == {"role": "tool", "content": "noon", "tool_call_id": "a"}
    assert second["messages"][0]["content"] == PERSONA
    assert "tools" not in second


async def test_without_a_key_there_is_no_header_for_it(http: Client) -> None:
    async def behave(line: Line) -> None:
        head, _ = await line.request()
        assert b"authorization" not in head.lower()
        await line.send(ANSWER)

    async with api(behave, http, chat_key="", chat_model="") as chat:
        await reply(chat)


async def test_calls_come_whole_after_the_words(http: Client) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "time", "arguments": '{"zone"'}}
    rest = {"index": 0, "function": {"arguments": ': "UTC"}'}}
    data = streamed(delta(content="Wait."), delta(tool_calls=[call]), delta("tool_calls", tool_calls=[rest]), DONE)
    async with api(says(data, 5), http) as chat:
        assert await reply(chat) == ["Wait.", Call("a", "time", '{"zone": "UTC"}')]


async def test_an_api_that_does_not_stream_is_understood(http: Client) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}).encode()
    async with api(says(answer(body, headers="content-type: application/json; charset=utf-8\r\n")), http) as chat:
        assert await reply(chat) == ["Hi."]


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, EngineUnavailable, "the chat API refuses our key"),
        (403, EngineUnavailable, "the chat API refuses our key"),
        (404, EngineUnavailable, "the chat API knows no such model or address: says …"),
        (400, BadRequest, "the chat API refuses it: says …"),
        (429, EngineBusy, "the chat API cannot take it now: says …"),
        (503, EngineBusy, "the chat API cannot take it now: says …"),
        (500, EngineBroke, "the chat API answered 500: says …"),
        (302, EngineBroke, "the chat API answered 302: says …"),
    ],
)
async def test_refusals_have_a_reason_without_the_key(
    http: Client, status: int, kind: type[GatewayError], text: str
) -> None:
    body = json.dumps({"error": {"message": f"says {KEY}", "type": "x"}}).encode()
    found = await refusal(answer(body, status, "retry-after: 7\r\n"), http)
    assert (type(found), str(found)) == (kind, text)
    if kind is EngineBusy:
        assert found.retry_after == 7


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (streamed(delta(content="Hi")), EngineBroke, "engine_broke"),
        (streamed(delta(content="Hi"), end=b""), EngineBroke, "engine_broke"),
        (streamed(b"data: {nonsense\n\n"), EngineBroke, "engine_broke"),
        (streamed(b'data: {"error": {"message": "sk-very-secret broke"}}\n\n'), EngineBroke, "engine_broke"),
        (streamed(delta(content="Hi"), delta("length"), DONE), EngineError, "reply_cut"),
        (b"nonsense", EngineBroke, "engine_broke"),
        (b"", EngineUnavailable, "engine_unavailable"),
    ],
    ids=["no end", "cut off", "malformed", "error event", "out of tokens", "no HTTP", "nothing"],
)
async def test_an_answer_that_is_not_whole_is_a_failure(
    http: Client, data: bytes, kind: type[GatewayError], code: str
) -> None:
    found = await refusal(data, http)
    assert (type(found), found.code) == (kind, code)


async def test_words_that_came_before_a_failure_are_not_lost(http: Client) -> None:
    async with api(says(streamed(delta(content="Hi"))), http) as chat, chat.reply(asked()) as pieces:
        assert await anext(pieces) == "Hi"
        with pytest.raises(EngineBroke, match="breaks off"):
            await anext(pieces)


@pytest.mark.parametrize("when", ["before", "after the head", "pinging", "after a token"])
async def test_an_api_that_says_no_more_is_given_up(http: Client, when: str) -> None:
    gone = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        if when != "before":
            await line.send(HEAD)
        if when == "after a token":
            await line.send(chunk(delta(content="One")))
        while when == "pinging":
            await line.send(chunk(b": ping\n\n"))
            await asyncio.sleep(0.02)
        await line.hung_up()
        gone.set()

    async with api(behave, http, chat_timeout=0.3) as chat:
        with pytest.raises(EngineTimeout, match=r"the chat API was silent for 0\.3 s"):
            await reply(chat)
        if when != "pinging":
            await asyncio.wait_for(gone.wait(), 1)


async def test_slow_tokens_are_not_silence(http: Client) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(HEAD)
        for _ in range(5):
            await asyncio.sleep(0.15)
            await line.send(chunk(delta(content="x")))
        await line.send(chunk(DONE) + b"0\r\n\r\n")

    async with api(behave, http, chat_timeout=0.6) as chat:
        assert await reply(chat) == ["x"] * 5


async def test_nobody_listening_is_said_to_be_so(http: Client) -> None:
    chat = Chat(Settings(chat_url="http://127.0.0.1:9/v1"), http)
    with pytest.raises(EngineUnavailable, match="the chat API: the engine cannot be reached"):
        await reply(chat)


async def test_a_reply_that_is_left_ends_at_the_api(http: Client) -> None:
    gone = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(HEAD + chunk(delta(content="One")))
        await line.hung_up()
        gone.set()

    async with api(behave, http) as chat:
        async with chat.reply(asked()) as pieces:
            await anext(pieces)
        await asyncio.wait_for(gone.wait(), 1)


async def test_an_interruption_of_the_conversation_ends_it_at_the_api(http: Client, tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(HEAD + chunk(delta(content="One. Two")))
        await line.hung_up()
        gone.set()

    there = world(tmp_path / "scratch")
    async with api(behave, http) as chat:
        there.cascade._replier = chat
        async with there.talk() as client:
            client.say(Write("?"))
            await client.until(lambda: client.sentences())
            assert isinstance(client, Talker)
            client.say(Begin())
            await client.ended()
            await asyncio.wait_for(gone.wait(), 1)


async def test_the_key_is_in_no_log_and_in_no_repr(http: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode()
    async with api(says(answer(body, 401)), http) as chat:
        with pytest.raises(EngineUnavailable):
            await reply(chat)
        assert KEY not in repr(chat)
    assert KEY not in caplog.text


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost, of nobody's authority."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"needs openssl: {exc}")
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.mark.parametrize("trusted", [True, False])
async def test_https_is_spoken_with_whom_the_machine_trusts(
    http: Client, certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(0, reader, writer)
        await line.request()
        await line.send(ANSWER)
        writer.close()

    offered = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    offered.load_cert_chain(certificate)
    server = await asyncio.start_server(connected, "localhost", 0, ssl=offered)
    if trusted:
        known = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(connections.ssl, "create_default_context", lambda: known)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
        chat = Chat(Settings(chat_url=url, chat_key=KEY), http)
        if trusted:
            assert await reply(chat) == ["Héllo. ", "你好 🙂"]
        else:
            with pytest.raises(EngineUnavailable):
                await reply(chat)
