"""The models behind all conversations: one that thinks, one that makes its codes audible, and who may use them when."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engines.preparation import Preparation
from engines.s2s import parcel, worker
from engines.s2s.backends import RATE, Call, Codes, Thought, Words
from engines.s2s.line import Line
from engines.s2s.memory import Heard, Turn, Wishes
from engines.s2s.vocoding import Silent, Vocoders
from engines.workers.messages import Piece
from engines.workers.pool import Busy, NotReady, Pool
from engines.workers.process import Call as Job
from engines.workers.process import JobFailed, Worker, WorkerGone
from gateway.wire.engine_health import Progress, Report

log = logging.getLogger(__name__)

_AHEAD = 16
"""Pieces of speech codes that may wait for the vocoder; then the model waits as well."""
_WARM_UP_SECONDS = 60.0
"""Of a warm-up turn, before its first sound."""
_OFTEN, _SELDOM, _AGAIN = 0.05, 0.5, 10.0
"""Seconds between looks at workers that load, at those that are warm, and after a first turn that failed."""


class ReplyFailed(Exception):
    """Why a reply ended early; the text is for the client."""

    def __init__(self, text: str, code: str, retry_after: int | None = None) -> None:
        """code: as the gateway's errors have them."""
        super().__init__(text)
        self.code, self.retry_after = code, retry_after


