"""Talking videos as jobs: accepted once the files are known to be good, made one after the other, read at any time.

`upload → probe → job → normalise → engine → probe → shelf`.

Rule 1: what reaches an engine is named by us; what a client calls its job is a key in the table of jobs, no more.
Rule 2: a job has its own links to its inputs, so that no sweep of uploads takes them away.
Rule 3: a video is on the shelf before its job has succeeded, under a name that the job was submitted with.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, cast

import structlog

from gateway import caller, cleanup
from gateway.access import Access
from gateway.admission import Gate
from gateway.animation_plan import Plan, Status, Wanted, follows, plan_of
from gateway.caller import Right
from gateway.errors import CallerError, EngineBroke, GatewayError, NotFound, QuotaUsed
from gateway.events import Animated, Rendering
from gateway.jobs import Job, Jobs, Kind, State, Submission
from gateway.normalise import Decoder
from gateway.probe import Media, MediaRejected, Prober
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.shelf import Shelf, new_name
from gateway.verbs import Animate, Animator

log = structlog.get_logger(__name__)
KIND = "avatar"
_SECONDS = 60.0
"""That a video is estimated to take as long as none was made."""
_SMOOTHING = 0.3


class Animations:
    """One of the process."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        access: Access,
        animate: Replicas[Animate, Animated],
        decoder: Decoder,
        decoding: Gate,
        scratch: Path,
        incoming: Path,
    ) -> None:
        self._settings, self._jobs, self._access, self._animate = settings, jobs, access, animate
        self._prober, self._decoder = Prober(settings), decoder
        self._decoding, self._scratch = decoding, scratch
        folder = settings.animation.absolute()
        self._inputs, self.temp = folder / "inputs", folder / "temp"
        self.incoming = incoming
        """Where uploads are received."""
        self.uploads, self.results = (
            Shelf(folder / name, ttl=settings.avatar_ttl, most_bytes=settings.avatar_most_bytes)
            for name in ("uploads", "results")
        )
        self._percent: dict[str, float] = {}
        """By job, as far as it was ever: another try begins at the beginning, and its client need not see that."""
        self._pace: float | None = None
        """Seconds that a video took, smoothed."""

    def kind(self) -> Kind:
        slots = len(self._settings.animate_urls)
        queue = self._settings.avatar_queue
        return Kind(KIND, self._work, slots=slots, queue=queue, follows=follows, remove=self._remove)

    async def submit(self, wanted: Wanted) -> Job:
        """The job, which may have been there. Raises MediaRejected, QuotaUsed, EngineBusy where too many wait."""
        asking = caller.current()
        if (known := await self._jobs.find(KIND, asking.tenant, wanted.code)) is not None:
            return known
        seconds = await self._check(wanted)
        asking.afford(seconds)
        plan = Plan(
            f"vg-{secrets.token_hex(16)}",
            new_name(".mp4"),
            wanted.ping_pong,
            wanted.super_resolution,
            wanted.watermark,
            wanted.beside,
            seconds,
            asking.key_id,
            wanted.notify,
            wanted.base,
        )
        await asyncio.to_thread(self._link, plan, wanted)
        try:
            job_id = await self._jobs.submit(Submission(KIND, asdict(plan), asking.tenant, wanted.code))
        except GatewayError:
            await asyncio.to_thread(self._unlink, plan)
            raise
        job = await self._jobs.get(job_id)
        assert job is not None
        if plan_of(job) != plan:  # another request was quicker
            await asyncio.to_thread(self._unlink, plan)
        return job

    async def status(self, code: str) -> Status:
        """Of a job of whoever asks. Raises NotFound."""
        job = await self._jobs.find(KIND, caller.tenant(), code)
        if job is None:
            raise NotFound("there is no such job", code="job_not_found")
        return (await self._statuses([job]))[0]

    async def listed(self, most: int = 100) -> Sequence[Status]:
        """Those of whoever asks, the newest first."""
        return await self._statuses(await self._jobs.newest(KIND, caller.tenant(), most))

    async def cancel(self, code: str) -> bool:
        """Whether it had not ended yet. Raises NotFound."""
        return await self._jobs.cancel((await self.status(code)).job.id)

    def shared(self, name: str) -> Path | None:
        """A file of a client that shares the folder temp; blocks. None where there is none, or nobody may."""
        path = self.temp / PurePosixPath(name).name
        allowed = self._settings.avatar_shared and not path.name.startswith("vg-")
        return path if allowed and path.is_file() and not path.is_symlink() else None

    async def sweep(self) -> None:
        await self.uploads.sweep()
        await self.results.sweep()

    # Private: what is asked

    async def _check(self, wanted: Wanted) -> float:
        """Seconds of the recording. Raises MediaRejected."""
        sound, face = await self._probe(wanted.audio), await self._probe(wanted.video)
        most, side = self._settings.avatar_max_seconds, self._settings.avatar_max_side
        if not sound.sound:
            raise MediaRejected("the recording holds no sound", code="media_no_sound")
        if face.picture is None:
            raise MediaRejected("the video holds no picture", code="media_no_picture")
        if max(sound.seconds, face.picture.seconds) > most:
            raise MediaRejected(f"recording and video may last {most:g} s at most", code="media_too_long")
        if max(face.picture.width, face.picture.height) > side:
            raise MediaRejected(f"the video is larger than {side} pixels", code="media_too_large")
        return sound.seconds

    async def _probe(self, path: Path) -> Media:
        async with self._decoding.enter():
            return await self._prober.media(path)

    async def _statuses(self, jobs: Sequence[Job]) -> list[Status]:
        waiting = [job for job in jobs if job.state is State.WAITING]
        places = await self._jobs.places(KIND, waiting) if waiting else {}
        return [self._status(job, places.get(job.id, 0)) for job in jobs]

    def _status(self, job: Job, place: int) -> Status:
        percent = self._percent.get(job.id, 0.0)
        pace = self._pace or _SECONDS
        if job.state.ended:
            self._percent.pop(job.id, None)
            return Status(job, 100.0 if job.state is State.SUCCEEDED else percent, 0, 0.0)
        if job.state is State.RUNNING:
            return Status(job, percent, 0, pace * (1 - percent / 100))
        return Status(job, percent, place, pace * (1 + place / len(self._settings.animate_urls)))

    # Private: what is done

    async def _work(self, job: Job) -> dict[str, Any]:
        plan, loop = plan_of(job), asyncio.get_running_loop()
        begun = loop.time()
        with self._access.on_behalf(plan.key) as asking:
            facts = await self._finished(job, plan)
            with suppress(QuotaUsed):
                asking.charge(Right.ANIMATE, plan.seconds)
        took = loop.time() - begun
        self._pace = took if self._pace is None else self._pace + _SMOOTHING * (took - self._pace)
        return facts

    async def _finished(self, job: Job, plan: Plan) -> dict[str, Any]:
        """What is to be known of its video, which is on the shelf then."""
        try:
            kept = await self.results.find(plan.result)  # killed right behind the shelf
        except NotFound:
            facts = await self._put(job, plan)
        else:
            facts = await self._facts(kept.path)
        await self._discard(plan)
        return facts

    async def _put(self, job: Job, plan: Plan) -> dict[str, Any]:
        async with cleanup.workspace(self._scratch) as work:
            video = await self._made(job.id, plan, work)
            facts = await self._facts(video)
            if plan.beside:
                await asyncio.to_thread(shutil.copyfile, video, self.temp / plan.beside)
            await self.results.put_as(video, plan.result)
        return facts

    async def _made(self, job_id: str, plan: Plan, work: Path) -> Path:
        audio, video = self._inputs / f"{plan.code}.audio", self._inputs / f"{plan.code}.video"
        async with self._decoding.enter():
            recording = await self._decoder.to_wav(
                audio, work / "audio.wav", max_seconds=self._settings.avatar_max_seconds
            )
        asked = Animate(plan.code, recording.path, video, plan.ping_pong, plan.super_resolution, plan.watermark)
        async with self._animate.session(asked, at=await self._holder(asked)) as events:
            async for event in events:
                if not isinstance(event, Rendering):
                    return event.path
                self._percent[job_id] = max(event.percent, self._percent.get(job_id, 0.0))
        raise EngineBroke("the engine gave no video")

    async def _holder(self, asked: Animate) -> Animator | None:
        """The engine that has the job already, from before this process was restarted."""
        for replica in self._animate.members:
            engine = cast(Animator, replica.engine)
            if await engine.holds(asked.code):
                return engine
        return None

    async def _facts(self, video: Path) -> dict[str, Any]:
        """Raises EngineBroke for a video that is none."""
        try:
            found = await self._probe(video)
        except CallerError as exc:
            raise EngineBroke(f"the engine's video cannot be used: {exc}") from exc
        if found.picture is None or not found.sound:
            raise EngineBroke("the engine's video has no picture, or no sound")
        return {"seconds": found.picture.seconds, "width": found.picture.width, "height": found.picture.height}

    async def _remove(self, job: Job) -> None:
        """Of a job that has failed or was cancelled, or is forgotten."""
        plan = plan_of(job)
        self._percent.pop(job.id, None)
        await self._discard(plan)
        await self.results.delete(plan.result)
        if plan.beside:
            await asyncio.to_thread((self.temp / plan.beside).unlink, missing_ok=True)

    async def _discard(self, plan: Plan) -> None:
        for replica in self._animate.members:
            await cast(Animator, replica.engine).discard(plan.code)
        await asyncio.to_thread(self._unlink, plan)

    # Private, and in a thread

    def _link(self, plan: Plan, wanted: Wanted) -> None:
        self._inputs.mkdir(parents=True, exist_ok=True)
        for source, name in ((wanted.audio, "audio"), (wanted.video, "video")):
            target = self._inputs / f"{plan.code}.{name}"
            try:
                os.link(source, target)
            except OSError:  # another file system
                shutil.copyfile(source, target)

    def _unlink(self, plan: Plan) -> None:
        for name in ("audio", "video"):
            (self._inputs / f"{plan.code}.{name}").unlink(missing_ok=True)
