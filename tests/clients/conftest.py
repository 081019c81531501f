"""Stock clients of Realtime against a real `voxgate run`: embedded engines, and a chat API that answers by rule."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import soxr

from gateway.supervise import free_port
from gateway.wire import wav
from tests.clients.chat import ChatApi
from tests.conftest import SHARED_AUDIO

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / ".venv-clients" / "node"
RATE = 24_000


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chat() -> AsyncIterator[ChatApi]:
    async with ChatApi().serving() as api:
        yield api


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(chat: ChatApi, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of Realtime."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    environment |= {
        "VOXGATE_HOST": "127.0.0.1",
        "VOXGATE_PORT": str(port),
        "VOXGATE_AVATAR_PORT": str(free_port()),
        "VOXGATE_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "VOXGATE_CHAT_URL": chat.url,
    }
    command = [sys.executable, "-m", "gateway", "run"]
    run = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http, asyncio.timeout(120):
            while not await _ready(http):
                await asyncio.sleep(0.2)
        yield f"ws://127.0.0.1:{port}/v1/realtime"
    finally:
        run.terminate()
        await run.wait()


@pytest.fixture(scope="session")
def hello() -> bytes:
    """ "Hello world", said by somebody, with silence around it: mono s16le at RATE."""
    path = SHARED_AUDIO / "hello_world_en.wav"
    if not path.exists():
        pytest.skip(f"needs {path.name}, a recording of somebody")
    data = path.read_bytes()
    head = wav.read_header(data[:100], len(data))
    said = soxr.resample(np.frombuffer(data[head.start :], "<i2"), head.sample_rate, RATE).astype("<i2").tobytes()
    return bytes(RATE) + said + bytes(4 * RATE)


async def node(script: Path, *arguments: str, seconds: float = 60) -> list[dict[str, Any]]:
    """What a script tells, line by line."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs node")
    if not (NODE_MODULES / "node_modules" / "@openai" / "agents").is_dir():
        pytest.skip("needs @openai/agents, which `make test-clients` installs where there is npm")
    run = await asyncio.create_subprocess_exec(
        program,
        "--input-type=module",
        "-",
        *arguments,
        cwd=NODE_MODULES,  # where its packages are found
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            told, _ = await run.communicate(script.read_bytes())
    finally:
        if run.returncode is None:
            run.kill()
    return [json.loads(line) for line in told.splitlines()]


async def _ready(http: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get("/ready")).status_code == 200
    return False
