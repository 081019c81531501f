"""`make bench`: what the gateway costs, side by side with the alternatives, in one run on one machine.

Direct to the engine, through nginx, through the gateway, through a plain FastAPI + httpx design; the engine is the
scripted one. Rounds are interleaved, so that a busy machine is equally unkind to all; the ratios are the result.
"""

import asyncio
import shutil
import socket
import statistics
import time
from collections.abc import Iterable, Sequence

import httpx

from bench.stand import Contender, contenders
from bench.wrk import Load, load, median

ROUNDS, ROUND_SECONDS = 5, 3


def main() -> None:
    print("One run, interleaved rounds, medians. Ratios count; the times belong to this machine on this day.\n")
    if not shutil.which("nginx"):
        print("nginx is not installed: its column is left out.\n")
    if shutil.which("wrk"):
        with contenders() as all_contenders:
            _load_table(all_contenders)
    else:
        print("wrk is not installed: requests per second are left out.\n")
    with contenders(pieces=20, pause=0.01) as all_contenders:
        _first_byte_table(all_contenders)
    with contenders(pieces=200, pause=0.02) as all_contenders:
        _cpu_table(all_contenders)
    with contenders(pieces=2000, piece_bytes=64 * 1024) as all_contenders:
        _memory_table(all_contenders)


def _load_table(all_contenders: Sequence[Contender]) -> None:
    for connections in (1, 32):
        rounds: dict[str, list[Load]] = {one.name: [] for one in all_contenders}
        for _ in range(ROUNDS):
            for one in all_contenders:
                rounds[one.name].append(load(one, connections, ROUND_SECONDS))
        found = {name: median(loads) for name, loads in rounds.items()}
        print(f"### {connections} connection{'s' if connections > 1 else ''}, reply of 48 kB in 10 chunks\n")
        table(
            ("", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "CPU ms/request"),
            (
                (name, f"{it.requests_per_second:.0f}", f"{it.p50:.2f}", f"{it.p99:.2f}",
                 f"{it.p50 - found['direct'].p50:.2f}", f"{it.cpu_ms:.3f}")
                for name, it in found.items()
            ),
        )  # fmt: skip
        _load_ratios(found, connections)


def _load_ratios(found: dict[str, Load], connections: int) -> None:
    ours, plain, direct = found["gateway"], found["plain"], found["direct"]
    if "nginx" in found:
        nginx = found["nginx"]
        print(f"requests/s: {ours.requests_per_second / nginx.requests_per_second:.2f} × nginx")
        if connections == 1:
            print(f"added p50: {(ours.p50 - direct.p50) / max(nginx.p50 - direct.p50, 1e-9):.2f} × what nginx adds")
    print(f"requests/s: {ours.requests_per_second / plain.requests_per_second:.1f} × FastAPI + httpx\n")


def _first_byte_table(all_contenders: Sequence[Contender]) -> None:
    times: dict[str, list[float]] = {one.name: [] for one in all_contenders}
    for _ in range(60):
        for one in all_contenders:
            times[one.name].append(_first_byte(one))
    print("### Time to the first byte of audio, engine pausing 10 ms before each piece, 1 connection\n")
    direct = statistics.median(times["direct"])
    medians = {name: statistics.median(found) for name, found in times.items()}
    rows = ((name, f"{it * 1000:.2f}", f"{(it - direct) * 1000:.2f}") for name, it in medians.items())
    table(("", "p50 ms", "added ms"), rows)


def _first_byte(one: Contender) -> float:
    """Over a bare socket: a client library's own work on the head would be counted for those who send it late."""
    url = httpx.URL(one.url)
    head = f"POST {url.path} HTTP/1.1\r\nhost: {url.host}\r\ncontent-type: {one.content_type}\r\n"
    request = head.encode() + b"content-length: %d\r\n\r\n" % len(one.body) + one.body
    with socket.create_connection((url.host, url.port or 80), 10) as connection:
        started = time.perf_counter()
        connection.sendall(request)
        found = b""
        while not found.partition(b"\r\n\r\n")[2]:
            found += connection.recv(65536)
        first = time.perf_counter() - started
        while not found.endswith(b"\r\n0\r\n\r\n"):
            found = found[-16:] + connection.recv(65536)
    return first


def _cpu_table(all_contenders: Sequence[Contender]) -> None:
    print("### CPU for streamed audio: 20 streams at a time, 4.8 kB every 20 ms, 24 kHz\n")
    minutes = 20 * 200 * 4800 / 2 / 24000 / 60
    rows = []
    for one in all_contenders:
        before = one.cpu_seconds()
        asyncio.run(_streams(one, 20))
        rows.append((one.name, f"{(one.cpu_seconds() - before) * 1000 / minutes:.1f}"))
    table(("", "CPU ms for each minute of audio"), rows)


async def _streams(one: Contender, count: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client, asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(_read(client, one))


async def _read(client: httpx.AsyncClient, one: Contender) -> int:
    size = 0
    headers = {"content-type": one.content_type}
    async with client.stream("POST", one.url, content=one.body, headers=headers) as answer:
        async for chunk in answer.aiter_raw():
            size += len(chunk)
    return size


def _memory_table(all_contenders: Sequence[Contender]) -> None:
    print("### Memory: RSS before and after 1 GB streamed, in replies of 131 MB\n")
    rows = []
    for one in all_contenders:
        asyncio.run(_one_after_the_other(one, 1))
        before = one.rss()
        size = asyncio.run(_one_after_the_other(one, 8))
        grown = (one.rss() - before) / 1e6
        rows.append((one.name, f"{size / 1e9:.2f}", f"{before / 1e6:.1f}", f"{grown:+.1f}"))
    table(("", "GB streamed", "RSS MB before", "growth MB"), rows)


async def _one_after_the_other(one: Contender, count: int) -> int:
    async with httpx.AsyncClient(timeout=60) as client:
        return sum([await _read(client, one) for _ in range(count)])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    head = list(head)
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


if __name__ == "__main__":
    main()
