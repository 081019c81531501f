"""The digital human by an engine that speaks Duix-Avatar's protocol: upstream's server, or ours.

Upstream's takes one job at a time and says `busy` with success; tells an outcome once, and forgets it then, and in a
restart; calls a job done before its file is; sends JSON as HTML; and never ends a job. So an outcome that nobody was
told is read from the folder, and `done` means that the file is whole.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from gateway.adapters import http as engine_http
from gateway.adapters.connections import Client
from gateway.adapters.duix_files import Folder, checked
from gateway.adapters.duix_stuck import Stuck
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
        self._alone = len(settings.animate_urls) <= 1
        self._stuck = Stuck(self.url, settings)
        self._read: tuple[str, Job] | None = None
        """An outcome that `holds` was told, which upstream has forgotten since."""

    @asynccontextmanager
    async def session(self, job: Animate) -> AsyncIterator[AsyncIterator[Animated]]:
        """Raises EngineBusy where another job runs there, whosever it is."""
        code = self._name(job.code)
        known = self._taken(code) or await self._query(code)
        if known is None and await asyncio.to_thread(self._folder.made, code) is None:
            await self._submit(code, job)
            known = Job(State.RUNNING)
        async with aclosing(self._follow(code, known)) as events:
            yield events

    async def holds(self, code: str) -> bool:
        """An engine that has stopped in the middle holds nothing: another one may be quicker."""
        code = self._name(code)
        try:
            found = None if self._stuck.hung else await self._query(code)
        except EngineError:
            return False
        if found is not None and found.state is not State.RUNNING:
            self._read = code, found
        return found is not None or await asyncio.to_thread(self._folder.made, code) is not None

    async def health(self) -> EngineHealth:
        """One that is stuck is asked on whether it still is, and restarted where the operator says how."""
        found = await engine_http.health(self._http, self.url)
        if found.state is not EngineState.READY:
            self._stuck.works()  # once it is back
        elif str(self._stuck):
            if not await self._takes_jobs():
                await self._stuck.restart()
                return EngineHealth(EngineState.FAILED, found.model, found.device, str(self._stuck))
            self._stuck.works()
        return found

    async def discard(self, code: str) -> None:
        """Upstream knows no such request: its job runs on, into a file that is removed with the next job's."""
        code = self._name(code)
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await engine_http.ask(self._http, self.url, _address(code), b"DELETE")
        except (EngineError, TimeoutError):
            pass
        await asyncio.to_thread(self._folder.discard, code)

    # Private

    def _name(self, code: str) -> str:
        """The job's code at this engine: where several write into one folder, none writes another's file."""
        if self._alone:
            return checked(code)
        return f"vg-{hashlib.sha256(f'{checked(code)} {self.url}'.encode()).hexdigest()[:32]}"

    def _taken(self, code: str) -> Job | None:
        known, self._read = self._read, None
        return known[1] if known is not None and known[0] == code else None

    async def _submit(self, code: str, job: Animate) -> None:
        audio, video = await asyncio.to_thread(self._folder.place, code, job.audio, job.video)
        asked = wire.Submit(audio, video, code, job.super_resolution, job.watermark, job.ping_pong)
        said = await self._post(wire.submission(asked))
        if said.code == Code.BUSY:
            self._stuck.refused()
            raise EngineBusy("the engine is busy with another video", retry_after=10)
        self._stuck.works()
        if said.code == Code.PARAMETER:
            raise BadRequest(said.text or "the engine does not take this job", code="engine_refused", quotes=True)
        if said.code not in (Code.OK, Code.DUPLICATE):
            raise EngineBroke(f"the engine did not take the job: {said.text or said.code}", quotes=True)

    async def _takes_jobs(self) -> bool:
        """Whether a job that lacks its files is refused for that: an engine that is busy does not look at it."""
        try:
            return (await self._post(wire.submission(wire.Submit("", "", wire.HEALTH_CODE)))).code == Code.PARAMETER
        except EngineError:
            return False

    async def _post(self, body: bytes) -> wire.Answer:
        async with _in_time(), engine_http.Post(self._http, self.url, wire.SUBMIT, _JSON, [body]) as answer:
            return _read(await answer.body(_ANSWER_BYTES))

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
                self._stuck.hung = True
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
