"""The models of live recognition in worker processes.

A live worker is shared by many streams, so no job of it is ever taken back: a worker that does not stop at once would
be killed, and everybody's stream with it. A stream that is left lets its last job end, and is then forgotten there.
The same holds for the second pass, whose worker would have to load its model again: it is asked to stop, and no more.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import numpy as np

from engines.asr.live.backend import Asked
from engines.asr.live.events import Event, unpack
from engines.asr.live.models import ModelFailed, Models, NoModel, NotKnown
from engines.asr.live.tape import RATE, Samples
from engines.workers.messages import Fields
from engines.workers.pool import NotReady, Pool
from engines.workers.process import Call, JobFailed, Worker, WorkerGone
from gateway.wire import wav
from gateway.wire.funasr_2pass import Config, Mode

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]


class Workers:
    def __init__(self, live: Pool, whole: Pool | None, scratch: Path) -> None:
        """live: of engines.asr.live.worker. whole: of engines.asr.worker, for the second pass, where there is one.
        scratch: where utterances lie while it recognises them."""
        self._live, self._whole, self._scratch = live, whole, scratch
        self._numbers = itertools.count(1)
        self._owner: asyncio.TaskGroup | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        self._ended = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Owns the jobs that outlive their streams."""
        async with asyncio.TaskGroup() as self._owner:
            try:
                yield
            finally:
                self._ended = True
                for job in self._jobs:
                    job.cancel()

    def refusal(self) -> str:
        for pool in (self._live, self._whole):
            if pool is not None and pool.report.state != "ready":
                return pool.report.reason or f"the {pool.name} model is being loaded"
        return ""

    @asynccontextmanager
    async def stream(self, asked: Config) -> AsyncIterator["_Stream"]:
        try:
            self._check(asked.language)
            with self._live.sticky() as worker:
                stream = _Stream(self, worker, next(self._numbers))
                try:
                    await stream.open(asked)
                    yield stream
                finally:
                    with suppress(ModelFailed):  # the engine ends, and its workers with it
                        self._start(stream.close)
        except NotReady as exc:
            raise NoModel(str(exc)) from exc

    @property
    def second_pass(self) -> bool:
        return self._whole is not None

    async def recognise(self, samples: Samples, asked: Config) -> str:
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        wish = _Wish()
        try:
            return await self.finished(partial(self._recognised, pcm, asked, wish))
        except asyncio.CancelledError:
            wish.drop()
            raise

    async def finished(self, job: Job[T]) -> T:
        """What a job comes to. Whoever leaves before it does, leaves it running. Raises ModelFailed."""
        result, failure = await asyncio.shield(self._start(job))
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]

    # Private

    def _check(self, language: str) -> None:
        known = self._whole.facts["languages"] if self._whole is not None else ()
        if self._whole is not None and language and language not in known:
            raise NotKnown(f"this engine cannot recognise {language}; svs_lang takes auto, {', '.join(known)}")

    def _start(self, job: Job[T]) -> "asyncio.Task[tuple[T | None, ModelFailed | None]]":
        """Raises ModelFailed."""
        assert self._owner is not None, "at_work comes first"
        if self._ended:
            raise ModelFailed("the engine ends; begin again elsewhere")
        task = self._owner.create_task(_settled(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def _recognised(self, pcm: bytes, asked: Config, wish: "_Wish") -> str:
        with await asyncio.to_thread(_written, pcm, self._scratch) as file:
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
            fields = {"path": path, "language": asked.language, "hotwords": asked.hotwords, "itn": asked.itn}
            try:
                return await self._text(fields, wish)
            except WorkerGone:  # another one, and only one: the utterance itself may be the reason
                return await self._text(fields, wish)

    async def _text(self, fields: Fields, wish: "_Wish") -> str:
        assert self._whole is not None, "second_pass said so"
        # nobody's recording keeps a speaker waiting
        async with self._whole.hurry() as worker, worker.asking("transcribe", fields, urgent=True) as call:
            wish.asked(call)
            return str((await call.answer())["text"])


class _Wish:
    """Whether anybody still wants a second pass: those of people who have left would pile up before a busy worker."""

    def __init__(self) -> None:
        self._dropped = False
        self._call: Call | None = None

    def asked(self, call: Call) -> None:
        self._call = call
        if self._dropped:
            call.stop()

    def drop(self) -> None:
        self._dropped = True
        if self._call is not None:
            self._call.stop()


class _Stream:
    def __init__(self, workers: Workers, worker: Worker, number: int) -> None:
        self._workers, self._worker, self._number = workers, worker, number

    async def open(self, asked: Config) -> None:
        how = Asked(
            deltas=asked.mode is not Mode.OFFLINE or not self._workers.second_pass,
            last_words=asked.mode is Mode.ONLINE or not self._workers.second_pass,
            chunk=asked.chunk,
            encoder_look_back=asked.encoder_look_back,
            decoder_look_back=asked.decoder_look_back,
        )
        await self._ask("open", asdict(how))

    async def feed(self, samples: Samples, *, last: bool) -> Sequence[Event]:
        found = await self._ask("feed", {"last": last}, samples.astype(np.float32).tobytes())
        return unpack(found["events"])

    async def close(self) -> None:
        with suppress(WorkerGone, JobFailed):
            await self._worker.ask("close", {"number": self._number})

    async def _ask(self, task: str, fields: Fields, data: bytes = b"") -> Fields:
        return await self._workers.finished(partial(self._worker.ask, task, {"number": self._number, **fields}, data))


async def _settled(job: Job[T]) -> tuple[T | None, ModelFailed | None]:
    """A task group takes the exceptions of its tasks for its own."""
    try:
        return await job(), None
    except WorkerGone:
        return None, ModelFailed("a recognition worker died; begin again")
    except (JobFailed, NotReady) as exc:
        return None, ModelFailed(f"recognition failed: {exc}")
    except Exception as exc:
        log.exception("a job failed")
        return None, ModelFailed(f"recognition failed: {type(exc).__name__}")


def _written(pcm: bytes, scratch: Path) -> Any:
    """A file without a name, as in engines/asr/upload.py: what somebody said is gone however this process ends."""
    file = TemporaryFile(dir=scratch)  # noqa: SIM115  (its user closes it)
    file.write(wav.header(RATE, len(pcm) // 2) + pcm)
    file.flush()
    return file


_: type[Models] = Workers
