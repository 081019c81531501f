"""What operators, orchestrators and clients ask of the service itself."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from engines.scripted import Script, ScriptedEngine
from gateway import __version__
from gateway.app import build
from gateway.serve import Server, configuration, listen
from gateway.settings import Settings
from gateway.wire.engine_health import Progress, Report
from tests.conftest import Gateway, ready, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def health(gateway: Gateway) -> Any:
    answer = await gateway.client.get("/health")
    assert answer.status_code == 200, "the gateway serves, whatever its engines do"
    return answer.json()


async def becomes(gateway: Gateway, verb: str, state: str) -> Any:
    """What /health says of the verb once it is in that state."""
    async with asyncio.timeout(3):
        while (found := (await health(gateway))["engines"][verb])["state"] != state:
            await asyncio.sleep(0.02)
    return found


async def test_one_body_satisfies_every_client(gateway: Gateway) -> None:
    body = await health(gateway)
    assert body["message"] == "ok", "the desktop client shows it"
    assert body["status"] == "healthy", "the Fun-Audio-Chat page wants this word"
    assert body["version"] == __version__
    assert body["ready"] is True


async def test_it_says_how_each_engine_is(gateway: Gateway) -> None:
    assert (await health(gateway))["engines"]["tts"] == {
        "state": "ready",
        "adapter": "cosyvoice",
        "model": "scripted",
        "running": 0,
        "waiting": 0,
        "slots": 4,
        "replicas": [{"state": "ready", "running": 0}],
    }


async def test_it_names_no_address(gateway: Gateway, engine: ScriptedEngine) -> None:
    assert engine.url.removeprefix("http://").encode() not in (await gateway.client.get("/health")).content


async def test_it_counts_who_is_served(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.script = Script(pieces=1, pause=0.2)
    asking = [asyncio.create_task(gateway.client.post("/api/synthesize", json={"text": "Hi."})) for _ in range(6)]
    async with asyncio.timeout(2):
        while (await health(gateway))["engines"]["tts"]["waiting"] != 2:
            await asyncio.sleep(0.01)
    assert (await health(gateway))["engines"]["tts"]["running"] == 4
    await asyncio.gather(*asking)


async def test_ready_is_for_machines(gateway: Gateway) -> None:
    answer = await gateway.client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_an_engine_that_is_not_ready_makes_the_gateway_so(
    gateway: Gateway, engine: ScriptedEngine, state: str
) -> None:
    engine.script = Script(health=Report(state, "m", "cuda:0", "reading 2 of 5 files"))
    found = await becomes(gateway, "tts", state)
    assert (found["reason"], found["device"]) == ("reading 2 of 5 files", "cuda:0")
    await becomes(gateway, "asr", state)
    await becomes(gateway, "s2s", state)
    answer = await gateway.client.get("/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["message"].startswith("not ready: tts, asr, s2s"), "and what is made of them"
    assert (await health(gateway))["ready"] is False


async def test_how_far_an_engine_is_is_passed_on_and_requests_are_asked_to_come_back(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    engine.script = Script(health=Report("loading", progress=Progress("model Fun-CosyVoice3", 300, 1200)))
    found = await becomes(gateway, "tts", "loading")
    told = {"phase": "model Fun-CosyVoice3", "bytes": 300, "total": 1200, "percent": 25.0}
    assert (found["progress"], found["replicas"][0]["progress"]) == (told, told)
    refused = await gateway.client.post("/api/synthesize", json={"text": "Hi."})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert "model Fun-CosyVoice3, 25 %" in refused.json()["error"]


async def test_an_engine_that_crashes_is_shown_and_so_is_its_return(tmp_path: Any) -> None:
    async with ScriptedEngine() as other, ScriptedEngine() as engine:
        port = int(engine.url.rpartition(":")[2])
        async with running(tmp_path, other, speak_urls=engine.url) as gateway:
            await ready(gateway)
            await engine.stop()
            assert "cannot be reached" in (await becomes(gateway, "tts", "down"))["reason"]
            await becomes(gateway, "s2s", "down")  # it is made of the others
            assert (await gateway.client.get("/ready")).json()["message"] == "not ready: tts, s2s"
            assert (await gateway.client.post("/api/synthesize", json={"text": "Hi."})).status_code == 503
            await engine.start(port=port)
            await becomes(gateway, "tts", "ready")
            assert (await gateway.client.post("/api/synthesize", json={"text": "Hi."})).status_code == 200


async def test_health_never_waits_for_an_engine(tmp_path: Any) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        async with running(tmp_path, url) as gateway, asyncio.timeout(0.5):
            assert (await health(gateway))["ready"] is False


async def test_both_public_ports_serve_the_same(tmp_path: Any) -> None:
    async with ScriptedEngine() as engine:
        settings = Settings(speak_urls=(engine.url,), transcribe_urls=(engine.url,), data_dir=tmp_path)
        sockets = [listen("127.0.0.1", 0), listen("127.0.0.1", 0)]
        server = Server(configuration(build(settings), settings))
        serving = asyncio.create_task(server._serve(sockets))
        ports = [one.getsockname()[1] for one in sockets]
        async with httpx.AsyncClient() as client, asyncio.timeout(5):
            while not server.started:
                await asyncio.sleep(0.01)
            for path in ("/health", "/openapi.json", "/v1/voices?device_id=d", "/nothing"):
                one, other = [await client.get(f"http://127.0.0.1:{port}{path}") for port in ports]
                assert one.status_code == other.status_code
                assert without_time(one) == without_time(other), path
        server.should_exit = True
        await serving


def without_time(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    body.pop("timestamp", None)
    return body


async def test_the_api_can_be_read_and_tried_in_a_browser(gateway: Gateway) -> None:
    page = await gateway.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert 'fetch("/openapi.json"' in page.text
    assert (await gateway.client.get("/openapi.json")).json()["info"]["title"] == "Voxgate"


async def test_the_page_that_tries_the_api_asks_nobody_else_for_anything(gateway: Gateway) -> None:
    page = await gateway.client.get("/docs")
    assert not re.search(r"https?:|[\"'(]//", page.text)
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "connect-src 'self'"} <= set(policy)
    assert not re.search(r"https?:|\*", " ".join(policy))


@pytest.mark.parametrize(
    "request_line", [b"GET /health HTTP/9.9", b"\x16\x03\x01", b"GET " + b"/x" * 50_000 + b" HTTP/1.1"]
)
async def test_what_is_no_http_does_not_hurt(gateway: Gateway, request_line: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request_line + b"\r\n\r\n")
    assert not (await asyncio.wait_for(reader.read(12), 2)).startswith(b"HTTP/1.1 5")
    writer.close()
    assert await health(gateway)
