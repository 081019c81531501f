"""Tasks that are accepted are done, though the gateway is killed under them and the engine goes away: a real process,
SIGKILL, and one audio file, one outcome and one call of the webhook for each."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from engines.scripted import Script, ScriptedEngine
from gateway.supervise import free_port
from gateway.wire import nls_async as wire
from tests.elsewhere import Elsewhere, elsewhere
from tests.sound import tone

ROOT = Path(__file__).parents[2]
TASKS = 12


@asynccontextmanager
async def gateway(data: Path, engine: str) -> AsyncIterator[tuple[httpx.AsyncClient, "subprocess.Popen[bytes]"]]:
    """Killed at the end, as by the kernel when memory runs out."""
    port = free_port()
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "AVATAR_PORT": "0",
        "DATA_DIR": str(data),
        "SPEAK_URLS": engine,
        "TRANSCRIBE_URLS": engine,
        "HEALTH_INTERVAL": "0.1",
        "FETCH_ALLOW": "127.0.0.1",
        "PUBLIC_URL": "http://speech.example",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    environment |= {f"VOXGATE_{name}": value for name, value in settings.items()}
    with (data / "log").open("ab") as log:
        command = [sys.executable, "-m", "gateway", "serve"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            async with asyncio.timeout(30):
                while not await _answers(client):
                    assert process.poll() is None, (data / "log").read_text()
                    await asyncio.sleep(0.02)
            yield client, process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


async def submit(client: httpx.AsyncClient, number: int, notify: str) -> str:
    wish = {"voice": "中文女", "text": f"Task number {number}. It has two sentences."}
    payload = {"tts_request": wish, "enable_notify": True, "notify_url": notify}
    answer = await client.post(wire.PATH, json={"payload": payload, "header": {"appkey": "a", "token": "t"}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


async def outcomes(client: httpx.AsyncClient, ids: list[str]) -> dict[str, dict[str, str]]:
    """Of those that have ended, and whose webhook has been called."""
    found = {}
    for task_id in ids:
        params = {"appkey": "a", "token": "t", "task_id": task_id}
        body = (await client.get(wire.PATH, params=params)).json()
        if body["error_message"] != "RUNNING" and body["data"]["notify_status"] != "PENDING":
            found[task_id] = body["data"] | {"outcome": body["error_message"]}
    return found


async def test_no_task_is_lost_or_done_twice(tmp_path: Path) -> None:
    script = Script(pieces=5, piece=tone(24000, 0.1), pause=0.02)
    async with elsewhere() as host, ScriptedEngine(script) as engine:
        host.gives(b"", "/hook")
        async with gateway(tmp_path, engine.url) as (client, _):
            ids = [await submit(client, number, host.url("/hook")) for number in range(TASKS)]
            await asyncio.sleep(0.3)  # some are done, some under way, most wait
        port = urlsplit(engine.url).port or 0
        async with gateway(tmp_path, engine.url) as (client, _):
            await asyncio.sleep(0.2)
            await engine.stop()
            await asyncio.sleep(0.3)
        await engine.start(port=port)
        async with gateway(tmp_path, engine.url) as (client, _), asyncio.timeout(30):
            while len(found := await outcomes(client, ids)) < TASKS:
                await asyncio.sleep(0.05)
            for one in found.values():
                answer = await client.get(urlsplit(one["audio_address"]).path)
                assert len(answer.content) == 44 + 2 * 16000, "one second of 16 kHz"
    assert {one["outcome"] for one in found.values()} == {"SUCCESS"}
    assert len({one["audio_address"] for one in found.values()}) == TASKS
    assert len(list((tmp_path / "store" / "kept").iterdir())) == TASKS, "and no other file"
    assert_each_was_told(host, ids)
    assert "Task number" not in (tmp_path / "log").read_text()


def assert_each_was_told(host: Elsewhere, ids: list[str]) -> None:
    calls = Counter(headers["webhook-id"] for _, headers, _ in host.asked)
    assert len(calls) == len(ids), "one call each, which a kill may have made twice with the same id"
    assert all(any(task_id in body.decode() for _, _, body in host.asked) for task_id in ids)
