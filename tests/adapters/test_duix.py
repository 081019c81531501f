"""The digital human's adapter before a stock Duix server, faults included, and before ours."""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import duix_files
from gateway.adapters.duix import Duix
from gateway.adapters.http import client
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineTimeout, EngineUnavailable
from gateway.events import Animated, Rendering, Video
from gateway.settings import Settings
from gateway.verbs import Animate, State

from .stock_duix import MP4, StockDuix

CODE = "vg-" + "0123456789abcdef" * 2
OTHER = "vg-" + "f" * 32


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[StockDuix]:
    with StockDuix(tmp_path / "shared") as stock:
        yield stock


@pytest.fixture
async def engine(stock: StockDuix) -> AsyncIterator[Duix]:
    settings = Settings(animate_folder=stock.folder, animate_poll=0.01, animate_stall=0.5)
    async with client(settings) as http:
        yield Duix(stock.url, http, settings)


@pytest.fixture
def job(tmp_path: Path) -> Animate:
    audio, video = tmp_path / "private.wav", tmp_path / "private.mp4"
    audio.write_bytes(b"sound")
    video.write_bytes(b"face")
    return Animate(CODE, audio, video)


async def events(engine: Duix, job: Animate) -> list[Animated]:
    async with engine.session(job) as found:
        return [event async for event in found]


async def test_a_job_tells_how_far_it_is_and_ends_with_its_video(engine: Duix, stock: StockDuix, job: Animate) -> None:
    *progress, last = await events(engine, job)
    assert progress == [Rendering(0), Rendering(10), Rendering(20), Rendering(90)]
    assert isinstance(last, Video) and last.path.read_bytes() == MP4
    (asked,) = stock.seen.submitted
    names = {"audio_url": f"{CODE}.wav", "video_url": f"{CODE}.mp4", "code": CODE}
    assert asked == names | {"chaofen": 0, "watermark_switch": 0, "pn": 1}
    assert (stock.folder / "temp" / f"{CODE}.wav").read_bytes() == b"sound"


async def test_nothing_that_reaches_the_engine_is_named_by_the_client(engine: Duix, job: Animate) -> None:
    for code in ("a; reboot", "../x", "vg-short", "", CODE.upper(), CODE + "0"):
        with pytest.raises(ValueError, match="not the code of a job"):
            await events(engine, Animate(code, job.audio, job.video))


async def test_an_outcome_that_was_read_already_is_still_there(engine: Duix, stock: StockDuix, job: Animate) -> None:
    first = await events(engine, job)
    assert await events(engine, job) == first[-1:], "upstream has forgotten it; the folder has not"
    assert len(stock.seen.submitted) == 1


async def test_whoever_comes_back_goes_on_with_the_job_that_runs(engine: Duix, stock: StockDuix, job: Animate) -> None:
    async with engine.session(job) as found:
        assert await anext(found) == Rendering(0)
    *_, last = await events(engine, job)
    assert isinstance(last, Video)
    assert len(stock.seen.submitted) == 1 and stock.seen.ran == [CODE]


async def test_done_means_that_the_file_is_whole(engine: Duix, stock: StockDuix, job: Animate) -> None:
    stock.behaviour.late_file = 3
    *_, last = await events(engine, job)
    assert isinstance(last, Video) and last.path.read_bytes() == MP4


@pytest.mark.parametrize(
    ("result", "place"),
    [
        ("/{code}-r.mp4", "temp/{code}-r.mp4"),
        ("/code/data/temp/{code}/result.avi", "temp/{code}/result.avi"),
        ("/code/data/result/{code}.mp4", "result/{code}.mp4"),
        ("7", "temp/{code}-r.mp4"),
        ("", "temp/{code}-r.mp4"),
    ],
)
async def test_the_video_is_found_wherever_a_build_puts_it(
    engine: Duix, stock: StockDuix, job: Animate, result: str, place: str
) -> None:
    stock.behaviour.result, stock.behaviour.place = result, place
    *_, last = await events(engine, job)
    assert isinstance(last, Video) and last.path == stock.folder / place.format(code=CODE)


