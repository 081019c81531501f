"""An engine server as an operator starts it, on models of ours; and what it takes of the machine."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench.stand import free_port
from engines.settings import inherited

_START = 300.0
"""Seconds until a server is ready; the largest models are read from a disk."""


class NotReady(Exception):
    """What a server said instead of becoming ready."""


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    process: psutil.Process
    vram_before: int | None
    """Bytes of all GPUs that were taken before it started."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rss(self) -> int:
        """Bytes, of the server and its workers; what they share is counted in each."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)])

    def vram(self) -> int | None:
        now = vram()
        return None if now is None or self.vram_before is None else now - self.vram_before


@contextmanager
def running(module: str, backend: str, settings: Mapping[str, str], log: Path) -> Iterator[Server]:
    """`python -m module`, ready. settings: its environment, over ours. Raises NotReady."""
    port, before = free_port(), vram()
    command = [sys.executable, "-m", module, "--backend", backend, "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=inherited(settings), stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait(process, port, log)
        yield Server(port, psutil.Process(process.pid), before)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def vram() -> int | None:
    """Bytes taken of all GPUs; None where there is none."""
    try:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return sum(int(line) for line in found.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


# Private


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START
    answer = "nothing"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            found = httpx.get(f"http://127.0.0.1:{port}/health", timeout=5)
        except httpx.HTTPError:
            pass
        else:
            answer = found.text
            if found.status_code == 200:
                return
            if found.json().get("state") == "failed":
                break
        time.sleep(0.1)
    raise NotReady(f"the engine server is not ready; its /health said {answer}, and more is in {log}")
