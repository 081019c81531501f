"""`make bench-openai`: what `POST /v1/audio/speech` costs, beside the engine itself, nginx and the LiteLLM proxy, in
one run on one machine, all before one scripted engine; and what 50 mp3 streams do to a conversation meanwhile.

Rounds are interleaved, so that a busy machine is equally unkind to all; the ratios are the result.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import relay, stand
from bench.gateway import table
from bench.stand import Contender, free_port, process
from bench.wrk import Load, load, median

PATH = "/v1/audio/speech"
FORMATS = ("pcm", "mp3", "opus")
ROUNDS, ROUND_SECONDS = 5, 3.0
PIECES, PIECE_SECONDS = 20, 0.1
"""Of a reply in real time: 4.8 kB every 100 ms, 24 kHz."""
STREAMS, SESSIONS = 50, 4


def body(audio: str = "pcm") -> bytes:
    return json.dumps({"model": "tts-1", "input": stand.TEXT, "voice": "alloy", "response_format": audio}).encode()


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.openai")
    parser.add_argument("--litellm", default=shutil.which("litellm") or "", help="the program litellm")
    litellm: str = parser.parse_args().litellm
    print("One run, interleaved rounds, medians. Ratios count; the times belong to this machine on this day.\n")
    if not litellm:
        print("litellm is not installed: its column is left out.\n")
    if shutil.which("wrk"):
        with contenders(litellm) as found:
            for connections in (1, 32):
                _load_table(found, connections)
    else:
        print("wrk is not installed: requests per second are left out.\n")
    for connections, pause in ((1, 0.01), (32, PIECE_SECONDS)):  # many streams come in real time, or nobody packs them
        with contenders(litellm, pause=pause) as found:
            _first_byte_table(found, connections, pause)
    _conversation_table()


@contextmanager
def contenders(litellm: str, *, pause: float = 0.0) -> Iterator[list[Contender]]:
    """Direct, nginx and LiteLLM (where installed) and the gateway, before one scripted engine."""
    with ExitStack() as stack:
        port = free_port()
        script = ["--pieces", "10", "--piece-bytes", "4800", "--pause", str(pause)]
        engine = stack.enter_context(process(["-m", "engines.scripted", "--port", str(port), *script], port))
        base = f"http://127.0.0.1:{port}"
        found = [Contender("direct", base + PATH, body(), stand.JSON, engine)]
        if shutil.which("nginx"):
            found.append(stack.enter_context(stand.nginx(port, PATH, body(), stand.JSON)))
        found.append(stack.enter_context(stand.gateway(base, PATH, body())))
        if litellm:
            found.append(stack.enter_context(_litellm(litellm, base)))
        yield found


@contextmanager
def _litellm(program: str, engine: str) -> Iterator[Contender]:
    port = free_port()
    model = {
        "model_name": "tts-1",
        "litellm_params": {"model": "openai/tts-1", "api_base": f"{engine}/v1", "api_key": "none"},
    }
    settings = {
        "model_list": [model],
        "litellm_settings": {"telemetry": False, "drop_params": True},
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},  # it listens on loopback
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "litellm.json"  # YAML reads JSON
        config.write_text(json.dumps(settings))
        command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        with process(command, port, python=False, ready="/health/liveliness", patience=120) as running:
            yield Contender("litellm", f"http://127.0.0.1:{port}{PATH}", body(), stand.JSON, running)


def _load_table(found: Sequence[Contender], connections: int) -> None:
    rounds: dict[str, list[Load]] = {one.name: [] for one in found}
    for _ in range(ROUNDS):
        for one in found:
            rounds[one.name].append(load(one, connections, ROUND_SECONDS))
    loads = {name: median(each) for name, each in rounds.items()}
    direct = loads["direct"]
    print(f"### {connections} connection{'s' if connections > 1 else ''}, pcm, reply of 48 kB in 10 chunks\n")
    table(
        ("", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "CPU ms/request"),
        (
            (name, f"{it.requests_per_second:.0f}", f"{it.p50:.2f}", f"{it.p99:.2f}", f"{it.p50 - direct.p50:.2f}",
             f"{it.p99 - direct.p99:.2f}", f"{it.cpu_ms:.3f}")
            for name, it in loads.items()
        ),
    )  # fmt: skip
    if (other := loads.get("litellm")) is not None:
        ours = loads["gateway"]
        print(f"requests/s: {ours.requests_per_second / other.requests_per_second:.1f} × LiteLLM")
        print(f"added p99: 1/{(other.p99 - direct.p99) / max(ours.p99 - direct.p99, 1e-9):.1f} of LiteLLM's\n")


def _first_byte_table(found: Sequence[Contender], connections: int, pause: float) -> None:
    """The gateway in every format; the others in the one that the engine speaks."""
    asked = [(one, "pcm") for one in found] + [
        (one, form) for one in found if one.name == "gateway" for form in FORMATS[1:]
    ]
    times: dict[str, list[float]] = {}
    for _ in range(40 if connections == 1 else 6):
        for one, form in asked:
            name = one.name if form == "pcm" else f"{one.name}, {form}"
            times.setdefault(name, []).extend(asyncio.run(_first_bytes(one, body(form), connections)))
    print(
        f"### Time to the first byte of audio, {connections} at a time, engine pausing {pause:g} s before each piece\n"
    )
    direct = times["direct"]
    rows = []
    for name, it in times.items():
        p50, p99 = (percentile(it, percent) for percent in (50, 99))
        added = (p50 - percentile(direct, 50), p99 - percentile(direct, 99))
        rows.append((name, *(f"{figure:.2f}" for figure in (p50, p99, *added))))
    table(("", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"), rows)


def percentile(times: Sequence[float], percent: int) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * percent // 100)]


async def _first_bytes(one: Contender, asked: bytes, connections: int, rounds: int = 3) -> list[float]:
    """Over bare sockets, one request after the other on each; the first of each only opens the way."""
    async with asyncio.TaskGroup() as tasks:
        each = [tasks.create_task(_client(one, asked, rounds + 1)) for _ in range(connections)]
    return [each_one for task in each for each_one in task.result()[1:]]


async def _client(one: Contender, asked: bytes, rounds: int) -> list[float]:
    host, _, port = one.url.split("/")[2].partition(":")
    head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {one.content_type}\r\n"
    request = head.encode() + b"content-length: %d\r\n\r\n" % len(asked) + asked
    reader, writer = await asyncio.open_connection(host, int(port))
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        if b"chunked" in answer.lower():
            times.append(await _chunked(reader, started))
        else:
            size = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(1)
            times.append((time.perf_counter() - started) * 1000)
            await reader.readexactly(size - 1)
    writer.close()
    return times


async def _chunked(reader: asyncio.StreamReader, started: float) -> float:
    """Reads the body; gives the milliseconds to its first chunk."""
    first = 0.0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
        first = first or (time.perf_counter() - started) * 1000
    await reader.readexactly(2)
    return first


def _conversation_table() -> None:
    """Pages of speech through the gateway to an echo engine, alone and beside mp3 streams in real time, by turns."""
    figures = {name: relay.Figures(array("d"), array("d")) for name in ("alone", f"beside {STREAMS} mp3 streams")}
    alone, beside = figures
    with ExitStack() as stack:
        echo, scripted = free_port(), free_port()
        stack.enter_context(process(["-m", "bench.echo", str(echo)], echo))
        script = ["--pieces", str(PIECES), "--piece-bytes", "4800", "--pause", str(PIECE_SECONDS)]
        stack.enter_context(process(["-m", "engines.scripted", "--port", str(scripted), *script], scripted))
        base = f"http://127.0.0.1:{echo}"
        more: dict[str, str | int] = {
            "converse-engine": "fun_audio_chat",
            "converse-urls": base,
            "converse-slots": 1000,
        }
        ours = stack.enter_context(stand.gateway(f"http://127.0.0.1:{scripted}", PATH, body("mp3"), **more))
        port = int(ours.url.split("/")[2].partition(":")[2])
        for _ in range(3):
            for name in figures:
                with _streams(ours, STREAMS if name == beside else 0):
                    asyncio.run(relay.round_of(relay.Relay(name, port, ours.process), SESSIONS, figures[name], echo))
    print(f"### A conversation beside {STREAMS} mp3 streams in real time, {SESSIONS} duplex sessions\n")
    table(
        ("", "up p50 ms", "up p99 ms", "down p50 ms", "down p99 ms", "lost"),
        (
            (name, *(f"{percentile(it, p):.2f}" for it in (one.up, one.down) for p in (50, 99)), str(one.lost))
            for name, one in figures.items()
        ),
    )
    moved = max(
        percentile(getattr(figures[beside], way), 99) - percentile(getattr(figures[alone], way), 99)
        for way in ("up", "down")
    )
    print(f"p99 moved by {moved:.2f} ms\n")


@contextmanager
def _streams(one: Contender, count: int) -> Iterator[None]:
    """So many of them run for as long as the block does, in a process of their own."""
    if not count:
        yield
        return
    command = ["-c", f"from bench.openai import listen; listen({one.url!r}, {count})"]
    with process(command, int(one.url.split("/")[2].partition(":")[2])):
        time.sleep(1.0)
        yield


def listen(url: str, count: int) -> None:
    """Asks for mp3 over and over on so many connections, for ever."""

    async def forever() -> None:
        nobody = Contender("gateway", url, body("mp3"), stand.JSON, None)  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                await asyncio.sleep(PIECE_SECONDS / count * (number > 0))
                tasks.create_task(_client(nobody, body("mp3"), 1_000_000))

    asyncio.run(forever())


if __name__ == "__main__":
    main()
