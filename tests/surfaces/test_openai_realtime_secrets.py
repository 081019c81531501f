"""Secrets that a page in a browser opens Realtime with."""

from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from websockets.exceptions import InvalidStatus

from engines.scripted import ScriptedEngine
from gateway.caller import Right
from tests.conftest import Gateway, ready, running
from tests.keyring import issue, revoke
from tests.surfaces.realtime_client import dialled

pytestmark = pytest.mark.asyncio(loop_scope="module")
SESSION: dict[str, Any] = {"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"speed": 1.25}}}


def shows(secret: str) -> dict[str, Any]:
    return {"subprotocols": ["realtime", f"openai-insecure-api-key.{secret}"]}


async def test_the_openai_sdk_makes_one_and_it_opens_its_session(gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none") as client:
        made = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 60}, session=SESSION
        )  # type: ignore[arg-type]
    assert made.value.startswith("ek_")
    async with dialled(gateway, **shows(made.value)) as page:
        session = page.events[0]["session"]
    assert session["instructions"] == "Be brief."
    assert session["audio"]["output"]["speed"] == 1.25
    assert session["id"] == made.session.id  # type: ignore[union-attr]


async def test_the_beta_has_paths_of_its_own(gateway: Gateway) -> None:
    made = (await gateway.client.post("/v1/realtime/sessions", json={"instructions": "Hm.", "voice": "alloy"})).json()
    assert (made["object"], made["instructions"], made["input_audio_format"]) == ("realtime.session", "Hm.", "pcm16")
    async with dialled(gateway, **shows(made["client_secret"]["value"])) as page:
        assert page.events[0]["session"]["instructions"] == "Hm."
    made = (await gateway.client.post("/v1/realtime/transcription_sessions", json={})).json()
    async with dialled(gateway, "/v1/realtime", **shows(made["client_secret"]["value"])) as page:
        assert page.events[0]["session"]["type"] == "transcription"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"session": {"output_modalities": ["smell"]}}, "session.output_modalities"),
        ({"expires_after": {"seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "expires_after.seconds"),
        ({"session": 5}, "session"),
    ],
)
async def test_what_is_wrong_is_refused_by_the_field(gateway: Gateway, asked: Any, param: str) -> None:
    answer = await gateway.client.post("/v1/realtime/client_secrets", json=asked)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert param in (error["param"] or error["message"])


async def test_stands_for_the_key_that_made_it_at_realtime_alone(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        key, token = await issue(await ready(gateway), Right.CONVERSE)
        bearer = {"authorization": f"Bearer {token}"}
        answer = await gateway.client.post("/v1/realtime/client_secrets", json={}, headers=bearer)
        secret = answer.json()["value"]
        async with dialled(gateway, **shows(secret)) as page:
            assert page.events[0]["type"] == "session.created"
        with pytest.raises(InvalidStatus):
            async with dialled(gateway):
                pass
        for path in ("/v1/models", "/v1/realtime/client_secrets"):
            refused = await gateway.client.request(
                "GET" if path == "/v1/models" else "POST", path, headers={"authorization": f"Bearer {secret}"}
            )
            assert refused.status_code == 401
        refused = await gateway.client.post("/v1/realtime/transcription_sessions", json={}, headers=bearer)
        assert refused.status_code == 403, "its key is not for transcription"
        await revoke(gateway, key)
        await gateway.state["access"].refresh()
        with pytest.raises(InvalidStatus):
            async with dialled(gateway, **shows(secret)):
                pass