class Out(Protocol):
    """Who a reply is for. Nothing here raises."""

    def waits(self, place: int, seconds: float) -> None:
        """place: from 1. seconds: an estimate."""
        ...

    def begins(self) -> None: ...
    def words(self, text: str) -> None: ...
    def calls(self, call: Call) -> None: ...
    async def sound(self, pcm: bytes) -> None:
        """Mono s16le at backends.VOCODER_RATE. May wait."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    heard: Heard
    past: tuple[Turn, ...] = ()
    wishes: Wishes = field(default_factory=Wishes)


class Engine:
    def __init__(
        self,
        thinkers: Pool,
        vocoders: Pool,
        places: int,
        waiting: int,
        silence: float = 20.0,
        preparation: Preparation | None = None,
    ) -> None:
        """places: turns at a time, one for each thinker. waiting: turns beyond those. silence: seconds after which a
        worker that says nothing is killed, and replaced."""
        self._thinkers, self._vocoder_pool, self._preparation = thinkers, vocoders, preparation
        self._vocoders = Vocoders(vocoders, silence)
        self._line, self._silence = Line(places, waiting), silence
        self._warm = False
        self._reason = ""
        """Why the last warm-up turn made no sound."""

    def __repr__(self) -> str:
        return f"<{self._line}, {self._thinkers}, {self._vocoder_pool}>"

    @property
    def report(self) -> Report:
        if self._preparation is not None and (report := self._preparation.report) is not None:
            return report
        halves = (self._thinkers.report, self._vocoder_pool.report)
        for half in halves:
            if half.state != "ready":
                return half
        thinker, vocoder = halves
        devices = ",".join(dict.fromkeys([*thinker.device.split(","), *vocoder.device.split(",")]))
        if self._warm:
            return Report("ready", thinker.model, devices)
        state = "failed" if self._reason else "loading"
        return Report(state, thinker.model, devices, self._reason, Progress("a first turn, to warm up"))

    @property
    def voices(self) -> tuple[str, ...]:
        """The first is the one where nobody asks for another. Raises NotReady before they are known."""
        return tuple(self._vocoder_pool.facts["voices"])

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if self._preparation is not None:
                await stack.enter_async_context(self._preparation.at_work())
            await stack.enter_async_context(self._thinkers.at_work())
            await stack.enter_async_context(self._vocoder_pool.at_work())
            await stack.enter_async_context(self._vocoders.at_work())
            async with asyncio.TaskGroup() as tasks:
                warming = tasks.create_task(self._keep_warm())
                try:
                    yield
                finally:
                    warming.cancel()

    async def reply(self, asked: Asked, out: Out) -> None:
        """Returns when all of the reply has been given to `out`. Raises ReplyFailed. Cancelled, it returns when the
        worker has stopped, or has been killed; the next turn need not wait for that."""
        if not self._warm:
            raise ReplyFailed(self._why(), "engine_loading", 5)
        if asked.wishes.voice and asked.wishes.voice not in self.voices:  # it may come from before we had any
            raise ReplyFailed(f"there is no such voice; there are {', '.join(self.voices)}", "bad_request")
        await self._answer(asked, out)

    # Private

    def _why(self) -> str:
        report = self.report
        return report.reason or f"the engine is loading: {report.progress or report.model or 'its model'}"

    async def _answer(self, asked: Asked, out: Out) -> None:
        """Raises ReplyFailed."""
        try:
            await self._reply(asked, out)
        except ExceptionGroup as group:  # what failed first; it ended the other half
            match group.exceptions[0]:
                case Busy() as busy:
                    raise ReplyFailed(str(busy), "engine_busy", 1) from group
                case NotReady() as loading:
                    raise ReplyFailed(str(loading), "engine_loading", 5) from group
                case JobFailed() as failed:
                    raise ReplyFailed(str(failed), "bad_request" if failed.status < 500 else "engine_error") from group
                case Silent() as silent:
                    raise ReplyFailed(str(silent), "engine_timeout") from group
                case WorkerGone():
                    raise ReplyFailed(
                        "the engine died in the middle of the reply; try again", "engine_broke"
                    ) from group
                case exc:
                    raise exc from group

    async def _reply(self, asked: Asked, out: Out) -> None:
        fields, data = parcel.packed(asked.heard, asked.past, asked.wishes)
        codes: _Codes = asyncio.Queue(_AHEAD)
        async with asyncio.TaskGroup() as tasks:
            if asked.wishes.speech:
                tasks.create_task(self._speak(codes, asked.wishes.voice, out))
            async with self._line.place(out.waits), self._thinkers.claim() as thinker:
                out.begins()
                async with thinker.asking("reply", fields, data) as job:
                    while (piece := await self._next(thinker, job)) is not None:
                        await _pass_on(worker.thought(piece.fields), codes, out)
            if asked.wishes.speech:
                await codes.put(())

    async def _next(self, thinker: Worker, job: Job) -> Piece | None:
        try:
            async with asyncio.timeout(self._silence):
                return await job.piece()
        except TimeoutError:
            thinker.kill()
            raise Silent(f"the engine said nothing for {self._silence:g} s") from None

    async def _speak(self, codes: "_Codes", voice: str, out: Out) -> None:
        if not (found := await codes.get()):
            return
        async with self._vocoders.stream(voice or self.voices[0]) as stream:
            while found:
                await _say(await stream.feed(found, last=False), out)
                found = await codes.get()
            await _say(await stream.feed((), last=True), out)

    async def _keep_warm(self) -> None:
        """A turn whenever the models are there anew: until it has made a sound nobody is told that we are ready."""
        while True:
            there = self._thinkers.report.state == self._vocoder_pool.report.state == "ready"
            if not there:
                self._warm = False
            elif not self._warm:
                await self._warm_up()
            await asyncio.sleep(_SELDOM if self._warm else _AGAIN if self._reason else _OFTEN)

    async def _warm_up(self) -> None:
        try:
            async with asyncio.timeout(_WARM_UP_SECONDS):
                await self._answer(Asked(Heard(_murmur())), _FirstSound())
            self._reason = "its first turn made no sound"
        except _Enough:
            self._warm, self._reason = True, ""
        except ReplyFailed as exc:
            self._reason = f"its first turn failed: {exc}"
        except TimeoutError:
            self._reason = f"its first turn made no sound in {_WARM_UP_SECONDS:g} s"
        log.log(*((logging.INFO, "ready") if self._warm else (logging.ERROR, "%s", self._reason)))


_Codes = asyncio.Queue[tuple[int, ...]]
"""Empty ones are the end."""


class _Enough(Exception):
    """A warm-up turn has made a sound."""


class _FirstSound:
    def waits(self, place: int, seconds: float) -> None:
        pass

    def begins(self) -> None:
        pass

    def words(self, text: str) -> None:
        pass

    def calls(self, call: Call) -> None:
        pass

    async def sound(self, pcm: bytes) -> None:
        raise _Enough


async def _pass_on(thought: Thought, codes: _Codes, out: Out) -> None:
    match thought:
        case Words(text):
            out.words(text)
        case Codes(found) if found:
            await codes.put(found)
        case Call() as call:
            out.calls(call)


async def _say(pcm: bytes, out: Out) -> None:
    if pcm:
        await out.sound(pcm)


def _murmur() -> bytes:
    """A second of soft noise."""
    return (np.random.default_rng(0).standard_normal(RATE) * 300).astype("<i2").tobytes()


_: type[Out] = _FirstSound
