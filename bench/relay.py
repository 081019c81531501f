"""`python -m bench.relay`: what the gateway adds to a conversation that it passes on, beside nginx, in one run.

Pages of speech, 25 a second, go through each to the same echo engine (bench/echo.py): at any time 100 connections
speak and 100 others are spoken to, which is what 100 duplex sessions send. Every page says when it left, so each way
is measured for itself; rounds are interleaved.
"""

import argparse
import asyncio
import contextlib
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect

from bench import echo
from bench.stand import free_port, process
from gateway.wire import fun_audio_chat as wire
from gateway.wire import turns

TURN_SECONDS = 4.0
IDLE = 500


@dataclass(frozen=True, slots=True)
class Relay:
    name: str
    port: int
    process: psutil.Process | None
    """None for the engine itself."""

    def cpu_seconds(self) -> float:
        family = [self.process, *self.process.children(recursive=True)] if self.process else []
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def rss(self) -> int:
        """Bytes, children included."""
        family = [self.process, *self.process.children(recursive=True)] if self.process else []
        return sum(one.memory_info().rss for one in family)


@dataclass(slots=True)
class Figures:
    """Of one relay. Milliseconds; up is from the client to the engine."""

    up: "array[float]"
    down: "array[float]"
    lost: int = 0
    cpu: float = 0.0
    """Seconds."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.relay")
    parser.add_argument("--sessions", type=int, default=100, help="duplex sessions")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with relays() as found:
        figures = asyncio.run(_measure(found, asked.sessions, asked.rounds))
        _print(found, figures, asked.sessions, asked.rounds)
        for one in found[1:]:
            grown = asyncio.run(_idle(one))
            print(f"memory of an idle session, {one.name}: {grown / 1024:.1f} KiB (RSS over {IDLE} connections)")


@contextmanager
def relays() -> Iterator[list[Relay]]:
    """The engine itself, nginx where it is installed, and the gateway, before one echo engine."""
    with ExitStack() as stack:
        engine = free_port()
        stack.enter_context(process(["-m", "bench.echo", str(engine)], engine))
        found = [Relay("direct", engine, None)]
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if shutil.which("nginx"):
            port = free_port()
            config = Path(folder) / "nginx.conf"
            config.write_text(_NGINX.format(folder=folder, port=port, engine=engine))
            program = [str(shutil.which("nginx")), "-c", str(config), "-p", folder, "-e", f"{folder}/error.log"]
            found.append(Relay("nginx", port, stack.enter_context(process(program, port, python=False))))
        port, base = free_port(), f"http://127.0.0.1:{engine}"
        flags = {
            "host": "127.0.0.1", "port": port, "avatar-port": free_port(), "data-dir": folder, "log-level": "warning",
            "converse-engine": "fun_audio_chat", "converse-urls": base, "speak-urls": base, "transcribe-urls": base,
            "converse-sessions": 2000, "converse-slots": 1000,
        }  # fmt: skip
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        command = ["-m", "gateway", "serve", *arguments]
        found.append(Relay("gateway", port, stack.enter_context(process(command, port, ready="/ready"))))
        yield found


async def _measure(found: Sequence[Relay], sessions: int, rounds: int) -> dict[str, Figures]:
    figures = {one.name: Figures(array("d"), array("d")) for one in found}
    for _ in range(rounds):
        for one in found:
            await round_of(one, sessions, figures[one.name], found[0].port)
    return figures


async def round_of(one: Relay, sessions: int, figures: Figures, engine: int) -> None:
    """Half of the connections begin a turn's length after the others, so that always one half speaks."""
    async with httpx.AsyncClient() as http:
        await http.get(f"http://127.0.0.1:{engine}{echo.FIGURES}")
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(_connected(one)) for _ in range(2 * sessions)]
            before = one.cpu_seconds()
            async with asyncio.TaskGroup() as tasks:
                for number, socket in enumerate(sockets):
                    # Spread over 40 ms, as real clients are.
                    wait = number % 2 * TURN_SECONDS + number / len(sockets) * echo.PAGE_SECONDS
                    tasks.create_task(_turns(socket, wait, figures))
            figures.cpu += one.cpu_seconds() - before
        lines = (await http.get(f"http://127.0.0.1:{engine}{echo.FIGURES}")).text.split()
    figures.lost += int(lines[0])
    late = array("d", map(float, lines[1:]))
    figures.lost += 2 * sessions * 2 * _pages() - len(late)
    figures.up.extend(late)


