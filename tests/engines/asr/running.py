"""The server as a process, and what it leaves lying about."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    port: int
    scratch: Path
    log: Path

    def workers(self, module: str = "engines.asr.worker") -> list[psutil.Process]:
        """Those for recordings; those for live audio with their module."""
        return [child for child in self._children() if module in child.cmdline()]

    def busy(self) -> bool:
        """Whether a worker has audio open."""
        return any(self._audio(worker) for worker in self.workers())

    def leftovers(self) -> list[str]:
        """Files of requests that anybody still has, with a name or without one."""
        everyone = [psutil.Process(self.process.pid), *self._children()]
        return [str(path) for path in self.scratch.iterdir()] + [name for one in everyone for name in self._audio(one)]

    def transcribe(self, audio: bytes, **fields: str) -> httpx.Response:
        return httpx.post(f"{self.url}/api/transcribe", files={"audio": audio}, data=fields, timeout=60)

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def _audio(self, process: psutil.Process) -> list[str]:
        links = []
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                links.append(str(link.readlink()))
            except OSError:  # closed meanwhile
                continue
        return [link for link in links if link.startswith(str(self.scratch))]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """Ready when the block begins; gone when it ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch, log = folder / "scratch", folder / "log"
    scratch.mkdir()
    command = [sys.executable, "-m", "engines.asr", "--port", str(port), "--scratch", str(scratch), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        server = Server(process, f"http://127.0.0.1:{port}", port, scratch, log)
        eventually(lambda: ready(server), 30)
        yield server
    finally:
        process.kill()
        process.wait()


def ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health").status_code == 200
    except httpx.TransportError:
        return False


def eventually(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
