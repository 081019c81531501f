"""What belongs to one tenant is not there for another; what was there before tenants were is for keys without one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from engines.scripted import ScriptedEngine
from tests.conftest import Gateway, ready, register, running, speech
from tests.keyring import bearer, issue


@dataclass(slots=True)
class Tenants:
    gateway: Gateway
    keys: dict[str, str]

    async def ask(self, tenant: str, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.gateway.client.request(method, path, headers=bearer(self.keys[tenant]), **more)

    async def train(self, tenant: str, name: str = "Ann") -> str:
        fields = {"device_id": "device-1", "name": name}
        answer = await self.ask(tenant, "POST", "/v1/voices/train", data=fields, files={"audio": speech()})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["voiceId"])

    async def voices(self, tenant: str) -> set[str]:
        return {one["id"] for one in (await self.ask(tenant, "GET", "/v1/voices?device_id=device-1")).json()["data"]}

    @asynccontextmanager
    async def chatting(self, tenant: str, chat: str = "c") -> AsyncIterator[ClientConnection]:
        url = f"ws://127.0.0.1:{self.gateway.port}/chatting?id={chat}&user=u"
        async with connect(url, additional_headers=bearer(self.keys[tenant]), proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "connection_established"
            yield socket


@pytest.fixture
async def tenants(tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Tenants]:
    async with running(tmp_path, engine) as gateway:
        await ready(gateway)
        keys = {name: (await issue(gateway, tenant=name.removesuffix("-2")))[1] for name in ("a", "a-2", "b", "")}
        yield Tenants(gateway, keys)


async def test_voices_are_there_for_every_key_of_their_tenant_and_no_other(tenants: Tenants) -> None:
    voice = await tenants.train("a")
    assert [await tenants.voices(one) for one in ("a", "a-2", "b", "")] == [{voice}, {voice}, set(), set()]
    path = f"/v1/voices/{voice}?device_id=device-1"
    for other in ("b", ""):
        for answer in (
            await tenants.ask(other, "GET", path),
            await tenants.ask(other, "DELETE", path),
            await tenants.ask(other, "PATCH", path, json={"device_id": "device-1", "name": "Mine"}),
            await tenants.ask(
                other, "POST", "/v1/tts", json={"device_id": "device-1", "voice_id": voice, "text": "Hello."}
            ),
            await tenants.ask(
                other, "POST", "/api/synthesize", json={"device_id": "device-1", "speaker_id": voice, "text": "Hi."}
            ),
        ):
            assert answer.status_code == 404, answer.text
    assert (await tenants.ask("a-2", "DELETE", path)).status_code == 204


async def test_the_same_recording_is_a_voice_of_each(tenants: Tenants) -> None:
    one, same, other = [await tenants.train(tenant) for tenant in ("a", "a-2", "b")]
    assert one == same != other
    assert (await tenants.ask("a", "DELETE", f"/v1/voices/{one}?device_id=device-1")).status_code == 204
    ask = {"device_id": "device-1", "voice_id": other, "text": "Hello."}
    assert (await tenants.ask("b", "POST", "/v1/tts", json=ask)).status_code == 200, "its recording is still there"


async def test_chats_of_the_same_id_are_not_the_same_chat(tenants: Tenants) -> None:
    async with tenants.chatting("a") as mine, tenants.chatting("b") as other, tenants.chatting("a-2") as shared:
        await mine.send(json.dumps({"type": "message", "content": "my secret"}))
        assert "my secret" in str(await mine.recv())
        assert "my secret" in str(await shared.recv())
        await other.send(json.dumps({"type": "ping"}))
        assert json.loads(await other.recv())["type"] == "pong", "nothing was told it before"
    for tenant, known in (("a", True), ("a-2", True), ("b", False), ("", False)):
        said = await tenants.ask(tenant, "GET", "/chat/c")
        listed = await tenants.ask(tenant, "GET", "/chat/list?id=u")
        assert ("my secret" in said.text) == known
        assert [one["message_count"] > 0 for one in listed.json()["chat_list"]] == [known][: tenant != ""]


async def test_what_was_there_before_is_for_keys_without_a_tenant(tmp_path: Path, engine: ScriptedEngine) -> None:
    async with running(tmp_path, engine) as gateway:
        voice = await register(await ready(gateway))
        (_, without), (_, other) = await issue(gateway), await issue(gateway, tenant="a")
        path = f"/v1/voices/{voice}?device_id=device-1"
        assert (await gateway.client.get(path, headers=bearer(without))).status_code == 200
        assert (await gateway.client.get(path, headers=bearer(other))).status_code == 404
