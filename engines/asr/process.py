"""A worker as the server sees it: a process that is given one job at a time, and killed if it will not stop."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from engines.asr import messages
from engines.asr.messages import Answer, Cancel, Failed, Hello, Message, Work

_PATIENCE = 0.4
"""Seconds between asking a worker to stop a job and killing it."""


class WorkerGone(Exception):
    """The process has ended, or must; the text says why."""


class Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._number = 0
        self._last_resort: asyncio.TimerHandle | None = None

    async def hello(self) -> Hello:
        """Waits until the model is loaded. Raises WorkerGone."""
        match await self._hear():
            case Hello() as hello:
                return hello
            case Failed(reason):
                raise WorkerGone(reason)
        raise WorkerGone("a recognition worker said something unexpected")

    async def run(self, path: str, language: str, hotwords: tuple[str, ...]) -> Answer:
        """Raises WorkerGone."""
        self._number += 1
        self._say(Work(self._number, path, language, hotwords))
        try:
            match await self._hear():
                case Answer(number) as answer if number == self._number:
                    return answer
            raise WorkerGone("a recognition worker said something unexpected")
        finally:
            if self._last_resort is not None:
                self._last_resort.cancel()
                self._last_resort = None

    def cancel(self) -> None:
        """Makes `run` end soon: with the answer of a cancelled job, or by the death of the worker."""
        if self._last_resort is None:
            self._say(Cancel(self._number))
            self._last_resort = asyncio.get_running_loop().call_later(_PATIENCE, self.kill)

    async def ended(self) -> None:
        """Waits for the end of the process and raises WorkerGone."""
        await self._process.wait()
        raise WorkerGone("a recognition worker died")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    # Private

    def _say(self, message: Message) -> None:
        if not self._stdin.is_closing():  # a dead worker is noticed by those who wait for its answer
            self._stdin.write(messages.encode(message))

    async def _hear(self) -> Message:
        try:
            return messages.decode(await self._stdout.readuntil())
        except asyncio.IncompleteReadError:
            raise WorkerGone("a recognition worker died") from None
        except (ValueError, asyncio.LimitOverrunError, ConnectionError) as exc:
            raise WorkerGone("a recognition worker said something unreadable") from exc


@asynccontextmanager
async def started(backend: str, scratch: Path) -> AsyncIterator[Worker]:
    """One worker process; it is gone when the block ends, however it ends. Raises WorkerGone."""
    command = [sys.executable, "-m", "engines.asr.worker", "--backend", backend, "--scratch", str(scratch)]
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=messages.LONGEST)
    except OSError as exc:
        raise WorkerGone(f"no recognition worker can be started: {exc.strerror}") from exc
    worker = Worker(process)
    try:
        yield worker
    finally:
        worker.kill()
        await process.wait()
