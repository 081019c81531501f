"""Live recognition by FunASR's own code, in worker processes, on models that the tests make.

SenseVoice was taught six sentences, so the second pass is compared word for word; the streaming Paraformer of that
size gets some characters wrong, so of deltas it is only asked that they come early and resemble what was said.
"""

import asyncio
import difflib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines.asr.live.endpoint import Limits
from engines.asr.live.workers import Workers
from engines.workers.pool import Pool
from engines.workers.process import started
from gateway.adapters.connections import Client
from gateway.adapters.funasr import FunAsr
from gateway.adapters.funasr_http import FunAsrHttp
from gateway.events import Audio, Transcript
from gateway.settings import Settings
from gateway.verbs import Live as LiveAudio
from gateway.verbs import Transcribe
from gateway.wire import funasr_2pass as wire
from gateway.wire import wav
from tests.engines.asr.live.talking import Serving, serving

pytestmark = pytest.mark.engine

VAD, STREAMING, WHOLE = "vad", "streaming", "whole"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    from tests.tiny import funasr

    folder = tmp_path_factory.mktemp("live-models")
    funasr.install(folder, VAD, funasr.built("fsmn-vad"))
    funasr.install(folder, STREAMING, funasr.trained("paraformer-streaming"))
    funasr.install(folder, WHOLE, funasr.trained("sensevoice"))
    return folder


