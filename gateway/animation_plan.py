"""A talking video as it is asked for, as its job keeps it, and as it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway import webhooks
from gateway.jobs import Job, State, Submission
from gateway.wire import duix


@dataclass(frozen=True, slots=True)
class Wanted:
    """A video that is asked for."""

    code: str
    """The client's name of the job; the same again, of the same tenant, is the same job."""
    audio: Path
    video: Path
    ping_pong: bool = True
    super_resolution: bool = False
    watermark: bool = False
    beside: str = ""
    """Name in the folder temp under which the video is wanted as well, for clients that share the folder."""
    notify: str = ""
    """A URL that is told the outcome; whoever asks has checked it."""
    base: str = ""
    """What comes before a path of this gateway, for whoever is told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job keeps of it."""

    code: str
    result: str
    """Name of the video on the shelf."""
    ping_pong: bool
    super_resolution: bool
    watermark: bool
    beside: str
    seconds: float
    """Of the recording."""
    key: str
    """Id of the key that asked for it."""
    notify: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    job: Job
    percent: float
    """Below 100 until it has succeeded."""
    place: int
    """In the queue, from 1; 0 where it does not wait."""
    seconds: float
    """Until it is done, an estimate; 0 where it has ended."""

    @property
    def result(self) -> str:
        """Name of the video on the shelf; empty until it is there."""
        return plan_of(self.job).result if self.job.state is State.SUCCEEDED else ""

    @property
    def beside(self) -> str:
        """Its name in the folder temp, where it was wanted there."""
        return plan_of(self.job).beside


def plan_of(job: Job) -> Plan:
    return Plan(**job.payload)


def follows(job: Job) -> Sequence[Submission]:
    """The call of its webhook."""
    plan = plan_of(job)
    if not plan.notify:
        return ()
    if job.state is not State.SUCCEEDED:
        ended = duix.Job(duix.State.FAILED, text=job.error or "cancelled")
        return [webhooks.call(plan.notify, duix.told(ended, code=job.key or ""), job)]
    done = duix.Job(duix.State.DONE, 100, f"/{plan.result}", "done")
    facts = {"video_duration": job.result["seconds"], "width": job.result["width"], "height": job.result["height"]}
    told = duix.told(done, code=job.key or "", url=f"{plan.base}/{plan.result}", **facts)
    return [webhooks.call(plan.notify, told, job)]
