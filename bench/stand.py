"""The processes of a measurement: the scripted engine, and before it nginx, the gateway and the plain design.

All listen on loopback ports of this machine, all are ended with the block.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

TEXT = "The weather is very nice today."
DIRECT_BODY = b"tts_text=The+weather+is+very+nice+today.&spk_id=%E4%B8%AD%E6%96%87%E5%A5%B3"
GATEWAY_BODY = b'{"text": "The weather is very nice today.", "speaker_id": "default"}'
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    url: str
    body: bytes
    content_type: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of the process and its children, user and system."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def rss(self) -> int:
        """Bytes resident, children included."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def contenders(*, pieces: int = 10, piece_bytes: int = 4800, pause: float = 0.0) -> Iterator[list[Contender]]:
    """Direct, nginx (where installed), the gateway and the plain design, in that order, before one scripted engine."""
    with ExitStack() as stack:
        port = free_port()
        script = ["--pieces", str(pieces), "--piece-bytes", str(piece_bytes), "--pause", str(pause)]
        engine = stack.enter_context(process(["-m", "engines.scripted", "--port", str(port), *script], port))
        base = f"http://127.0.0.1:{port}"
        found = [Contender("direct", f"{base}/inference_sft", DIRECT_BODY, FORM, engine)]
        if shutil.which("nginx"):
            found.append(stack.enter_context(nginx(port)))
        found.append(stack.enter_context(gateway(base)))
        found.append(stack.enter_context(_plain(base)))
        yield found


@contextmanager
def nginx(
    engine_port: int, path: str = "/inference_sft", body: bytes = DIRECT_BODY, form: str = FORM
) -> Iterator[Contender]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, port=port, engine=engine_port))
        program = [str(shutil.which("nginx")), "-c", str(config), "-p", folder, "-e", f"{folder}/error.log"]
        with process(program, port, python=False) as running:
            yield Contender("nginx", f"http://127.0.0.1:{port}{path}", body, form, running)


@contextmanager
def gateway(
    engine: str, path: str = "/api/synthesize", body: bytes = GATEWAY_BODY, **more: str | int
) -> Iterator[Contender]:
    """more: settings."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "host": "127.0.0.1", "port": port, "avatar-port": free_port(), "data-dir": folder, "log-level": "warning",
            "speak-urls": engine, "transcribe-urls": engine, "speak-slots": 64, "speak-queue": 1000,
        } | more  # fmt: skip
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        with process(["-m", "gateway", "serve", *arguments], port, ready="/ready") as running:
            yield Contender("gateway", f"http://127.0.0.1:{port}{path}", body, JSON, running)


@contextmanager
def _plain(engine: str) -> Iterator[Contender]:
    port = free_port()
    start = (
        f"import uvicorn; from bench.plain import build; uvicorn.run(build({engine!r}), port={port}, log_level='error')"
    )
    with process(["-c", start], port) as running:
        yield Contender("plain", f"http://127.0.0.1:{port}/api/synthesize", GATEWAY_BODY, JSON, running)


@contextmanager
def process(
    command: Sequence[str], port: int, *, python: bool = True, ready: str = "", patience: float = 30
) -> Iterator[psutil.Process]:
    """Runs for as long as the block, which begins once it answers: on its port, or with 200 at the path `ready`."""
    output = None if python else subprocess.DEVNULL  # others write a line for each request
    process = subprocess.Popen([sys.executable, *command] if python else command, stdout=output, stderr=output)
    try:
        _wait(port, ready, patience)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _wait(port: int, path: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if not path:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            if httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200:
                return
        except (OSError, httpx.HTTPError):
            pass
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {port}")


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    location / {{ proxy_pass http://engine; }}
  }}
}}
"""