class Engine:
    def __init__(self, server: Serving, live: Pool, whole: Pool) -> None:
        self.server, self.live, self.whole = server, live, whole
        self.url = f"http://127.0.0.1:{server.port}"
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def whole_busy(self, scratch: Path) -> Iterator[None]:
        """The only worker for whole recordings is at one of an hour."""
        long = spoken("今天天气很好", 0.5) * 1500
        path = scratch / "hour.wav"
        path.write_bytes(wav.header(16_000, len(long) // 2) + long)
        fields = {"path": str(path), "language": "", "hotwords": (), "itn": True}

        async def occupy() -> None:
            async with self.whole.claim() as worker, worker.asking("transcribe", fields) as call:
                occupied.set()
                await asyncio.to_thread(over.wait)
                assert not call.over, "it should still be at it"

        occupied, over = threading.Event(), threading.Event()
        done = asyncio.run_coroutine_threadsafe(occupy(), self._loop)
        assert occupied.wait(10)
        try:
            yield
        finally:
            over.set()
            done.result(10)

    def workers(self) -> list[psutil.Process]:
        """The live ones."""
        return [one for one in psutil.Process().children() if "engines.asr.live.worker" in one.cmdline()]

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            while not (self.live.report.state == self.whole.report.state == "ready"):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def engine(models: Path, scratch: Path, live_workers: int = 1) -> AsyncIterator[Engine]:
    """The server in this process, its workers in theirs."""
    environment = {
        "MODELS_DIR": str(models),
        "VAD_MODEL_ID": VAD,
        "ASR_REALTIME_MODEL_ID": STREAMING,
        "ASR_MODEL_ID": WHOLE,
        "PUNC_MODEL_ID": "none",
        "PYTHONPATH": str(Path(__file__).resolve().parents[4]),
    }
    start = partial(started, environment=environment)
    live = Pool(
        "live recognition",
        partial(start, "engines.asr.live.worker", ["--backend", "funasr"]),
        ["cpu"] * live_workers,
        0,
    )
    whole = Pool(
        "recognition",
        partial(start, "engines.asr.worker", ["--backend", "funasr", "--scratch", str(scratch)]),
        ["cpu"],
        8,
    )
    workers = Workers(live, whole, scratch)
    async with AsyncExitStack() as stack:
        for part in (live.at_work(), whole.at_work(), workers.at_work()):
            await stack.enter_async_context(part)
        server = await stack.enter_async_context(serving(workers, Limits(behind=60)))
        made = Engine(server, live, whole)
        await made.ready()
        yield made


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all tests, in a loop of its own: its workers take seconds to start."""
    scratch = tmp_path_factory.mktemp("scratch")
    begun: Future[Engine] = Future()
    over = threading.Event()

    async def serve() -> None:
        try:
            async with engine(models, scratch) as running:
                begun.set_result(running)
                await asyncio.to_thread(over.wait)
        except Exception as exc:
            begun.set_exception(exc)
            raise

    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(lambda: asyncio.run(serve()))
        try:
            yield begun.result()
        finally:
            over.set()
        served.result()
    assert not list(scratch.iterdir()), "an utterance lies about"


def spoken(*parts: Any, rate: int = 16_000) -> bytes:
    """s16le: sentences in the ways that no model was trained on, and seconds of silence."""
    import numpy as np
    import soxr

    from tests.tiny import funasr

    clips = [funasr.say(part) if isinstance(part, str) else funasr.silence(part) for part in parts]
    whole = np.concatenate(clips)
    return funasr.pcm(whole if rate == funasr.RATE else np.asarray(soxr.resample(whole, funasr.RATE, rate), "f4"))


def alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


async def answers(engine: Engine, pcm: bytes, packet: int = 1920, **config: Any) -> list[dict[str, Any]]:
    async with engine.server.talking() as talk, asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        await talk.begin(**config)
        listening = tasks.create_task(talk.rest())
        await talk.say(pcm, packet)
        await talk.end()
        return await listening


def texts(found: list[dict[str, Any]], mode: str) -> list[str]:
    return [answer["text"] for answer in found if answer["mode"] == mode]


def same(one: list[str], other: list[str]) -> bool:
    """Whether they are the same deltas, but for a last one: where the end of the utterance comes in the same piece as
    its last word, the second pass is quicker to say it."""
    both = min(len(one), len(other))
    return one[:both] == other[:both] and abs(len(one) - len(other)) <= 1


async def test_two_sentences_are_heard_word_for_word(made: Engine) -> None:
    found = await answers(made, spoken(0.5, "今天天气很好", 1.5, "我们去公园吧", 0.5))
    whole = [answer for answer in found if answer["mode"] == "2pass-offline"]
    assert [answer["text"] for answer in whole] == ["今天天气很好", "我们去公园吧"]
    assert [answer["is_final"] for answer in whole] == [False, True]
    assert 100 <= whole[0]["start_time"] <= 500, "a little before the first word"
    assert whole[0]["end_time"] < whole[1]["start_time"]
    order = [answer["mode"] for answer in found]
    second = order.index("2pass-offline")
    assert 0 < second < len(order) - 2, "deltas of the first, the first, deltas of the second, the second"
    first = "".join(answer["text"] for answer in found[:second])
    assert alike(first, "今天天气很好") > 0.5


async def test_the_packets_do_not_matter(made: Engine) -> None:
    pcm = spoken(0.3, "请打开灯", 1.2)
    runs = [await answers(made, pcm, packet) for packet in (640, 1920, 19_200, len(pcm))]
    first, *others = (texts(run, "2pass-online") for run in runs)
    assert all(same(first, other) for other in others)
    assert {tuple(texts(run, "2pass-offline")) for run in runs} <= {("请打开灯",), ("请打开灯", "")}


async def test_audio_of_other_rates_is_heard(made: Engine) -> None:
    for rate in (8_000, 48_000):
        found = await answers(made, spoken(0.3, "明天上午九点开会", 0.3, rate=rate), audio_fs=rate, mode="offline")
        heard = "".join(texts(found, "offline"))
        assert heard == "明天上午九点开会" if rate > 16_000 else alike(heard, "明天上午九点开会") > 0.6, heard


async def test_silence_has_an_ack_and_nothing_else(made: Engine) -> None:
    assert await answers(made, spoken(3.0)) == []
    assert await answers(made, b"") == []


async def test_a_word_that_fills_the_stream_is_not_lost(made: Engine) -> None:
    found = await answers(made, spoken("你好世界"))
    assert texts(found, "2pass-offline") == ["你好世界"]


async def test_each_mode_does_what_it_says(made: Engine) -> None:
    pcm = spoken(0.3, "谢谢你的帮助", 0.3)
    online = await answers(made, pcm, mode="online")
    assert {answer["mode"] for answer in online} == {"online"}
    assert [answer["is_final"] for answer in online] == [False] * (len(online) - 1) + [True]
    assert alike("".join(texts(online, "online")), "谢谢你的帮助") > 0.5
    offline = await answers(made, pcm, mode="offline")
    assert [(answer["mode"], answer["text"], answer["is_final"]) for answer in offline] == [
        ("offline", "谢谢你的帮助", True)
    ]


async def test_streams_at_the_same_time_never_mix(made: Engine) -> None:
    from tests.tiny import funasr

    said = list(funasr.SENTENCES)
    alone = [texts(await answers(made, spoken(0.3, one, 0.3)), "2pass-online") for one in said]
    together = await asyncio.gather(*(answers(made, spoken(0.3, one, 0.3), wav_name=one) for one in said * 2))
    for one, before, found in zip(said * 2, alone * 2, together, strict=True):
        assert {answer["wav_name"] for answer in found} == {one}
        assert same(texts(found, "2pass-online"), before), "what it hears alone"
        assert texts(found, "2pass-offline") == [one]


async def test_partials_come_while_somebody_speaks(made: Engine) -> None:
    """As fast as one speaks: the first words are there before the sentence is."""
    pcm = spoken(0.3, "明天上午九点开会", 1.2)
    begun = time.monotonic()
    heard: list[tuple[float, dict[str, Any]]] = []

    async def listen(talk: Any) -> None:
        while not (answer := await talk.hear()).get("is_end"):
            heard.append((time.monotonic() - begun, answer))

    async with made.server.talking() as talk, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen(talk))
        await talk.begin()
        for at in range(0, len(pcm), 1920):
            await talk.say(pcm[at : at + 1920])
            await asyncio.sleep(max(0.0, begun + (at + 1920) / 32_000 - time.monotonic()))
        ended = time.monotonic() - begun
        await talk.end()
        await listening
    deltas = [when for when, answer in heard if answer["mode"] == "2pass-online"]
    assert len(deltas) >= 2
    assert deltas[0] < ended / 2
    assert [answer["text"] for _, answer in heard if answer["mode"] == "2pass-offline"][0] == "明天上午九点开会"


async def test_neither_deltas_nor_the_second_pass_wait_for_whole_recordings(made: Engine, tmp_path: Path) -> None:
    async with made.server.talking() as talk:
        await talk.begin()
        with made.whole_busy(tmp_path):
            await talk.say(spoken(0.3, "今天天气很好", 1.2))
            while (heard := await talk.hear())["mode"] == "2pass-online":
                pass
            assert (heard["mode"], heard["text"]) == ("2pass-offline", "今天天气很好")
        await talk.end()


async def test_the_gateway_hears_it_too(made: Engine) -> None:
    async def pieces(pcm: bytes, rate: int) -> AsyncIterator[Audio]:
        for at in range(0, len(pcm), 3000):
            yield Audio(pcm[at : at + 3000], rate)

    settings = Settings()
    async with Client(connect=2, idle=30, total=60) as http:
        adapter = FunAsr(made.url, http, settings, whole=FunAsrHttp(made.url, http, settings))
        pcm = spoken(0.5, "今天天气很好", 1.5, "我们去公园吧", 0.5, rate=48_000)
        job = Transcribe(LiveAudio(pieces(pcm, 48_000), 48_000), partials=True)
        async with asyncio.timeout(60), adapter.session(job) as events:
            found: list[Transcript] = [event async for event in events]
    assert [one.text for one in found if one.final] == ["今天天气很好", "我们去公园吧"]
    assert [one.utterance for one in found if one.final] == [0, 1]
    for utterance in (0, 1):
        grown = [one.text for one in found if one.utterance == utterance and not one.final]
        assert grown
        assert all(later.startswith(earlier) for earlier, later in zip(grown, grown[1:], strict=False))


async def test_hang_ups_leave_nothing(made: Engine) -> None:
    pcm = spoken(0.3, "请打开灯")
    (worker,) = made.workers()
    sizes = []
    for turn in range(100):
        async with made.server.talking() as talk:
            await talk.begin()
            await talk.say(pcm, 19_200)
            await talk.hear()
            talk.socket.transport.abort()
        await made.server.idle()
        if turn % 10 == 9:
            sizes.append(worker.memory_info().rss)
    assert texts(await answers(made, pcm), "2pass-offline") == ["请打开灯"]
    assert made.workers() == [worker], "no hang-up kills a worker that others share"
    assert sizes[-1] - sizes[2] < 8 * 2**20


async def test_a_worker_that_dies_ends_its_streams_and_comes_back(made: Engine) -> None:
    (worker,) = made.workers()
    async with made.server.talking() as talk:
        await talk.begin()
        await talk.say(spoken("你好世界"))
        await talk.hear()
        worker.kill()
        await talk.say(spoken("你好世界"))
        while "error" not in (answer := await talk.hear()):
            pass
        assert "died" in answer["error"]
        assert await talk.closed() == wire.ENGINE_FAILED
    async with asyncio.timeout(10):
        while made.live.report.state == "ready":
            await asyncio.sleep(0.01)
    await made.ready()
    assert texts(await answers(made, spoken("你好世界")), "2pass-offline") == ["你好世界"]