@pytest.mark.parametrize("result", ["/../../secret.mp4", "/etc/passwd", "/link.mp4", "\0", "/{code}"])
async def test_a_result_outside_the_folder_is_not_taken(
    engine: Duix, stock: StockDuix, job: Animate, result: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.mp4").write_bytes(MP4)
    (stock.folder / "temp" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    stock.behaviour.result, stock.behaviour.place = result, "elsewhere/{code}.mp4"
    with pytest.raises(EngineTimeout):
        await events(engine, job)


async def test_an_engine_that_is_busy_with_another_job_is_busy(engine: Duix, stock: StockDuix, job: Animate) -> None:
    async with engine.session(job) as found:
        await anext(found)
        with pytest.raises(EngineBusy):
            await events(engine, Animate(OTHER, job.audio, job.video))
    assert len(stock.seen.submitted) == 1


async def test_an_engine_that_is_stuck_stays_busy(engine: Duix, stock: StockDuix, job: Animate) -> None:
    stock.behaviour.stuck = True
    with pytest.raises(EngineBusy):
        await events(engine, job)


async def test_an_engine_that_makes_no_progress_is_given_up(engine: Duix, stock: StockDuix, job: Animate) -> None:
    stock.behaviour.hung = True
    with pytest.raises(EngineTimeout) as raised:
        await events(engine, job)
    assert raised.value.code == "engine_stuck"


async def test_a_failure_is_told_in_the_engines_words(engine: Duix, stock: StockDuix, job: Animate) -> None:
    stock.behaviour.error = "存在多人脸"
    with pytest.raises(BadRequest, match="存在多人脸") as raised:
        await events(engine, job)
    assert raised.value.code == "animation_failed" and raised.value.quotes


async def test_an_engine_that_was_restarted_has_lost_the_job_and_gets_it_again(
    engine: Duix, stock: StockDuix, job: Animate
) -> None:
    async with engine.session(job) as found:
        await anext(found)
        stock.stop()
        with pytest.raises(EngineUnavailable):
            [event async for event in found]
        stock.start(stock.port)
    *_, last = await events(engine, job)
    assert isinstance(last, Video)
    assert len(stock.seen.submitted) == 2 and stock.seen.ran == [CODE]


async def test_a_restart_between_two_questions_is_seen(engine: Duix, stock: StockDuix, job: Animate) -> None:
    async with engine.session(job) as found:
        await anext(found)
        stock.stop()
        stock.start(stock.port)
        with pytest.raises(EngineBroke) as raised:
            [event async for event in found]
    assert raised.value.code == "job_lost"


async def test_a_bad_moment_of_the_engine_is_waited_out(engine: Duix, stock: StockDuix, job: Animate) -> None:
    stock.behaviour.bad_moments = 4
    assert isinstance((await events(engine, job))[-1], Video)
    stock.behaviour.bad_moments = 5
    with pytest.raises(EngineBroke):
        await events(engine, Animate(OTHER, job.audio, job.video))


async def test_a_job_that_is_discarded_leaves_nothing(engine: Duix, stock: StockDuix, job: Animate) -> None:
    await events(engine, job)
    temp = stock.folder / "temp"
    for name in (f"{CODE}_format.mp4", f"{CODE}-t.mp4", f"{CODE}/0001.png", f"{OTHER}.wav"):
        (temp / name).parent.mkdir(exist_ok=True)
        (temp / name).write_bytes(b"x")
    await engine.discard(CODE)
    assert [path.name for path in temp.iterdir()] == [f"{OTHER}.wav"]
    assert job.audio.exists() and job.video.exists()
    await engine.discard(CODE)


async def test_what_an_engine_wrote_after_a_discard_is_removed_in_time(
    engine: Duix, stock: StockDuix, job: Animate
) -> None:
    old, new = stock.folder / "temp" / f"{OTHER}-r.mp4", stock.folder / "temp" / f"{OTHER[:-1]}0-r.mp4"
    foreign = stock.folder / "temp" / "vg-mine.mp4"
    for path in (old, new, foreign):
        path.write_bytes(MP4)
    for path in (old, foreign):
        os.utime(path, (time.time() - 90_000,) * 2)
    await events(engine, job)
    assert not old.exists() and new.exists() and foreign.exists()


async def test_health_says_whether_somebody_answers(engine: Duix, stock: StockDuix) -> None:
    assert (await engine.health()).state is State.READY, "upstream has no /health; that it answers is enough"
    stock.stop()
    assert (await engine.health()).state is State.DOWN
    stock.start(stock.port)


def restarting(
    stock: StockDuix, tmp_path: Path, program: str = "open({mark!r}, 'a').write(sys.argv[1] + chr(10))"
) -> str:
    """A command that notes what it was given."""
    script = tmp_path / "restart.py"
    script.write_text("import sys\n" + program.format(mark=str(tmp_path / "restarts")))
    return f"{sys.executable} {script} {{url}}"


@asynccontextmanager
async def stuck(stock: StockDuix, **settings: Any) -> AsyncIterator[Duix]:
    """Before an adapter that gives an engine up soon."""
    more = {"animate_folder": stock.folder, "animate_poll": 0.01, "animate_stall": 0.05, "animate_urls": (stock.url,)}
    chosen = Settings.model_validate(more | settings)
    async with client(chosen) as http:
        yield Duix(stock.url, http, chosen)


async def until(engine: Duix, state: State) -> str:
    """The reason for it."""
    async with asyncio.timeout(5):
        while (found := await engine.health()).state is not state:
            await asyncio.sleep(0.01)
    return found.reason


class TestAStuckEngine:
    async def test_is_reported_and_taken_up_again_when_it_is_free(self, stock: StockDuix, job: Animate) -> None:
        async with stuck(stock) as engine:
            stock.behaviour.stuck = True
            with pytest.raises(EngineBusy):
                await events(engine, job)
            assert "none of ours; restart it" in await until(engine, State.FAILED)
            stock.behaviour.stuck = False
            await until(engine, State.READY)
            assert isinstance((await events(engine, job))[-1], Video)

    async def test_is_taken_up_again_after_a_restart(self, stock: StockDuix, job: Animate) -> None:
        async with stuck(stock) as engine:
            stock.behaviour.hung = True
            with pytest.raises(EngineTimeout):
                await events(engine, job)
            assert "no progress" in await until(engine, State.FAILED)
            assert not await engine.holds(CODE), "another engine may have it"
            stock.stop()
            await until(engine, State.DOWN)
            stock.behaviour.hung = False
            stock.start(stock.port)
            assert (await engine.health()).state is State.READY
            assert isinstance((await events(engine, job))[-1], Video)

    @pytest.mark.parametrize("fault", ["stuck", "hung"])
    async def test_is_restarted_once_by_the_operators_command(
        self, stock: StockDuix, job: Animate, tmp_path: Path, fault: str
    ) -> None:
        async with stuck(stock, animate_restart=restarting(stock, tmp_path), animate_stall=0.3) as engine:
            setattr(stock.behaviour, fault, True)
            with pytest.raises((EngineBusy, EngineTimeout)):
                await events(engine, job)
            for _ in range(3):
                await until(engine, State.FAILED)
            assert (tmp_path / "restarts").read_text().split() == [stock.url]

    async def test_says_so_when_its_restart_fails(self, stock: StockDuix, job: Animate, tmp_path: Path) -> None:
        command = restarting(stock, tmp_path, "raise SystemExit('no such container\\nand more')")
        async with stuck(stock, animate_restart=command) as engine:
            stock.behaviour.stuck = True
            with pytest.raises(EngineBusy):
                await events(engine, job)
            reason = await until(engine, State.FAILED)
        assert "its restart failed" in reason and "no such container" in reason and "and more" not in reason


class TestSeveralEngines:
    @pytest.fixture
    async def both(self, stock: StockDuix) -> AsyncIterator[list[tuple[StockDuix, Duix]]]:
        """Two that share one folder."""
        with StockDuix(stock.folder) as second:
            urls = (stock.url, second.url)
            chosen = Settings(animate_folder=stock.folder, animate_poll=0.01, animate_stall=0.5, animate_urls=urls)
            async with client(chosen) as http:
                yield [(each, Duix(each.url, http, chosen)) for each in (stock, second)]

    async def test_never_write_the_same_file(self, both: list[tuple[StockDuix, Duix]], job: Animate) -> None:
        made = [(await events(engine, job))[-1] for _, engine in both]
        paths = [video.path for video in made if isinstance(video, Video)]
        assert len(set(paths)) == 2 and all(path.read_bytes() == MP4 for path in paths)
        codes = [stock.seen.submitted[0]["code"] for stock, _ in both]
        assert len({CODE, *codes}) == 3 and all(re.fullmatch("vg-[0-9a-f]{32}", code) for code in codes)
        for _, engine in both:
            await engine.discard(CODE)
        assert not list((both[0][0].folder / "temp").iterdir())

    async def test_only_the_one_that_has_a_job_holds_it(self, both: list[tuple[StockDuix, Duix]], job: Animate) -> None:
        (_, first), (stock, second) = both
        async with second.session(job) as found:
            await anext(found)
            assert [await first.holds(CODE), await second.holds(CODE)] == [False, True]
        await events(second, job)
        assert [await first.holds(CODE), await second.holds(CODE)] == [False, True], "read, and in the folder"
        assert isinstance((await events(second, job))[-1], Video) and len(stock.seen.submitted) == 1

    async def test_an_outcome_that_is_told_once_is_not_lost_by_asking_who_has_it(
        self, both: list[tuple[StockDuix, Duix]], job: Animate
    ) -> None:
        _, (stock, engine) = both
        stock.behaviour.steps, stock.behaviour.error = (0,), "存在多人脸"
        async with engine.session(job) as found:
            await anext(found)
        assert await engine.holds(CODE)
        with pytest.raises(BadRequest, match="存在多人脸"):
            await events(engine, job)
        assert len(stock.seen.submitted) == 1


async def test_a_client_that_waits_does_not_hold_up_the_loop(engine: Duix, job: Animate) -> None:
    waits: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            waits.append(time.monotonic() - before)

    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(tick())
        await events(engine, job)
        ticking.cancel()
    assert sorted(waits)[len(waits) // 2] < 0.05


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (MP4, True),
        (MP4[:-1], False),
        (MP4[: MP4.index(b"moov") - 4], False),
        (MP4 + b"\0", False),
        (b"", False),
        (b"\0\0\0\x01mdat" + (24).to_bytes(8, "big") + b"12345678" + b"\0\0\0\x08moov", True),
        (b"\0\0\0\x08moov\0\0\0\0mdat and whatever is left", True),
        (b"\0\0\0\x02moov", False),
        (b"RIFF\x08\0\0\0AVI 1234", True),
        (b"RIFF\x09\0\0\0AVI 1234", False),
    ],
)
def test_a_file_is_whole_when_its_parts_say_so(tmp_path: Path, content: bytes, whole: bool) -> None:
    path = tmp_path / "film"
    path.write_bytes(content)
    assert duix_files.whole(path) is whole
