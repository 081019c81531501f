"""CosyVoice in a worker process of its own, as the server runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from engines.tts.job import Job
from engines.tts.source import Processes
from engines.workers.pool import Pool
from engines.workers.process import JobFailed, Worker, started
from gateway.wire import cosyvoice as wire
from tests.engines.tts.tiny_backend import TEXT, WARNINGS, job
from tests.tiny import cosyvoice as tiny
from tests.tiny.fixtures import TinyModel

pytest.importorskip("torch", reason="the packages of the real engines are not installed")

pytestmark = [pytest.mark.engine, *map(pytest.mark.filterwarnings, WARNINGS)]  # of making the models

_ROOT = Path(__file__).resolve().parents[3]


@asynccontextmanager
async def speaking(source: Path, models: TinyModel, models_dir: Path) -> AsyncIterator[Processes]:
    environment = {
        "PYTHONPATH": f"{source}:{_ROOT}",
        "MODELS_DIR": str(models_dir),
        "SFT_MODEL_ID": str(models("cosyvoice")),
        "COSYVOICE3_MODEL_ID": str(models("cosyvoice3")),
        "OMP_NUM_THREADS": "1",
    }

    def start(device: str) -> AbstractAsyncContextManager[Worker]:
        return started("engines.tts.worker", ["--backend", "cosyvoice"], device, environment)

    pool = Processes(Pool("synthesis", start, ["cpu"], 4))
    async with pool.at_work(), asyncio.timeout(120):
        while pool.report.state != "ready":
            assert pool.report.state == "loading", pool.report.reason
            await asyncio.sleep(0.05)
        yield pool


async def sound(source: Processes, asked: Job) -> tuple[int, bytes]:
    async with source.speaking(asked) as speech:
        return speech.sample_rate, b"".join([piece async for piece in speech])


async def test_a_worker_speaks_registers_and_is_free_again(
    cosyvoice_source: Path, tiny_cosyvoice: TinyModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with speaking(cosyvoice_source, tiny_cosyvoice, tmp_path) as source:
        assert source.speakers == wire.PRESETS
        assert source.report.device == "cpu"

        rate, preset = await sound(source, job(wire.SFT))
        assert rate == 22_050
        assert len(preset) / 2 / rate == pytest.approx(tiny.seconds("cosyvoice"), rel=0.02)

        rate, cloned = await sound(source, job(wire.ZERO_SHOT))
        assert rate == 24_000
        assert len(cloned) / 2 / rate == pytest.approx(tiny.seconds("cosyvoice3"), rel=0.02)

        await source.register("小明", job(wire.REGISTER))
        assert await source.registered() == ("小明",)
        known = job(wire.ZERO_SHOT, prompt=None, registered="小明", seed=7)
        assert await sound(source, known) == await sound(source, known)

        # Somebody leaves in the middle of a minute of speech; the next one is not kept waiting.
        async with source.speaking(job(wire.INSTRUCT2, TEXT * 200)) as speech:
            assert await anext(aiter(speech))
        async with asyncio.timeout(10):
            assert (await sound(source, job(wire.ZERO_SHOT)))[1]

        for unknown in (job(wire.SFT, speaker="Nobody"), job(wire.ZERO_SHOT, prompt=None, registered="nobody")):
            with pytest.raises(JobFailed, match="unknown") as refused:
                await sound(source, unknown)
            assert refused.value.status == 400

    said = "".join(capfd.readouterr())
    assert "天气" not in said
    assert "你好" not in said
