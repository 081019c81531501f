"""One gateway for all tests of a module, its engine put back in order before each, and nothing left after any."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from engines.scripted import Script, ScriptedEngine, Seen
from tests.conftest import Gateway, ready, running, speech

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, ScriptedEngine]]:
    async with ScriptedEngine() as engine, running(tmp_path_factory.mktemp("gateway"), engine) as gateway:
        yield gateway, engine


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: tuple[Gateway, ScriptedEngine]) -> AsyncIterator[Gateway]:
    gateway, engine = shared
    engine.script, engine.seen = Script(), Seen()
    yield await ready(gateway)
    await gateway.idle()


@pytest.fixture
def engine(gateway: Gateway, shared: tuple[Gateway, ScriptedEngine]) -> ScriptedEngine:
    return shared[1]


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own, before our gateway. It does not try again, so that a test sees the first answer."""
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def device() -> str:
    """A device that no other test has used."""
    return f"device-{next(_numbers)}"


@pytest.fixture
def desktop(gateway: Gateway, device: str) -> "Desktop":
    return Desktop(gateway.client, device)


class Shown(Exception):
    """What the desktop client shows its user instead of a result."""


@dataclass(slots=True)
class Desktop:
    """The shipped desktop client: what it sends, and the first match of what it reads."""

    client: httpx.AsyncClient
    device: str

    async def health(self) -> str:
        return str((await self._json("GET", "/health")).get("message") or "ok")

    async def voices(self) -> list[dict[str, Any]]:
        body = await self._json("GET", f"/v1/voices?device_id={self.device}")
        found = body.get("data") or body.get("voices") or body
        return found if isinstance(found, list) else []

    async def voice(self, voice_id: str) -> dict[str, Any]:
        body = await self._json("GET", f"/v1/voices/{voice_id}?device_id={self.device}")
        return body.get("data") or body

    async def train(
        self, name: str = "Ann", audio: bytes | None = None, filename: str = "我的录音.wav", **more: str
    ) -> str:
        fields = {"device_id": self.device, "name": name} | more
        answer = await self.upload(fields, speech() if audio is None else audio, filename)
        body = answer.json()
        if answer.status_code >= 400:
            raise Shown(body.get("message") or f"HTTP {answer.status_code}")
        found = body["data"].get("voiceId") or body.get("voiceId") or body.get("id")
        assert found, "the client fails without an id"
        return str(found)

    async def upload(self, fields: dict[str, str], audio: bytes, filename: str = "a.wav") -> httpx.Response:
        """Form fields, then the file; the whole body in memory, its length exact, the part's type never audio."""
        line = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
        parts = [f'--{line}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
        parts.append(f'--{line}\r\nContent-Disposition: form-data; name="audio"; filename="{filename}"\r\n')
        head = "".join([*parts, "Content-Type: application/octet-stream\r\n\r\n"]).encode()
        body = head + audio + f"\r\n--{line}--\r\n".encode()
        headers = {"content-type": f"multipart/form-data; boundary={line}", "content-length": str(len(body))}
        return await self.client.post("/v1/voices/train", content=body, headers=headers)

    async def tts(self, voice_id: str, text: str = "Hello there.", **more: Any) -> str:
        ask = {"device_id": self.device, "voice_id": voice_id, "text": text} | more
        body = await self._json("POST", "/v1/tts", ask)
        found = body["data"].get("audioUrl") or body.get("audioUrl") or body.get("audio_url")
        assert found, "the client fails without a URL"
        return str(found)

    async def download(self, url: str) -> bytes:
        assert url.startswith("/files/"), "the client puts its own host and port before it"
        answer = await self.client.get(url)
        if answer.status_code >= 400:
            raise Shown(f"HTTP {answer.status_code}")
        return answer.content

    async def _json(self, method: str, path: str, ask: Any = None) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        answer = await self.client.request(method, path, json=ask, headers=headers)
        body: dict[str, Any] = answer.json()
        if answer.status_code >= 400:
            raise Shown(body.get("message") or body.get("error") or f"HTTP {answer.status_code}")
        return body
