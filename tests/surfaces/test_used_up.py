"""A quota that ends in the middle: every kind of socket is told in its own words, and then closed."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from engines.scripted import Script, ScriptedEngine
from gateway.keys import Limits
from tests.conftest import Gateway, ready, running
from tests.keyring import bearer, issue, revoke
from tests.surfaces.nls_client import NlsClient


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with (
        ScriptedEngine(Script(pieces=30, pause=0.01)) as engine,
        running(tmp_path, engine, keys="required", keys_refresh=0.05) as gateway,
    ):
        yield await ready(gateway)


def dial(gateway: Gateway, path: str, sent: str) -> connect:
    return connect(f"ws://127.0.0.1:{gateway.port}{path}", additional_headers=bearer(sent), proxy=None)


async def last(socket: ClientConnection) -> dict[str, Any]:
    """The last text before the close."""
    told = ""
    with pytest.raises(ConnectionClosed):
        while True:
            message = await asyncio.wait_for(socket.recv(), 10)
            told = message if isinstance(message, str) else told
    found: dict[str, Any] = json.loads(told)
    return found


async def test_nls_synthesis(gateway: Gateway) -> None:
    _, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
    async with dial(gateway, "/ws/v1/tts", sent) as socket:
        client = NlsClient(socket, "FlowingSpeechSynthesizer")
        await client.send("StartSynthesis", {"format": "pcm", "sample_rate": 24000})
        await client.until("SynthesisStarted")
        await client.send("RunSynthesis", {"text": "Hello there, this is long."})
        await client.send("StopSynthesis")
        header = (await last(socket))["header"]
        assert (header["name"], header["status"]) == ("TaskFailed", 40000005)
        assert socket.close_code == 1013
        assert len(client.audio) <= 48000


async def test_a_task_that_is_not_begun_leaves_the_connection(gateway: Gateway) -> None:
    key, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
    gateway.state["access"]._by_id[key.id].charge("speak", 1.0)  # type: ignore[arg-type]
    async with dial(gateway, "/ws/v1/tts", sent) as socket:
        client = NlsClient(socket, "FlowingSpeechSynthesizer")
        for _ in range(2):
            await client.send("StartSynthesis", {"format": "pcm"})
            await client.send("RunSynthesis", {"text": "Hello there."})
            await client.send("StopSynthesis")
            assert "1.0 of 1 seconds of audio are used" in await client.refused()


async def test_realtime(gateway: Gateway) -> None:
    _, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
    async with dial(gateway, "/v1/realtime?model=x", sent) as socket:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What time is it?"}]}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create"}))
        told = await last(socket)
        assert (told["type"], told["error"]["code"]) == ("error", "insufficient_quota")
        assert socket.close_code == 1013


@pytest.mark.parametrize("path", ["/ws/v1", "/v1/realtime?model=x", "/asr/2pass", "/ws?format=json", "/api/chat"])
async def test_who_is_revoked_in_the_middle_is_shown_out(gateway: Gateway, path: str) -> None:
    key, sent = await issue(gateway)
    async with dial(gateway, path, sent) as socket:
        await revoke(gateway, key)
        with pytest.raises(ConnectionClosed):
            while True:
                await asyncio.wait_for(socket.recv(), 10)
        assert socket.close_code == 1008
        assert socket.close_reason == "this key is not good any more"
