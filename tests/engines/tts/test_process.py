"""The engine as operations starts and ends it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest

from gateway.wire import cosyvoice as wire

from .conftest import until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def engine() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "engines.tts", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        address = f"http://127.0.0.1:{port}"
        until(lambda: ready(address), 15)
        yield process, address
        process.kill()


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_it_ends_within_a_second_even_while_it_speaks(engine: tuple[subprocess.Popen[bytes], str]) -> None:
    process, address = engine
    form = {"tts_text": "今天天气很好。" * 10_000, "spk_id": "中文女"}
    with httpx.stream("POST", f"{address}{wire.SFT}", data=form) as answer:
        next(answer.iter_raw())
        started = monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(5)
        assert monotonic() - started < 1
    assert process.stderr
    log = process.stderr.read().decode()
    assert "天气" not in log
    assert wire.SFT not in log


def test_what_it_imports_is_small() -> None:
    code = (
        "import sys, engines.tts.__main__, engines.tts.backends.embedded as _;"
        "print(*(name for name in sys.modules if name.split('.')[0] in ('torch', 'gateway')))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    names = found.stdout.split()
    assert names
    assert all(name == "gateway" or name.startswith("gateway.wire") for name in names)
