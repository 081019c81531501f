"""The jobs of one engine: one at a time, their outcomes kept in memory, their videos in the folder."""

import asyncio
import logging
import re
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.avatar.animation import Plan, animate
from engines.avatar.ffmpeg import Failed
from gateway.wire.duix import Job, State, Submit

log = logging.getLogger(__name__)
MOST_OUTCOMES = 1000
"""Remembered; the oldest go first."""
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Busy(Exception):
    """Another job runs."""


class Refused(Exception):
    """The job cannot be taken; the words are for whoever submitted it."""


@dataclass(slots=True)
class _Entry:
    job: Job
    task: asyncio.Task[None] | None = None


class Jobs:
    def __init__(self, folder: Path, *, cue: bool) -> None:
        """folder: shared with whoever submits, upstream's /code/data; inputs and videos are in its temp."""
        self._folder, self._cue = folder.resolve(), cue
        self._temp = self._folder / "temp"
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Scope of the jobs; leaving it ends the one that runs."""
        await asyncio.to_thread(self._temp.mkdir, parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as self._tasks:
            yield
            for entry in self._entries.values():
                if entry.task is not None:
                    entry.task.cancel()

    @property
    def busy(self) -> bool:
        return any(entry.job.state is State.RUNNING for entry in self._entries.values())

    def submit(self, asked: Submit) -> None:
        """Begins it; nothing where it has been submitted before and has not failed. Raises Busy, Refused."""
        known = self._entries.get(asked.code)
        if known is not None and known.job.state is not State.FAILED:
            return
        if self.busy:
            raise Busy
        if not _CODE.fullmatch(asked.code):
            raise Refused("code: letters, digits, - and _, at most 100 of them")
        audio, video = (
            self._input(name, field) for name, field in ((asked.audio, "audio_url"), (asked.video, "video_url"))
        )
        entry = _Entry(Job(State.RUNNING, 0))
        self._entries[asked.code] = entry
        self._entries.move_to_end(asked.code)
        while len(self._entries) > MOST_OUTCOMES:
            self._entries.popitem(last=False)
        entry.task = self._tasks.create_task(self._run(entry, asked, audio, video))

    def find(self, code: str) -> Job | None:
        entry = self._entries.get(code)
        return None if entry is None else entry.job

    async def cancel(self, code: str) -> bool:
        """Ends it where it runs; gives whether it did. Then it has failed."""
        entry = self._entries.get(code)
        if entry is None or entry.task is None or entry.job.state is not State.RUNNING:
            return False
        entry.task.cancel()
        await asyncio.wait([entry.task])
        return True

    # Private

    def _input(self, name: str, field: str) -> Path:
        """A file below the folder. Raises Refused."""
        if "://" in name:
            raise Refused(f"{field}: this engine fetches nothing; give a file in its folder")
        path = (self._temp / name).resolve()  # an absolute path replaces the folder
        if not path.is_relative_to(self._folder):
            raise Refused(f"{field}: outside the engine's folder")
        if not path.is_file():
            raise Refused(f"{field}: there is no such file")
        return path

    async def _run(self, entry: _Entry, asked: Submit, audio: Path, video: Path) -> None:
        started, name = time.monotonic(), f"{asked.code}-r.mp4"
        work = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._temp, prefix=f"{asked.code}-"))

        def told(percent: float) -> None:
            entry.job = Job(State.RUNNING, min(99.0, percent))

        try:
            plan = Plan(audio, video, self._temp / name, work, ping_pong=asked.ping_pong, cue=self._cue)
            seconds = await animate(plan, told)
        except asyncio.CancelledError:
            entry.job = Job(State.FAILED, text="cancelled")
            raise
        except Failed as exc:
            entry.job = Job(State.FAILED, text=str(exc))
        except Exception:
            log.exception("a job failed")
            entry.job = Job(State.FAILED, text="the engine failed on this job")
        else:
            entry.job = Job(State.DONE, 100, f"/{name}")
            log.info("a video of %.1f s took %.1f s", seconds, time.monotonic() - started)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))
