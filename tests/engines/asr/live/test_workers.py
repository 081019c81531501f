"""The models of live recognition in real processes: who shares one, who leaves one, and what its death means."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from engines.asr.live.events import Began, Delta, Ended
from engines.asr.live.models import ModelFailed, NoModel, NotKnown, Stream
from engines.asr.live.workers import Workers
from engines.workers.messages import Fields
from engines.workers.pool import Pool
from engines.workers.process import started
from gateway.wire.funasr_2pass import Config, Mode

MODULE = "tests.engines.asr.live.puppet"


@dataclass(slots=True)
class Running:
    workers: Workers
    live: Pool
    whole: Pool

    async def ready(self) -> None:
        async with asyncio.timeout(20):
            while self.workers.refusal():
                await asyncio.sleep(0.01)


def pool(name: str, count: int, *options: str) -> Pool:
    start = partial(started, MODULE, [*options], environment={"PYTHONPATH": str(Path(__file__).parents[4])})
    return Pool(name, start, ["cpu"] * count, 8)


@asynccontextmanager
async def running(scratch: Path, live: int = 1, dies: Sequence[str] = ()) -> AsyncIterator[Running]:
    streams, whole = pool("live recognition", live, "--backend", "live"), pool("whole", 1, "--backend", "whole", *dies)
    workers = Workers(streams, whole, scratch)
    async with AsyncExitStack() as stack:
        for part in (streams.at_work(), whole.at_work(), workers.at_work()):
            await stack.enter_async_context(part)
        made = Running(workers, streams, whole)
        await made.ready()
        yield made


def samples(count: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return np.zeros(count, np.float32)


async def told(stream: Stream, count: int = 960) -> str:
    (_, delta) = await stream.feed(samples(count), last=False)
    assert isinstance(delta, Delta)
    return delta.text


def process(said: str) -> str:
    return said.split(" of ")[1].split(",")[0]


async def test_events_come_back_and_the_config_arrives(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        for mode, how in ((Mode.TWO_PASS, "True False"), (Mode.ONLINE, "True True"), (Mode.OFFLINE, "False False")):
            async with made.workers.stream(Config(mode=mode)) as stream:
                assert (await told(stream)).startswith("960 of ")
                began, delta, ended = await stream.feed(samples(0), last=True)
                assert (began, ended) == (Began(0), Ended(0, 60))
                assert isinstance(delta, Delta)
                assert delta.text.endswith(how)


async def test_without_a_second_pass_the_last_words_are_wanted_always(tmp_path: Path) -> None:
    live = pool("live recognition", 1, "--backend", "live")
    workers = Workers(live, None, tmp_path)
    async with live.at_work(), workers.at_work():
        await Running(workers, live, live).ready()
        assert not workers.second_pass
        for mode in Mode:
            async with workers.stream(Config(mode=mode, language="xx")) as stream:
                assert (await told(stream)).endswith("True True")


async def test_streams_share_workers_evenly_and_stay_where_they_are(tmp_path: Path) -> None:
    async with running(tmp_path, live=2) as made:
        async with asyncio.timeout(20):
            while len(made.live._ready) < 2:
                await asyncio.sleep(0.01)
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(made.workers.stream(Config())) for _ in range(4)]
            at = [process(await told(stream)) for stream in streams]
            assert sorted(map(at.count, set(at))) == [2, 2]
            assert [process(await told(stream)) for stream in streams] == at


async def test_a_stream_that_is_left_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        for _ in range(3):
            async with made.workers.stream(Config()) as stream:
                assert "1 streams" in await told(stream)


async def test_a_stream_that_is_left_in_the_middle_does_not_kill_a_shared_worker(tmp_path: Path) -> None:
    async with running(tmp_path) as made, made.workers.stream(Config()) as other:
        before = process(await told(other))

        async def leave() -> None:
            async with made.workers.stream(Config()) as stream:
                await stream.feed(samples(15), last=False)

        leaving = asyncio.ensure_future(leave())
        await asyncio.sleep(0.1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        said = await told(other)
        assert process(said) == before
        assert "2 streams" not in await told(other), "the one that was left is closed by now"


async def test_a_death_ends_the_streams_of_that_worker_only(tmp_path: Path) -> None:
    async with running(tmp_path, live=2) as made:
        async with asyncio.timeout(20):
            while len(made.live._ready) < 2:
                await asyncio.sleep(0.01)
        async with made.workers.stream(Config()) as one, made.workers.stream(Config()) as other:
            assert process(await told(one)) != process(await told(other))
            with pytest.raises(ModelFailed, match="died"):
                await one.feed(samples(13), last=False)
            with pytest.raises(ModelFailed, match="died"):
                await one.feed(samples(960), last=False)
            assert await told(other)


async def test_a_failure_ends_one_stream_and_says_nothing_of_it(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        async with made.workers.stream(Config()) as one:
            with pytest.raises(ModelFailed) as caught:
                await one.feed(samples(14), last=False)
            assert "secret" not in str(caught.value)
        async with made.workers.stream(Config()) as another:
            assert await told(another)


async def test_the_second_pass_has_the_utterance_and_what_was_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        asked = Config(language="zh", hotwords=("通义",), itn=False)
        assert await made.workers.recognise(samples(16_000), asked) == "16000 at 16000, ['zh', ['通义'], False]"
        assert not list(tmp_path.iterdir())


async def test_an_utterance_has_no_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def heard(_: Workers, fields: Fields, _wish: object) -> str:
        return f"{len(Path(fields['path']).read_bytes())} bytes, {len(list(tmp_path.iterdir()))} files"

    monkeypatch.setattr(Workers, "_text", heard)
    async with running(tmp_path) as made:
        assert await made.workers.recognise(samples(100), Config()) == "244 bytes, 0 files"


async def test_a_second_pass_that_nobody_wants_any_more_is_not_done(tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    async with running(tmp_path, dies=["--dies", str(mark)]) as made, asyncio.timeout(20):
        (worker,) = [one for one in psutil.Process().children() if "whole" in one.cmdline()]
        worker.suspend()  # it is busy
        leaving = asyncio.ensure_future(made.workers.recognise(samples(960), Config()))
        while not made.whole._ready[0]._calls:
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
        worker.resume()
        while made.workers._jobs:
            await asyncio.sleep(0.01)
    assert not mark.exists()


async def test_a_second_pass_is_tried_again_where_its_worker_dies(tmp_path: Path) -> None:
    mark, scratch = tmp_path / "died", tmp_path / "scratch"
    scratch.mkdir()
    async with running(scratch, dies=["--dies", str(mark)]) as made, asyncio.timeout(20):
        assert (await made.workers.recognise(samples(960), Config())).startswith("960 at 16000")
        assert mark.exists()
        assert not list(scratch.iterdir())


async def test_a_disk_that_takes_nothing_ends_one_stream(tmp_path: Path) -> None:
    async with running(tmp_path / "nowhere") as made:
        with pytest.raises(ModelFailed, match="FileNotFoundError"):
            await made.workers.recognise(samples(960), Config())
        async with made.workers.stream(Config()) as stream:
            assert await told(stream)


async def test_a_language_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        with pytest.raises(NotKnown, match="cannot recognise ja; svs_lang takes auto, zh, en"):
            async with made.workers.stream(Config(language="ja")):
                pass


async def test_workers_that_are_not_there_yet_take_no_stream(tmp_path: Path) -> None:
    live, whole = pool("live recognition", 1, "--backend", "live"), pool("whole", 1, "--backend", "whole")
    workers = Workers(live, whole, tmp_path)
    async with workers.at_work():
        assert workers.refusal() == "the live recognition model is being loaded"
        with pytest.raises(NoModel, match="being loaded"):
            async with workers.stream(Config()):
                pass


async def test_what_is_at_work_does_not_hold_up_the_end(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    async with asyncio.timeout(20):
        async with running(tmp_path) as made:

            async def leave() -> None:
                async with made.workers.stream(Config()) as stream:
                    await stream.feed(samples(15), last=False)

            leaving = asyncio.ensure_future(leave())
            await asyncio.sleep(0.1)
            leaving.cancel()
            await asyncio.wait([leaving])
    assert set(psutil.Process().children()) == before


async def test_a_stream_that_outlives_the_models_ends_without_noise(tmp_path: Path) -> None:
    async with AsyncExitStack() as streams:
        async with running(tmp_path) as made:
            stream = await streams.enter_async_context(made.workers.stream(Config()))
        with pytest.raises(ModelFailed, match="the engine ends"):
            await stream.feed(samples(960), last=False)
