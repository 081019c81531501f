"""The digital human's adapter before a stock Duix server, faults included, and before ours."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

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
