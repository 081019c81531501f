"""The digital human by an engine that speaks Duix-Avatar's protocol: upstream's server, or ours.

Upstream's takes one job at a time and says `busy` with success; tells an outcome once, and forgets it then, and in a
restart; calls a job done before its file is; sends JSON as HTML; and never ends a job. So an outcome that nobody was
told is read from the folder, and `done` means that the file is whole.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.adapters.duix_files import Folder, checked
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineError, EngineTimeout
from gateway.events import Animated, Rendering, Video
from gateway.settings import Settings
from gateway.verbs import Animate, Animator, EngineHealth
from gateway.verbs import State as EngineState
from gateway.wire import duix as wire
from gateway.wire.duix import Code, Job, State

_ANSWER_BYTES = 64 * 1024
_JSON = b"content-type: application/json\r\n"
_ASK_SECONDS = 30.0
"""Upstream's server answers one request after the other, and a submission may take a while."""
_UNREADABLE = 5
"""Answers in a row that are none; then the engine has broken."""


class Duix:
    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        self.url = url.rstrip("/")
        self._http, self._folder = http, Folder(settings.animation)
        self._poll, self._stall = settings.animate_poll, settings.animate_stall
        self._busy_since: float | None = None
        """Loop time since which it has said that it is busy, and nothing else."""

    @asynccontextmanager
    async def session(self, job: Animate) -> AsyncIterator[AsyncIterator[Animated]]:
        """Raises EngineBusy where another job runs there, whosever it is."""
        known = await self._query(job.code)
        if known is None and await asyncio.to_thread(self._folder.made, job.code) is None:
            await self._submit(job)
            known = Job(State.RUNNING)
        async with aclosing(self._follow(job.code, known)) as events:
            yield events

    async def holds(self, code: str) -> bool:
        try:
            return await self._query(code) is not None
        except EngineError:
            return False

    async def health(self) -> EngineHealth:
        found = await engine_http.health(self._http, self.url)
        busy = 0.0 if self._busy_since is None else asyncio.get_running_loop().time() - self._busy_since
        if found.state is not EngineState.READY or busy < self._stall:
            return found
        reason = f"busy for {busy:.0f} s with a video that is none of ours; restart it"
        return EngineHealth(EngineState.FAILED, found.model, found.device, reason)

    async def discard(self, code: str) -> None:
        """Upstream knows no such request: its job runs on, into a file that is removed with the next job's."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await engine_http.ask(self._http, self.url, _address(code), b"DELETE")
        except (EngineError, TimeoutError):
            pass
        await asyncio.to_thread(self._folder.discard, code)

    # Private

    async def _submit(self, job: Animate) -> None:
        audio, video = await asyncio.to_thread(self._folder.place, job.code, job.audio, job.video)
        asked = wire.Submit(audio, video, job.code, job.super_resolution, job.watermark, job.ping_pong)
        async with _in_time():
            post = engine_http.Post(self._http, self.url, wire.SUBMIT, _JSON, [wire.submission(asked)])
            async with post as answer:
                said = _read(await answer.body(_ANSWER_BYTES))
        if said.code == Code.BUSY:
            self._busy_since = self._busy_since or asyncio.get_running_loop().time()
            raise EngineBusy("the engine is busy with another video", retry_after=10)
        self._busy_since = None
        if said.code == Code.PARAMETER:
            raise BadRequest(said.text or "the engine does not take this job", code="engine_refused", quotes=True)
        if said.code not in (Code.OK, Code.DUPLICATE):
            raise EngineBroke(f"the engine did not take the job: {said.text or said.code}", quotes=True)

    async def _follow(self, code: str, known: Job | None) -> AsyncGenerator[Animated]:
        """Raises EngineTimeout where it makes no progress, BadRequest(code="animation_failed") where the engine says
        that it failed, and EngineBroke(code="job_lost") where the engine knows nothing of it any more."""
        loop = asyncio.get_running_loop()
        percent, since = -1.0, loop.time()
        while True:
            if (video := await self._made(code, known)) is not None:
                yield Video(video)
                return
            if known is None:
                raise EngineBroke("the engine has forgotten the job", code="job_lost")
            if known.state is State.FAILED:
                reason = known.text or "it does not say why"
                raise BadRequest(f"the engine could not make the video: {reason}", code="animation_failed", quotes=True)
            if known.progress > percent:
                percent, since = known.progress, loop.time()
                yield Rendering(min(99.0, percent))
            if loop.time() - since > self._stall:
                raise EngineTimeout(f"the engine has made no progress for {self._stall:g} s", code="engine_stuck")
            await asyncio.sleep(self._poll)
            known = await self._query(code) or (known if known.state is State.DONE else None)

    async def _made(self, code: str, known: Job | None) -> Path | None:
        """The video, where the job is not known to be running: while it is, its file is still being written."""
        if known is not None and known.state is not State.DONE:
            return None
        return await asyncio.to_thread(self._folder.made, code, known.result if known else "")

    async def _query(self, code: str) -> Job | None:
        """None where the engine knows no such job. Raises EngineError."""
        for _ in range(_UNREADABLE):
            async with _in_time():
                _, body = await engine_http.ask(self._http, self.url, _address(code))
            said = _read(body)
            if said.code == Code.UNKNOWN:
                return None
            try:
                return wire.job_of(said.data)
            except ValueError:  # 9999, 10002, 10003: it had a bad moment
                await asyncio.sleep(self._poll)
        raise EngineBroke("the engine does not say how the job is")


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            yield
    except TimeoutError:
        raise EngineTimeout(f"the engine has said nothing for {_ASK_SECONDS:g} s") from None


def _address(code: str) -> str:
    return f"{wire.QUERY}?code={quote(checked(code))}"


def _read(body: bytes) -> wire.Answer:
    try:
        return wire.read_answer(body)
    except ValueError:
        raise EngineBroke("the engine's answer is not of Duix's protocol") from None


_: type[Animator] = Duix
