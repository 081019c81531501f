"""What the limits cost: the bare ffmpeg command against Decoder.to_wav, and with keep_best on top.

`python -m bench.normalise [runs]`. Medians of interleaved runs, so that a busy machine slows all three alike.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import uvloop

from gateway.normalise import Decoder
from gateway.reference import keep_best
from gateway.settings import Settings

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
LIMIT = 1.3
CLIPS = ("clip.wav", "clip.mp3", "clip.m4a")


def make(folder: Path) -> None:
    """Ten seconds of hiss with the rhythm of speech, 44.1 kHz stereo."""
    time_line = np.arange(441_000) / 44_100
    rhythm = np.maximum(np.sin(2 * np.pi * 2 * time_line), 0) * (np.sin(2 * np.pi * 0.3 * time_line) > -0.7)
    sound = np.random.default_rng(1).standard_normal((441_000, 2)) * 3000 * rhythm[:, None]
    raw = ["-f", "s16le", "-ar", "44100", "-ac", "2", "-i", "-"]
    outputs = [word for name in CLIPS for word in ("-b:a", "128k", str(folder / name))]
    command = [FFMPEG, "-y", "-v", "error", *raw, *outputs]
    subprocess.run(command, input=sound.astype("<i2").tobytes(), check=True)


def bare(source: Path, into: Path) -> None:
    command = [FFMPEG, "-y", "-v", "error", "-i", str(source), "-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le"]
    subprocess.run([*command, str(into)], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


async def measure(runs: int, folder: Path) -> bool:
    settings = Settings()
    decoder = Decoder(settings)
    into = folder / "out.wav"

    async def command(source: Path) -> None:
        bare(source, into)

    async def decoded(source: Path) -> None:
        await decoder.to_wav(source, into, max_seconds=600)

    async def kept(source: Path) -> None:
        await keep_best(await decoder.to_wav(source, into, max_seconds=600), settings)

    ways = (command, decoded, kept)
    print(f"{'ms, median of ' + str(runs):18}{'bare':>8}{'to_wav':>8}{'+ keep_best':>13}{'ratio':>8}{'ratio':>8}")
    good = True
    for name in CLIPS:
        times = await medians(runs, [partial(way, folder / name) for way in ways])
        first, second = times[1] / times[0], times[2] / times[0]
        print(f"{name:18}{times[0]:8.1f}{times[1]:8.1f}{times[2]:13.1f}{first:8.2f}{second:8.2f}")
        good = good and second <= LIMIT
    return good


async def medians(runs: int, ways: list[Callable[[], Awaitable[None]]]) -> list[float]:
    times: list[list[float]] = [[] for _ in ways]
    for run in range(runs + 2):
        for turn in range(len(ways)):
            at = (run + turn) % len(ways)
            start = time.perf_counter()
            await ways[at]()
            times[at].append((time.perf_counter() - start) * 1000)
    return [statistics.median(spent[2:]) for spent in times]  # the first two warm the caches


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        good = uvloop.run(measure(runs, Path(folder)))
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"to_wav and keep_best together: {'within' if good else 'OVER'} {LIMIT} times the bare command; {load}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
