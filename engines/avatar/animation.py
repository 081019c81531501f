"""A template video under a recording, for exactly as long as the recording: H.264 and AAC in an MP4.

The template becomes segments of a second, each is turned around by itself, and a list of them, forward and backward by
turns, is joined as it is. So the memory does not grow with the template, and each of its frames is encoded twice at
most, however long the recording.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

from engines.avatar.ffmpeg import Failed, run

SEGMENT_SECONDS = 1
MOST_PIXELS = 1920
"""Longest side of the video; a larger template is made smaller."""
MOST_FRAMES = 60
"""A second."""
_RATE = 48_000
"""Hz of the sound."""
_ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-bf", "0")
_BAR_HEIGHT = 24
"""Pixels of the level bar."""


@dataclass(frozen=True, slots=True)
class Plan:
    audio: Path
    video: Path
    into: Path
    """The MP4; whole or absent."""
    work: Path
    """An empty folder for what is made on the way."""
    ping_pong: bool = True
    cue: bool = False
    """Whether a bar shows how loud it is."""


async def animate(plan: Plan, told: Callable[[float], None]) -> float:
    """Makes the video; gives its seconds. told: percent. Raises Failed."""
    sound = plan.work / "sound.wav"
    await run(
        ["-i", f"file:{plan.audio}", "-map", "0:a:0", "-ac", "1", "-ar", str(_RATE), "-f", "wav", f"file:{sound}"],
        plan.work,
        lambda _: None,
    )
    seconds = (sound.stat().st_size - 44) / 2 / _RATE
    if seconds <= 0:
        raise Failed("the recording holds no sound")
    told(5)
    forward = await _segments(plan, seconds, lambda done: told(5 + 55 * min(1, done / seconds)))
    length = sum(length for _, length in forward)
    backward = []
    if plan.ping_pong and length < seconds:
        for number, (name, each) in enumerate(reversed(forward)):
            turned = f"back{number:06d}.mp4"
            await run(["-i", name, "-vf", "reverse", *_ENCODER, turned], plan.work, lambda _: None)
            backward.append((turned, each))
            told(60 + 20 * (number + 1) / len(forward))
    (plan.work / "list.txt").write_text("".join(_listed([*forward, *backward], seconds)))
    await _join(plan, sound, seconds, lambda done: told(80 + 19 * min(1, done / seconds)))
    return seconds


# Private


async def _segments(plan: Plan, seconds: float, told: Callable[[float], None]) -> list[tuple[str, float]]:
    """The template, as much of it as is needed: names of files, and their seconds."""
    smaller = f"scale='min({MOST_PIXELS},iw)':'min({MOST_PIXELS},ih)':force_original_aspect_ratio=decrease"
    await run(
        [
            "-i", f"file:{plan.video}", "-map", "0:v:0", "-an", "-sn", "-dn", "-t", f"{math.ceil(seconds)}",
            "-fps_mode", "cfr", "-fpsmax", str(MOST_FRAMES),
            "-vf", f"{smaller},scale=trunc(iw/2)*2:trunc(ih/2)*2,setsar=1", *_ENCODER,
            "-force_key_frames", f"expr:gte(t,n_forced*{SEGMENT_SECONDS})",
            "-f", "segment", "-segment_time", str(SEGMENT_SECONDS), "-reset_timestamps", "1",
            "-segment_list", "segments.csv", "-segment_list_type", "csv", "segment%06d.mp4",
        ],
        plan.work,
        told,
    )  # fmt: skip
    found = []
    for line in (plan.work / "segments.csv").read_text().splitlines():
        name, start, end = line.split(",")
        if float(end) > float(start):
            found.append((name, float(end) - float(start)))
    if not found:
        raise Failed("the video holds no picture")
    return found


def _listed(round_trip: list[tuple[str, float]], seconds: float) -> Iterator[str]:
    """Lines for ffmpeg's concat demuxer, until there is a little more than enough."""
    yield "ffconcat version 1.0\n"
    length, at = 0.0, 0
    while length < seconds + SEGMENT_SECONDS:
        name, each = round_trip[at % len(round_trip)]
        yield f"file {name}\n"
        length, at = length + each, at + 1


async def _join(plan: Plan, sound: Path, seconds: float, told: Callable[[float], None]) -> None:
    part = plan.work / "whole.mp4"
    picture = ["-map", "0:v:0", "-c:v", "copy"]
    if plan.cue:
        width = await _width(plan.work / "segment000000.mp4")
        bar = f"showvolume=r=25:w={width}:h={_BAR_HEIGHT}:f=0:b=0:t=0:v=0:ds=log,format=yuv420p"
        picture = [
            "-filter_complex",
            f"[1:a]{bar}[bar];[0:v][bar]overlay=0:H-h:shortest=0[v]",
            "-map",
            "[v]",
            *_ENCODER,
        ]
    await run(
        [
            "-f", "concat", "-safe", "1", "-i", "list.txt", "-i", sound.name, *picture, "-map", "1:a:0",
            "-c:a", "aac", "-b:a", "128k", "-t", f"{seconds:.6f}", "-movflags", "+faststart", part.name,
        ],
        plan.work,
        told,
    )  # fmt: skip
    part.replace(plan.into)


async def _width(path: Path) -> int:
    """Pixels of a video of ours."""
    found = re.search(r"\d+", str(next(imageio_ffmpeg.read_frames(str(path)))["size"]))
    assert found is not None
    return int(found[0])
