"""Live recognition of the embedded engine, as a process: over its real WebSocket, and through the gateway."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soxr
from websockets.asyncio.client import connect

from gateway.events import Audio, Transcript
from gateway.verbs import Live as LiveAudio
from gateway.verbs import Transcribe
from gateway.wire import funasr_2pass as wire
from tests.conftest import ready, running
from tests.engines.asr.live.talking import Talk
from tests.engines.asr.running import Server, serving
from tests.engines.asr.sound import RATE, SENTENCES, as_wav, noise, person, say, silence

PACKET, PACE = 3840, 0.12
"""Bytes, and the seconds that they last."""
LIVE = "engines.asr.live.worker"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("live"), "--workers", "1") as engine:
        yield engine


@asynccontextmanager
async def talking(engine: Server) -> AsyncIterator[Talk]:
    options: dict[str, Any] = {"subprotocols": ["binary"], "compression": None, "proxy": None}
    async with connect(f"ws://127.0.0.1:{engine.port}/", **options) as socket:
        yield Talk(socket)


async def answers(engine: Server, pcm: bytes, packet: int = PACKET, **config: Any) -> list[dict[str, Any]]:
    async with talking(engine) as talk:
        await talk.begin(**config)
        await talk.say(pcm, packet)
        await talk.end()
        return await talk.rest()


def texts(found: list[dict[str, Any]], mode: str) -> list[str]:
    return [answer["text"] for answer in found if answer["mode"] == mode]


@pytest.mark.parametrize("sentence", SENTENCES)
async def test_clear_speech_is_final_word_for_word(engine: Server, sentence: str) -> None:
    found = await answers(engine, silence(0.5) + say(sentence) + silence(0.5))
    assert texts(found, "2pass-offline") == [sentence]
    assert [answer["is_final"] for answer in found].index(True) == len(found) - 1
    assert texts(found, "2pass-online")


async def test_words_arrive_while_they_are_said(engine: Server) -> None:
    pcm = silence(0.3) + say("six seven eight nine zero") + silence(1)
    async with talking(engine) as talk:
        await talk.begin()
        heard: list[tuple[float, dict[str, Any]]] = []
        began = time.monotonic()

        async def listen() -> None:
            while not (answer := await talk.hear()).get("is_end"):
                heard.append((time.monotonic() - began, answer))

        listening = asyncio.get_running_loop().create_task(listen())
        for at in range(0, len(pcm), PACKET):
            await talk.say(pcm[at : at + PACKET])
            await asyncio.sleep(PACE)
        ended = time.monotonic() - began
        await talk.end()
        await listening
    deltas = [when for when, answer in heard if answer["mode"] == "2pass-online"]
    assert len(deltas) >= 3
    assert deltas[0] < ended / 2
    assert [answer["text"] for _, answer in heard if answer["mode"] == "2pass-offline"] == ["six seven eight nine zero"]


async def test_each_utterance_in_its_turn(engine: Server) -> None:
    found = await answers(engine, say("hello world") + silence(1) + say("stop the music") + silence(1))
    assert texts(found, "2pass-offline") == ["hello world", "stop the music"]
    order = [answer["mode"] for answer in found]
    assert order.index("2pass-offline") < len(order) - 1 - order[::-1].index("2pass-online")


@pytest.mark.parametrize("packet", [1, 641, 100_000])
async def test_the_last_word_is_not_lost(engine: Server, packet: int) -> None:
    pcm = say("hello world") if packet > 1 else say("hello world")[: RATE // 5]
    found = await answers(engine, pcm, packet)
    assert texts(found, "2pass-offline") == (["hello world"] if packet > 1 else [])


@pytest.mark.parametrize("mode", ["online", "offline"])
async def test_the_other_modes(engine: Server, mode: str) -> None:
    found = await answers(engine, silence(0.3) + say("hello world") + silence(1), mode=mode)
    assert "".join(texts(found, mode)) == "hello world"


async def test_other_rates_and_other_voices(engine: Server) -> None:
    pcm = np.frombuffer(say("what time is it"), "<i2")
    found = await answers(engine, soxr.resample(pcm, RATE, 48_000).astype("<i2").tobytes(), audio_fs=48_000)
    assert texts(found, "2pass-offline") == ["what time is it"]
    assert texts(await answers(engine, person("hello_world_en.wav")), "2pass-offline") == ["hello world"]


async def test_hotwords_are_for_the_second_pass(engine: Server) -> None:
    spoken = say("the gateway speaks with fun audio chat")
    found = await answers(engine, spoken, hotwords='{"Fun Audio Chat": 20}')
    assert texts(found, "2pass-offline") == ["the gateway speaks with Fun Audio Chat"]


async def test_noise_and_silence_have_no_words(engine: Server) -> None:
    for pcm in (b"", silence(2), noise(2, -45)):
        found = await answers(engine, pcm)
        assert not texts(found, "2pass-offline")
        assert not texts(found, "2pass-online")


async def test_streams_at_the_same_time_do_not_mix(engine: Server) -> None:
    async def speak(sentence: str) -> list[dict[str, Any]]:
        pcm = silence(0.3) + say(sentence) + silence(0.8)
        async with talking(engine) as talk:
            await talk.begin()
            for at in range(0, len(pcm), PACKET):
                await talk.say(pcm[at : at + PACKET])
                await asyncio.sleep(PACE / 2)
            await talk.end()
            return await talk.rest()

    found = await asyncio.gather(*map(speak, SENTENCES))
    assert [texts(one, "2pass-offline") for one in found] == [[sentence] for sentence in SENTENCES]


async def test_neither_pass_waits_for_whole_recordings_and_those_stay_right(engine: Server) -> None:
    """The second pass comes in the middle of a recording, with other hotwords than that has."""
    spoken = say("the gateway speaks with fun audio chat")
    long = as_wav(silence(0.5) + noise(6, -15) + silence(2) + spoken)
    whole = asyncio.get_running_loop().run_in_executor(
        None, lambda: engine.transcribe(long, hotwords="Fun Audio Chat").json()["text"]
    )
    async with asyncio.timeout(10):
        while not engine.busy():
            await asyncio.sleep(0.02)
    found = await answers(engine, silence(0.3) + say("hello world") + silence(0.7))
    assert texts(found, "2pass-offline") == ["hello world"]
    assert not whole.done()
    assert (await whole).endswith("the gateway speaks with Fun Audio Chat")
    assert engine.transcribe(as_wav(say("stop the music"))).json()["text"] == "stop the music"


async def test_who_hangs_up_frees_the_decoder(engine: Server) -> None:
    (worker,) = engine.workers(LIVE)
    spoken = silence(0.2) + say("hello world")
    sizes = []
    for turn in range(20):
        async with talking(engine) as talk:
            await talk.begin()
            await talk.say(spoken, 100_000)
            await talk.hear()
            talk.socket.transport.abort()
        if turn % 5 == 4:
            sizes.append(worker.memory_info().rss)
    assert sizes[-1] - sizes[1] < 8 * 2**20
    assert texts(await answers(engine, spoken), "2pass-offline") == ["hello world"]
    assert engine.workers(LIVE) == [worker], "no hang-up kills a worker that others share"


async def test_health_answers_at_once_while_many_speak(engine: Server) -> None:
    async with httpx.AsyncClient() as client, asyncio.TaskGroup() as tasks:
        speaking = [tasks.create_task(answers(engine, say("hello world"))) for _ in range(6)]
        late = []
        while not all(one.done() for one in speaking):
            began = time.monotonic()
            assert (await client.get(f"{engine.url}/health")).json()["state"] == "ready"
            late.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    assert sorted(late)[len(late) * 9 // 10] < 0.2


async def test_a_worker_that_dies_ends_its_streams_and_comes_back(engine: Server) -> None:
    (worker,) = engine.workers(LIVE)
    async with talking(engine) as talk:
        await talk.begin()
        await talk.say(say("hello world"))
        await talk.hear()
        worker.kill()
        await talk.say(say("hello world"))
        while "error" not in (answer := await talk.hear()):
            pass
        assert "died" in answer["error"]
        assert await talk.closed() == wire.ENGINE_FAILED
    async with asyncio.timeout(10):
        while not any(one.pid != worker.pid for one in engine.workers(LIVE)):
            await asyncio.sleep(0.02)
        while httpx.get(f"{engine.url}/health").status_code != 200:
            await asyncio.sleep(0.02)
    assert texts(await answers(engine, say("hello world")), "2pass-offline") == ["hello world"]


async def test_through_the_gateway(engine: Server, tmp_path: Path) -> None:
    pcm = np.frombuffer(silence(0.3) + say("hello world") + silence(1) + say("how are you today"), "<i2")
    sound = soxr.resample(pcm, RATE, 24_000).astype("<i2").tobytes()
    sent = 0.0

    async def pieces() -> AsyncIterator[Audio]:
        nonlocal sent
        for at in range(0, len(sound), 4800):
            yield Audio(sound[at : at + 4800], 24_000)
            sent = (at + 4800) / len(sound)
            await asyncio.sleep(0.05)

    async with running(tmp_path, engine.url) as gateway:
        await ready(gateway)
        job = Transcribe(LiveAudio(pieces(), 24_000), partials=True)
        found: list[tuple[float, Transcript]] = []
        async with asyncio.timeout(20), gateway.state["transcribe"].session(job) as events:
            async for event in events:
                found.append((sent, event))  # noqa: PERF401
    assert [one.text for _, one in found if one.final] == ["hello world", "how are you today"]
    assert [one.utterance for _, one in found if one.final] == [0, 1]
    assert found[0][0] < 0.5
    for utterance in (0, 1):
        grown = [one.text for _, one in found if one.utterance == utterance and not one.final]
        assert grown
        assert all(later.startswith(earlier) for earlier, later in zip(grown, grown[1:], strict=False))
