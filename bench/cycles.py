"""`python -m bench.cycles`: connect, talk, hang up at any byte, a thousand times; then count what is left.

The gateway runs with the embedded engines (`voxgate run`), or before Fun-Audio-Chat's (`--relay`). What is counted:
descriptors of every process, processes, tasks and conversations of the gateway, places at engines, files in the scratch
space, memory.
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
from gateway.wire import engine_health, opus
from gateway.wire import fun_audio_chat as wire

AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Stand:
    """What is measured."""

    port: int
    scratch: Path
    gateway: psutil.Process
    others: psutil.Process
    """The engines, and perhaps what supervises them, with all below it."""

    def family(self) -> list[psutil.Process]:
        return list({self.gateway, *self.gateway.children(), self.others, *self.others.children(recursive=True)})


@dataclass(frozen=True, slots=True)
class Left:
    descriptors: int
    processes: int
    tasks: int
    conversations: int
    places: int
    """At engines, taken or waited for."""
    files: int
    """In the scratch space."""
    rss: int
    """Bytes, of the gateway alone."""
    others: int
    """Bytes, of all else; the engines' memory grows with the first recordings and stays."""

    def more_than(self, before: "Left") -> list[str]:
        """What there is more of; memory is for others to judge."""
        counted = [name for name in self.__slots__ if name not in ("rss", "others")]
        return [name for name in counted if getattr(self, name) > getattr(before, name)]


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.cycles")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--relay", action="store_true", help="before engines.s2s, not the embedded engines")
    parser.add_argument("audio", nargs="?", help="a WAV to say, mono s16le at 24 kHz [a buzz like syllables]")
    asked = parser.parse_args()
    pages = pages_of(asked.audio)
    with relay() if asked.relay else embedded() as stand:
        asyncio.run(cycles(stand.port, pages, asked.warm_up, seed=1))
        before = settled(stand)
        started = time.monotonic()
        asyncio.run(cycles(stand.port, pages, asked.cycles, seed=2))
        took = time.monotonic() - started
        after = settled(stand, before)
        print(f"{asked.cycles} cycles in {took:.0f} s, after {asked.warm_up} to warm up")
        for name in Left.__slots__:
            print(f"{name}: {getattr(before, name)} → {getattr(after, name)}")
        grown = after.rss / before.rss - 1
        print(f"memory: {grown:+.1%}; of the others: {after.others / before.others - 1:+.1%}")
        leaked = after.more_than(before)
        sys.exit(f"more than before: {', '.join(leaked) or 'memory'}" if leaked or grown > 0.05 else None)


@contextmanager
def embedded() -> Iterator[Stand]:
    """`voxgate run`."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        with process([*_gateway("run", port, name)], port, ready="/ready") as running:
            inside = next(one for one in running.children() if "serve" in one.cmdline())
            yield Stand(port, Path(name) / "scratch", inside, running)


@contextmanager
def relay() -> Iterator[Stand]:
    """The gateway before the scripted backend of engines.s2s."""
    with tempfile.TemporaryDirectory() as name:
        port, engine = free_port(), free_port()
        base = f"http://127.0.0.1:{engine}"
        urls = ["--converse-urls", base, "--speak-urls", base, "--transcribe-urls", base]
        command = [*_gateway("serve", port, name), "--converse-engine", "fun_audio_chat", *urls]
        with (
            process(["-m", "engines.s2s", "--port", str(engine)], engine, ready=engine_health.PATH) as other,
            process(command, port, ready="/ready") as running,
        ):
            yield Stand(port, Path(name) / "scratch", running, other)


def _gateway(command: str, port: int, folder: str) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--avatar-port", str(free_port()), "--data-dir", folder]
    return ["-m", "gateway", command, *where, "--log-level", "error"]


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


def settled(stand: Stand, before: Left | None = None) -> Left:
    """Once nothing is at work any more, and no more is left than before; or 40 s have passed: an idle connection to an
    engine is kept for 30."""
    time.sleep(1)
    deadline = time.monotonic() + 40
    while True:
        left = _left(stand)
        idle = not (left.places or left.conversations or left.files or (before and left.more_than(before)))
        if idle or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _left(stand: Stand) -> Left:
    family = stand.family()
    engines = httpx.get(f"http://127.0.0.1:{stand.port}/health").json()["engines"].values()
    metrics = httpx.get(f"http://127.0.0.1:{stand.port}/metrics").text
    return Left(
        descriptors=sum(one.num_fds() for one in family),
        processes=len(family),
        tasks=_metric(metrics, "voxgate_tasks"),
        conversations=_metric(metrics, "voxgate_conversations"),
        places=sum(engine["running"] + engine["waiting"] for engine in engines),
        files=sum(path.is_file() and path.name != "lock" for path in stand.scratch.rglob("*")),
        rss=stand.gateway.memory_info().rss,
        others=sum(one.memory_info().rss for one in family if one != stand.gateway),
    )


def _metric(text: str, name: str) -> int:
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))


def pages_of(path: str | None) -> list[bytes]:
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
