"""Which web pages may call the gateway."""

from pathlib import Path

import pytest

from engines.scripted import End, Script, ScriptedEngine
from tests.conftest import Gateway, ready, running

PAGE = {"origin": "https://page.example"}


async def test_any_page_may_by_default(gateway: Gateway) -> None:
    for path in ("/health", "/v1/voices?device_id=d", "/nothing", "/files/x"):
        answer = await gateway.client.get(path, headers=PAGE)
        assert answer.headers["access-control-allow-origin"] == "*", path


async def test_streams_and_their_errors_too(gateway: Gateway, engine: ScriptedEngine) -> None:
    answer = await gateway.client.post("/api/synthesize", json={"text": "Hi."}, headers=PAGE)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "x-sample-rate" in answer.headers["access-control-expose-headers"].lower()
    engine.script = Script(pieces=0, end=End.DIE)
    answer = await gateway.client.post("/api/synthesize", json={"text": "Hi."}, headers=PAGE)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (502, "*")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_a_browser_that_asks_first_is_told_yes(gateway: Gateway, method: str) -> None:
    asks = {"access-control-request-method": method, "access-control-request-headers": "content-type,x-api-key,range"}
    answer = await gateway.client.options("/v1/tts", headers=PAGE | asks)
    assert answer.status_code == 200
    assert method in answer.headers["access-control-allow-methods"]
    assert "x-api-key" in answer.headers["access-control-allow-headers"]


async def test_only_the_pages_of_the_operator_where_they_are_named(tmp_path: Path, engine: ScriptedEngine) -> None:
    async with running(tmp_path, engine, cors_origins="https://page.example, https://other.example") as gateway:
        await ready(gateway)
        answer = await gateway.client.get("/health", headers=PAGE)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        answer = await gateway.client.get("/health", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


async def test_who_is_no_page_is_told_nothing(gateway: Gateway) -> None:
    assert not [name for name in (await gateway.client.get("/health")).headers if name.startswith("access-control")]
