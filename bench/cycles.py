"""`python -m bench.cycles`: connect, talk, hang up at any byte, a thousand times; then count what is left.

The gateway runs with the embedded engines (`voxgate run`). What is counted: descriptors and children of every process,
tasks and conversations of the gateway, places at engines, files in the scratch space, memory.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bench.stand import free_port, process
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus

AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Left:
    descriptors: int
    children: int
    tasks: int
    conversations: int
    places: int
    """At engines, taken or waited for."""
    files: int
    """In the scratch space."""
    rss: int
    """Bytes, of the gateway alone: the engines' memory grows with the first recordings and stays."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.cycles")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("audio", nargs="?", help="a WAV to say, mono s16le at 24 kHz [a buzz like syllables]")
    asked = parser.parse_args()
    pages = _pages(asked.audio)
    with gateway() as (running, port, folder):
        asyncio.run(cycles(port, pages, asked.warm_up, seed=1))
        before = count(running, port, folder)
        started = time.monotonic()
        asyncio.run(cycles(port, pages, asked.cycles, seed=2))
        after = count(running, port, folder)
        print(f"{asked.cycles} cycles in {time.monotonic() - started:.0f} s, after {asked.warm_up} to warm up")
        for name in Left.__slots__:
            print(f"{name}: {getattr(before, name)} → {getattr(after, name)}")
        grown = after.rss / before.rss - 1
        print(f"memory: {grown:+.1%}")
        leaked = [name for name in Left.__slots__ if name != "rss" and getattr(after, name) > getattr(before, name)]
        sys.exit(f"more than before: {', '.join(leaked)}" if leaked or grown > 0.05 else None)


@contextmanager
def gateway() -> Iterator[tuple[psutil.Process, int, Path]]:
    """(the supervisor, port, data folder)"""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        flags = ["--host", "127.0.0.1", "--port", str(port), "--avatar-port", str(free_port()), "--data-dir", name]
        command = ["-m", "gateway", "run", *flags, "--log-level", "error"]
        with process(command, port, ready="/ready") as running:
            yield running, port, Path(name)


async def cycles(port: int, pages: list[bytes], number: int, seed: int) -> None:
    chance = random.Random(seed)
    waiting = [chance.random() for _ in range(number)]

    async def some() -> None:
        while waiting:
            await _cycle(port, pages, random.Random(waiting.pop()))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_A_TIME):
            tasks.create_task(some())


async def _cycle(port: int, pages: list[bytes], chance: random.Random) -> None:
    """What a client sends in a turn, up to some byte of it; then the connection is cut, or closed, or read for a
    while first."""
    said = [wire.encode(wire.Audio(page)) for page in pages]
    said += [wire.encode(wire.Control(wire.Action.PAUSE))]
    if chance.random() < 0.3:
        said += [wire.encode(wire.Control(wire.Action.START)), *said[2:]]
    size = sum(map(len, said))
    end = chance.randrange(int(1.2 * size))
    with suppress(ConnectionClosed, TimeoutError):
        query = "?hands_free=1" if chance.random() < 0.2 else ""
        async with connect(f"ws://127.0.0.1:{port}{wire.PATH}{query}", compression=None, proxy=None) as socket:
            for message in said:
                await socket.send(message[:end])
                end -= len(message)
                if end <= 0:
                    break
            if chance.random() < 0.5:
                async with asyncio.timeout(chance.random()):
                    while True:
                        await socket.recv()
            if chance.random() < 0.7:
                socket.transport.abort()


def count(running: psutil.Process, port: int, folder: Path) -> Left:
    """Once nothing is at work any more, or 20 s have passed."""
    deadline = time.monotonic() + 20
    while (left := _count(running, port, folder)).places or left.conversations or left.files:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    time.sleep(1)
    return _count(running, port, folder)


def _count(running: psutil.Process, port: int, folder: Path) -> Left:
    family = running.children(recursive=True)
    inside = next(one for one in family if "serve" in one.cmdline())
    engines = httpx.get(f"http://127.0.0.1:{port}/health").json()["engines"].values()
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return Left(
        descriptors=sum(one.num_fds() for one in family),
        children=len(family),
        tasks=_metric(metrics, "voxgate_tasks"),
        conversations=_metric(metrics, "voxgate_conversations"),
        places=sum(engine["running"] + engine["waiting"] for engine in engines),
        files=sum(path.is_file() and path.name != "lock" for path in (folder / "scratch").rglob("*")),
        rss=inside.memory_info().rss,
    )


def _metric(text: str, name: str) -> int:
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))


def _pages(path: str | None) -> list[bytes]:
    if path:
        pcm = Path(path).read_bytes()[44:]
    else:
        t = np.arange(2 * opus.RATE) / opus.RATE
        voice = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 25))
        pcm = (voice * np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1) * 4000).astype("<i2").tobytes()
    packer = opus.Packer()
    return packer.feed(pcm) + packer.end()


if __name__ == "__main__":
    main()
