"""The clients of an engine server, over loopback."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
from websockets.asyncio.client import connect

from bench.engines import health, inputs
from bench.engines.figures import Burst, Live, Request, Stream
from bench.engines.server import Server
from gateway.wire import cosyvoice, funasr_2pass, funasr_http

_PATIENCE = 1800.0
"""Seconds; what waits behind 31 others on a slow machine waits long."""
VOICE = "bench"
_PACKET = 0.06
"""Seconds of live audio in one frame."""

T = TypeVar("T")
Ask = Callable[[httpx.AsyncClient, int], Awaitable[Request]]
"""Makes the request of that number."""


def transcribe(server: Server) -> Ask:
    clips = [(inputs.recording(clip), inputs.seconds(clip)) for clip in inputs.clips()]

    async def ask(client: httpx.AsyncClient, number: int) -> Request:
        file, seconds = clips[number % len(clips)]
        started = time.perf_counter()
        files = {funasr_http.AUDIO: ("clip.wav", file, "audio/wav")}
        answer = await client.post(server.url + funasr_http.PATH, files=files)
        took = time.perf_counter() - started
        text, _, _ = funasr_http.read_result(_accepted(answer.status_code, answer.content))
        if not text:
            raise RuntimeError("the engine heard nothing in a clip")
        return Request(took, took, seconds)

    return ask


def speak(server: Server, preset: bool, characters: int) -> Ask:
    """preset: a built-in voice, else the one that `register` made known. characters: of each sentence."""
    fields = {cosyvoice.SPEAKER: cosyvoice.PRESETS[0]} if preset else {cosyvoice.REGISTERED: VOICE}
    url = server.url + (cosyvoice.SFT if preset else cosyvoice.ZERO_SHOT)

    async def ask(client: httpx.AsyncClient, number: int) -> Request:
        text = inputs.SENTENCES[number % len(inputs.SENTENCES)][:characters]
        started = time.perf_counter()
        first, size = 0.0, 0
        async with client.stream("POST", url, data={cosyvoice.TEXT: text, **fields}) as answer:
            if answer.status_code != 200:
                _accepted(answer.status_code, await answer.aread())
            async for piece in answer.aiter_raw():
                first = first or time.perf_counter() - started
                size += len(piece)
        rate = cosyvoice.read_rate(answer.headers[cosyvoice.SAMPLE_RATE_HEADER].encode())
        return Request(time.perf_counter() - started, first, size / 2 / rate)

    return ask


async def register(server: Server) -> None:
    """A voice, out of a recording."""
    clip = inputs.recording(inputs.clips()[0])
    async with _client(1) as client:
        answer = await client.post(
            server.url + cosyvoice.REGISTER,
            data={cosyvoice.REGISTERED: VOICE, cosyvoice.PROMPT_TEXT: inputs.SENTENCES[0]},
            files={cosyvoice.PROMPT_WAV: ("voice.wav", clip, "audio/wav")},
        )
    _accepted(answer.status_code, answer.content)


async def burst(server: Server, ask: Ask, clients: int, rounds: int) -> Burst:
    """All clients at once, `rounds` times."""
    found: list[Request] = []
    wall = 0.0
    async with _watched(server) as times, _client(clients) as client:
        for number in range(rounds):
            started = time.perf_counter()
            found += await _together([ask(client, number * clients + at) for at in range(clients)])
            wall += time.perf_counter() - started
    return Burst(clients, tuple(found), wall, tuple(times), server.rss(), server.vram())


async def one_by_one(server: Server, ask: Ask, count: int) -> list[Request]:
    async with _client(1) as client:
        return [await ask(client, number) for number in range(count)]


async def live(server: Server, count: int) -> Live:
    """So many streams, each in real time, begun one after the other within a second."""
    async with _watched(server) as times:
        streams = await _together([_talk(server, number, number / count) for number in range(count)])
    return Live(tuple(streams), tuple(times), server.rss(), server.vram())


# Private


def _accepted(status: int, body: bytes) -> bytes:
    if status != 200:
        raise RuntimeError(f"the engine answered {status}: {body[:300].decode(errors='replace')}")
    return body


@asynccontextmanager
async def _client(clients: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=_PATIENCE, limits=limits, trust_env=False) as client:
        yield client


@asynccontextmanager
async def _watched(server: Server) -> AsyncIterator[list[float]]:
    watch = health.watched(server.port)
    times = await asyncio.to_thread(watch.__enter__)
    try:
        yield times
    finally:
        await asyncio.to_thread(watch.__exit__, None, None, None)


async def _together(work: Sequence[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*work))


async def _talk(server: Server, number: int, after: float) -> Stream:
    """Speaks, stops with the last sound, and listens until the end ack."""
    pcm = inputs.live(number)
    asked = funasr_2pass.Config(rate=inputs.LIVE_RATE)
    await asyncio.sleep(after)
    url = f"ws://127.0.0.1:{server.port}{funasr_2pass.PATH}"
    async with connect(url, subprotocols=[funasr_2pass.SUBPROTOCOL], proxy=None, open_timeout=60) as socket:  # type: ignore[list-item]
        await socket.send(funasr_2pass.config(asked))
        began = time.perf_counter()
        stopped = math.inf
        deltas = utterances = 0
        first = final = math.nan

        async def say() -> None:
            nonlocal stopped
            size = round(_PACKET * inputs.LIVE_RATE) * 2
            for at in range(0, len(pcm), size):
                await asyncio.sleep(began + at / 2 / inputs.LIVE_RATE - time.perf_counter())
                await socket.send(pcm[at : at + size])
            await socket.send(funasr_2pass.end())
            stopped = time.perf_counter()

        async with asyncio.TaskGroup() as tasks:
            saying = tasks.create_task(say())
            async for frame in socket:
                said = funasr_2pass.read_engine(str(frame))
                now = time.perf_counter()
                if isinstance(said, funasr_2pass.Result):
                    if said.whole:
                        utterances, final = utterances + 1, now - stopped
                    else:
                        deltas += 1
                        first = now - began - inputs.PAUSE if math.isnan(first) else first
                else:
                    saying.cancel()
                    return Stream(deltas, utterances, first, max(0.0, final), now - stopped, said.error)
    return Stream(deltas, utterances, first, final, math.inf, "the connection ended")