def _connected(one: Relay) -> connect:
    return connect(f"ws://127.0.0.1:{one.port}{wire.PATH}", compression=None, proxy=None, ping_interval=None)


def _pages() -> int:
    return round(TURN_SECONDS / echo.PAGE_SECONDS)


async def _turns(socket: ClientConnection, wait: float, figures: Figures) -> None:
    """Two of them."""
    loop = asyncio.get_running_loop()
    start = loop.time() + wait
    head = echo.headers()
    for turn in (1, 2):
        if turn > 1:
            await socket.send(wire.encode(wire.Control(wire.Action.START)))
        for number in range(_pages()):
            await asyncio.sleep(max(0.0, start + number * echo.PAGE_SECONDS - loop.time()))
            await socket.send(b"\1" + head + echo.page(turn, number))
            head = b""
        await socket.send(wire.encode(wire.Control(wire.Action.PAUSE)))
        await _reply(socket, turn, figures)
        start += 2 * TURN_SECONDS


async def _reply(socket: ClientConnection, turn: int, figures: Figures) -> None:
    expected = 0
    async with asyncio.timeout(TURN_SECONDS + 20):
        while True:
            data = await socket.recv()
            assert isinstance(data, bytes)
            if data[0] == wire.Kind.AUDIO:
                at = data.rfind(b"OggS")
                _, number, late = echo.read(data[at:])
                figures.down.append(late)
                figures.lost += number != expected
                expected = number + 1
            elif data[0] == wire.Kind.METADATA:
                event = turns.read(wire.Metadata(data[1:].decode()).fields)
                if isinstance(event, turns.ReplyDone):
                    figures.lost += _pages() - expected
                    return
                assert not isinstance(event, turns.Failed), event


async def _idle(one: Relay) -> float:
    """Bytes of RSS for each connection that is open and says nothing. The larger of two tries."""
    grown: list[int] = []
    for _ in range(2):
        before = one.rss()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(IDLE):
                socket = await stack.enter_async_context(_connected(one))
                await socket.recv()
            await asyncio.sleep(1)
            grown.append(one.rss() - before)
        await asyncio.sleep(1)
    return max(grown) / IDLE


def _print(found: Sequence[Relay], figures: dict[str, Figures], sessions: int, rounds: int) -> None:
    print(f"{sessions} duplex sessions × 25 pages/s each way, {rounds} rounds, milliseconds\n")
    print("| | up p50 | up p99 | down p50 | down p99 | lost or out of order | cores | sessions per core |")
    print("|---|---|---|---|---|---|---|---|")
    seconds = rounds * 4 * TURN_SECONDS
    for one in found:
        it = figures[one.name]
        cores = it.cpu / (seconds + rounds * TURN_SECONDS)
        shown = [f"{_at(way, share):.2f}" for way in (it.up, it.down) for share in (0.5, 0.99)]
        capacity = f"{sessions / cores:.0f}" if cores else ""
        print(f"| {one.name} | {' | '.join(shown)} | {it.lost} | {cores:.3f} | {capacity} |")
    direct, ours = figures["direct"], figures["gateway"]
    added = {share: _both(ours, share) - _both(direct, share) for share in (0.5, 0.99)}
    print(f"\nthere and back, the gateway adds p50 {added[0.5]:.2f} ms, p99 {added[0.99]:.2f} ms")
    if "nginx" in figures:
        nginx = {share: _both(figures["nginx"], share) - _both(direct, share) for share in (0.5, 0.99)}
        print(f"nginx adds p50 {nginx[0.5]:.2f} ms, p99 {nginx[0.99]:.2f} ms")
        print(f"added p50: {added[0.5] / max(nginx[0.5], 1e-9):.2f} × what nginx adds")


def _both(it: Figures, share: float) -> float:
    return _at(it.up, share) + _at(it.down, share)


def _at(times: "array[float]", share: float) -> float:
    return sorted(times)[int(share * (len(times) - 1))] if times else float("nan")


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://127.0.0.1:{engine}; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 1h;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
  }}
}}
"""

if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"took {time.monotonic() - started:.0f} s")
