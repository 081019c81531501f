"""What the limits cost: the bare ffmpeg command against Decoder.to_wav, with keep_best on top, and what is known.

`python -m bench.normalise [runs]`. Medians of interleaved runs, so that a busy machine slows all alike.
"""

import asyncio
import hashlib
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

from gateway.database import open_database
from gateway.files import Files
from gateway.normalise import Decoder
from gateway.reference import keep_best
from gateway.settings import Settings
from gateway.voices import Voices

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
LIMIT = 1.3
REPEATED_MS = 3.0
"""An upload seen before: its hash, and what was kept of it."""
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
    settings = Settings(data_dir=folder / "data")
    async with open_database(settings) as database:
        return await compare(runs, folder, settings, Voices(database, Files(settings)))


async def compare(runs: int, folder: Path, settings: Settings, voices: Voices) -> bool:
    decoder = Decoder(settings)
    into = folder / "out.wav"

    async def command(source: Path) -> None:
        bare(source, into)

    async def decoded(source: Path) -> None:
        await decoder.to_wav(source, into, max_seconds=600)

    async def kept(source: Path) -> None:
        await keep_best(await decoder.to_wav(source, into, max_seconds=600), settings)

    async def repeated(source: Path) -> None:
        digest = await asyncio.to_thread(lambda: hashlib.sha256(source.read_bytes()).hexdigest())
        if await voices.known(digest) is None:
            await voices.add("device", source.name, await keep_best(recording, settings), 16000, digest)

    recording = await decoder.to_wav(folder / CLIPS[0], folder / "kept.wav", max_seconds=600)
    ways = (command, decoded, kept, repeated)
    heads = ("bare", "to_wav", "+ keep_best", "repeated")
    print(f"{'ms, median of ' + str(runs):18}" + "".join(f"{head:>13}" for head in heads) + f"{'ratio':>8}{'ratio':>8}")
    good = True
    for name in CLIPS:
        times = await medians(runs, [partial(way, folder / name) for way in ways])
        first, second = times[1] / times[0], times[2] / times[0]
        print(f"{name:18}" + "".join(f"{spent:13.2f}" for spent in times) + f"{first:8.2f}{second:8.2f}")
        good = good and second <= LIMIT and times[3] < REPEATED_MS
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
