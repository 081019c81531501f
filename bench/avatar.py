"""`make bench-avatar`: large uploads and downloads of the digital human beside nginx, and what polling clients do to a
conversation meanwhile, in one run on one machine.

nginx serves the file itself, and keeps an upload in a file before it passes nothing of it on. Rounds are interleaved.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import socket
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from bench import relay, stand
from bench.gateway import table
from bench.openai import percentile
from bench.stand import free_port, process

ROUNDS = 5
POLLERS, POLL_SECONDS, SESSIONS = 200, 1.0, 4
_BLOCK = bytes(1024 * 1024)
_HEAD = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
_TAIL = b"\r\n--b--\r\n"


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.avatar")
    parser.add_argument("--megabytes", type=int, default=500)
    size = parser.parse_args().megabytes
    print("One run, interleaved rounds, medians. Ratios count; the times belong to this machine on this day.\n")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo, engine = free_port(), free_port()
        stack.enter_context(process(["-m", "bench.echo", str(echo)], echo))
        shared = folder / "shared"
        command = ["-m", "engines.avatar", "--port", str(engine), "--data", str(shared)]
        stack.enter_context(process(command, engine, ready="/health"))
        more: dict[str, str | int] = {
            "animate-urls": f"http://127.0.0.1:{engine}", "animate-folder": str(shared),
            "converse-engine": "fun_audio_chat", "converse-urls": f"http://127.0.0.1:{echo}", "converse-slots": 1000,
        }  # fmt: skip
        ours = stack.enter_context(stand.gateway(f"http://127.0.0.1:{echo}", "/health", b"", **more))
        port = int(ours.url.split("/")[2].partition(":")[2])
        if shutil.which("nginx"):
            nginx = stack.enter_context(_nginx(folder))
            _transfers(port, nginx, ours.process, folder, size)
        else:
            print("nginx is not installed: transfers are left out.\n")
        _polling(port, echo, ours.process)


def _transfers(port: int, nginx: int, gateway: psutil.Process, folder: Path, megabytes: int) -> None:
    upload(port, "/upload", 1)  # opens the way
    before, peak = gateway.memory_info().rss, 0
    times: dict[str, dict[str, list[float]]] = {name: {"gateway": [], "nginx": []} for name in ("upload", "download")}
    (folder / "file.mp4").write_bytes(b"")
    with (folder / "file.mp4").open("wb") as file:
        for _ in range(megabytes):
            file.write(_BLOCK)
    for _ in range(ROUNDS):
        seconds, answer = upload(port, "/upload", megabytes)
        times["upload"]["gateway"].append(seconds)
        peak = max(peak, gateway.memory_info().rss)
        path = json.loads(answer)["path"]
        times["upload"]["nginx"].append(upload(nginx, "/upload", megabytes)[0])
        times["download"]["gateway"].append(download(port, f"/download?path={path}", megabytes))
        peak = max(peak, gateway.memory_info().rss)
        times["download"]["nginx"].append(download(nginx, "/file.mp4", megabytes))
    print(f"### Transfers of {megabytes} MB over loopback, 1 at a time\n")
    rows = []
    for name, each in times.items():
        ours, theirs = (statistics.median(each[one]) for one in ("gateway", "nginx"))
        rows.append((name, f"{megabytes / ours:.0f}", f"{megabytes / theirs:.0f}", f"{theirs / ours:.2f}"))
    table(("", "gateway MB/s", "nginx MB/s", "gateway over nginx"), rows)
    print(f"RSS of the gateway: {before / 1e6:.1f} MB before, {peak / 1e6:.1f} MB at most\n")


def upload(port: int, path: str, megabytes: int) -> tuple[float, bytes]:
    """(seconds, body of the answer)."""
    size = len(_HEAD) + megabytes * len(_BLOCK) + len(_TAIL)
    kind = "content-type: multipart/form-data; boundary=b"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\ncontent-length: {size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 120) as line:
        started = time.perf_counter()
        line.sendall(head.encode() + _HEAD)
        for _ in range(megabytes):
            line.sendall(_BLOCK)
        line.sendall(_TAIL)
        found = _answer(line)
        return time.perf_counter() - started, found


def _answer(line: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        found += line.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < size:
        body += line.recv(65536)
    return body


def download(port: int, path: str, megabytes: int) -> float:
    """Seconds."""
    room = bytearray(1024 * 1024)
    with socket.create_connection(("127.0.0.1", port), 120) as line:
        started = time.perf_counter()
        line.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        size = 0
        while count := line.recv_into(room):
            size += count
        assert size > megabytes * len(_BLOCK), f"only {size} bytes"
        return time.perf_counter() - started


@contextmanager
def _nginx(folder: Path) -> Iterator[int]:
    port, behind = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, behind=behind))
    program = [str(shutil.which("nginx")), "-c", str(config), "-p", str(folder), "-e", f"{folder}/error.log"]
    folder.chmod(0o755)
    with process(program, port, python=False):
        yield port


def _polling(port: int, echo: int, gateway: psutil.Process) -> None:
    names = ("alone", f"beside {POLLERS} pollers")
    figures = {name: relay.Figures(array("d"), array("d")) for name in names}
    for _ in range(3):
        for name in names:
            with _pollers(port) if name != "alone" else contextlib.nullcontext():
                one = relay.Relay(name, port, gateway)
                asyncio.run(relay.round_of(one, SESSIONS, figures[name], echo))
    print(f"### A conversation beside {POLLERS} clients that ask /easy/query every {POLL_SECONDS:g} s\n")
    rows = [
        (name, *(f"{percentile(it, p):.2f}" for it in (one.up, one.down) for p in (50, 99)), str(one.lost))
        for name, one in figures.items()
    ]
    table(("", "up p50 ms", "up p99 ms", "down p50 ms", "down p99 ms", "lost"), rows)
    ways: tuple[Callable[[relay.Figures], array[float]], ...] = (lambda it: it.up, lambda it: it.down)
    moved = max(percentile(way(figures[names[1]]), 99) - percentile(way(figures[names[0]]), 99) for way in ways)
    print(f"p99 moved by {moved:.2f} ms\n")


@contextmanager
def _pollers(port: int) -> Iterator[None]:
    with process(["-c", f"from bench.avatar import poll; poll({port})"], port):
        time.sleep(1.0)
        yield


def poll(port: int) -> None:
    """Asks on so many connections, for ever."""

    async def client(number: int) -> None:
        await asyncio.sleep(number / POLLERS * POLL_SECONDS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            writer.write(b"GET /easy/query?code=nobody HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            await asyncio.sleep(POLL_SECONDS)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(POLLERS):
                tasks.create_task(client(number))

    asyncio.run(all_of_them())


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit; user root;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=2048; root {folder};
    location /upload {{
      client_body_in_file_only clean; proxy_pass_request_body off; proxy_set_header content-length 0;
      proxy_pass http://127.0.0.1:{behind};
    }}
  }}
  server {{ listen 127.0.0.1:{behind}; location / {{ return 200 "ok"; }} }}
}}
"""


if __name__ == "__main__":
    main()
