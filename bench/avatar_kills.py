"""`python -m bench.avatar_kills`: gateway and engine are killed again and again under videos; every job is counted.

The embedded engine makes tiny ones. A killed process is started again at once. The client repeats what was not
answered, with the same code, as shipped ones do.
"""

import argparse
import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg

from bench.stand import free_port

SECONDS = 0.3
"""Of each recording."""
_AT_A_TIME = 8
_MADE = "a video of"
"""What the engine logs of each."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the jobs."""

    asked: int
    kills: Counter[str]
    ended: Counter[str]
    """Jobs by what is told of them."""
    videos: int
    """Different ones that were downloaded whole."""
    shelf: int
    """Files that are kept as results."""
    left: int
    """Files of jobs that are left in the folders of the engine."""
    made: int
    """Videos that the engine has finished."""
    seconds: float

    @property
    def lost(self) -> int:
        return self.asked - sum(self.ended.values())

    @property
    def doubled(self) -> int:
        return max(self.made, self.shelf) - self.asked if max(self.made, self.shelf) > self.asked else 0

    def __str__(self) -> str:
        killed = ", ".join(f"{number} of the {name}" for name, number in sorted(self.kills.items()))
        ended = ", ".join(f"{number} {name}" for name, number in self.ended.items())
        return (
            f"{self.asked} submits, {sum(self.kills.values())} kill -9 ({killed}), {self.seconds:.0f} s: {ended}; "
            f"{self.lost} lost, {self.doubled} doubled; {self.videos} whole videos downloaded, {self.shelf} kept, "
            f"{self.made} made by the engine, {self.left} files left behind"
        )


class Stand:
    """Gateway and engine as processes of their own, over one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.shared = shared = folder / "shared"
        engine = free_port()
        nobody = f"http://127.0.0.1:{free_port()}"
        settings = {
            "host": "127.0.0.1", "port": self.port, "avatar-port": 0, "data-dir": folder / "data",
            "animate-urls": f"http://127.0.0.1:{engine}", "animate-folder": shared, "animate-poll": 0.05,
            "speak-urls": nobody, "transcribe-urls": nobody, "health-interval": 0.2,
        }  # fmt: skip
        flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        self._commands = {
            "engine": ["-m", "engines.avatar", "--port", str(engine), "--data", str(shared)],
            "gateway": ["-m", "gateway", "serve", *flags],
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        for name in self._commands:
            self._start(name)
        try:
            yield
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()

    def kill(self, name: str) -> None:
        process = self._processes[name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._start(name)

    def results(self) -> Sequence[Path]:
        """Videos so far."""
        return list((self.shared / "results").glob("*.mp4"))

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, *self._commands[name]]
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)


class Client:
    """It asks again until it is answered."""

    def __init__(self, http: httpx.AsyncClient, every: float) -> None:
        """every: seconds between two questions for one job."""
        self._http, self._every = http, every
        self._submitting = asyncio.Semaphore(_AT_A_TIME)

    async def answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        while True:
            with suppress(httpx.TransportError):
                answer = await self._http.request(method, path, **request)
                if answer.status_code != 503:
                    return answer
            await asyncio.sleep(0.1)

    async def upload(self, field: str, path: Path) -> str:
        answer = await self.answered("POST", "/upload", files={field: (path.name, path.read_bytes())})
        return str(answer.json()["path"])

    async def video(self, code: str, audio: str, video: str) -> tuple[int, str]:
        """The status of a job that has ended, and the path of its video."""
        body = {"audio_url": audio, "video_url": video, "code": code}
        async with self._submitting:
            found = (await self.answered("POST", "/easy/submit", json=body)).json()
        assert found["code"] == 10000, found
        while True:
            data = (await self.answered("GET", "/easy/query", params={"code": code})).json()["data"]
            if data["status"] != 1:
                return data["status"], data["result"]
            await asyncio.sleep(self._every)

    async def is_whole(self, path: str) -> bool:
        film = (await self.answered("GET", path)).content
        return film[4:8] == b"ftyp" and b"moov" in film


async def count(folder: Path, jobs: int, kills: int, seed: int) -> Outcome:
    """Asks for so many videos while there are so many kills, spread over all of the time."""
    began = time.monotonic()
    stand, audio, video = Stand(folder), _recording(folder / "a.wav"), _template(folder / "v.mp4")
    with stand.running():
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stand.port}", timeout=60, trust_env=False) as http:
            client = Client(http, every=max(0.2, jobs / 100))
            files = await client.upload("audio", audio), await client.upload("video", video)
            async with asyncio.TaskGroup() as tasks:
                asking = [tasks.create_task(client.video(f"job-{number}", *files)) for number in range(jobs)]
                killing = tasks.create_task(_kill(stand, jobs, kills, random.Random(seed)))
            found = [task.result() for task in asking]
            whole = {path for status, path in found if status == 2 and await client.is_whole(path)}
    ended = Counter({2: "succeeded", 3: "failed"}[status] for status, _ in found)
    left = sum(len(list((stand.shared / name).glob("vg-*"))) for name in ("temp", "inputs"))
    made = stand.log("engine").count(_MADE)
    return Outcome(
        jobs, killing.result(), ended, len(whole), len(stand.results()), left, made, time.monotonic() - began
    )


async def _kill(stand: Stand, jobs: int, kills: int, dice: random.Random) -> Counter[str]:
    killed: Counter[str] = Counter()
    for number in range(kills):
        while len(stand.results()) < jobs * (number + 0.5) / (kills + 1):
            await asyncio.sleep(0.05)
        await asyncio.sleep(dice.uniform(0, 1))
        name = dice.choice(("gateway", "engine"))
        await asyncio.to_thread(stand.kill, name)
        killed[name] += 1
    return killed


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.avatar_kills")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outcome = asyncio.run(count(folder, asked.jobs, asked.kills, asked.seed))
    print(outcome)
    raise SystemExit(bool(outcome.lost or outcome.doubled or outcome.videos != outcome.asked))


# Private


def _recording(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * round(SECONDS * 16_000)))
    return path


def _template(path: Path) -> Path:
    picture = ["-f", "lavfi", "-i", f"testsrc=s=64x48:r=25:d={SECONDS}", "-pix_fmt", "yuv420p"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *picture, str(path)], check=True)
    return path


if __name__ == "__main__":
    main()
