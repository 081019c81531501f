"""What the embedded digital human makes, looked at frame by frame."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from engines.avatar.animation import Plan, animate
from engines.avatar.ffmpeg import Failed

from .media import film, recording, template


def plan(folder: Path, audio: Path, video: Path, *, ping_pong: bool = True, cue: bool = False) -> Plan:
    work = folder / "work"
    work.mkdir()
    return Plan(audio, video, folder / "made.mp4", work, ping_pong=ping_pong, cue=cue)


async def test_the_video_is_as_long_as_the_recording_and_has_both_streams(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 4.3), template(tmp_path / "v.mkv")
    told: list[float] = []
    assert await animate(plan(tmp_path, audio, video), told.append) == pytest.approx(4.3, abs=0.001)
    made = film(tmp_path / "made.mp4")
    assert made.codecs[0] in ("h264", "libx264") and made.codecs[1] == "aac"
    assert made.seconds == pytest.approx(4.3, abs=1.1 / 25)
    assert made.sound_seconds == pytest.approx(4.3, abs=0.05)
    assert told == sorted(told) and told[-1] <= 99


async def test_the_sound_is_the_recording(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 2.0), template(tmp_path / "v.mkv")
    await animate(plan(tmp_path, audio, video), lambda _: None)
    made = film(tmp_path / "made.mp4")
    half = made.sound[made.sound_rate // 2 : made.sound_rate]
    spectrum = np.abs(np.fft.rfft(half * np.hanning(len(half))))
    assert np.argmax(spectrum) * made.sound_rate / len(half) == pytest.approx(440, abs=3)


async def test_the_template_is_played_forward_and_backward(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 3.2), template(tmp_path / "v.mkv", 1.6)
    await animate(plan(tmp_path, audio, video), lambda _: None)
    brightness = np.array(film(tmp_path / "made.mp4").brightness)
    assert (np.diff(brightness[:39]) >= 0).all(), "brighter and brighter"
    assert (np.diff(brightness[41:79]) <= 0).all(), "then back the same way"
    assert np.abs(brightness[:40] - brightness[40:80][::-1]).max() < 6


async def test_the_template_can_be_played_from_its_start_again(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 3.2), template(tmp_path / "v.mkv", 1.6)
    await animate(plan(tmp_path, audio, video, ping_pong=False), lambda _: None)
    brightness = np.array(film(tmp_path / "made.mp4").brightness)
    assert np.abs(brightness[:40] - brightness[40:80]).max() < 6


async def test_of_a_long_template_only_what_is_needed_is_used(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 0.7), template(tmp_path / "v.mkv", 3.0)
    await animate(plan(tmp_path, audio, video), lambda _: None)
    assert film(tmp_path / "made.mp4").seconds == pytest.approx(0.7, abs=1.1 / 25)
    assert not list((tmp_path / "work").glob("back*")), "nothing was turned around"


async def test_a_bar_shows_how_loud_it_is_where_it_is_wanted(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 2.0), template(tmp_path / "v.mkv", 2.0, "320x180")
    await animate(plan(tmp_path, audio, video), lambda _: None)
    plain = film(tmp_path / "made.mp4")
    (tmp_path / "second").mkdir()
    await animate(plan(tmp_path / "second", audio, video, cue=True), lambda _: None)
    barred = film(tmp_path / "second" / "made.mp4")
    assert barred.seconds == plain.seconds
    differs = np.abs(np.array(barred.bottom) - np.array(plain.bottom))
    assert differs[-10:].mean() > 10


@pytest.mark.parametrize(
    ("audio", "video", "words"),
    [(b"no sound at all", None, ""), (None, b"no video at all", ""), (b"", None, "")],
)
async def test_what_cannot_be_read_fails_with_words_and_leaves_no_video(
    tmp_path: Path, audio: bytes | None, video: bytes | None, words: str
) -> None:
    sound, picture = recording(tmp_path / "a.wav"), template(tmp_path / "v.mkv")
    for path, content in ((sound, audio), (picture, video)):
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(Failed) as raised:
        await animate(plan(tmp_path, sound, picture), lambda _: None)
    assert str(raised.value) and str(tmp_path) not in str(raised.value)
    assert not (tmp_path / "made.mp4").exists()


async def test_cancelled_it_leaves_no_process_and_no_video(tmp_path: Path) -> None:
    audio, video = recording(tmp_path / "a.wav", 60), template(tmp_path / "v.mkv", 3)
    begun = asyncio.Event()
    task = asyncio.ensure_future(animate(plan(tmp_path, audio, video), lambda _: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "made.mp4").exists()
    running = [one for one in Path("/proc").glob("[0-9]*/cwd") if _points_to(one, tmp_path / "work")]
    assert not running


def _points_to(link: Path, folder: Path) -> bool:
    try:
        return link.readlink() == folder
    except OSError:
        return False
