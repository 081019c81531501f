"""A worker as the server sees it: a process that is given jobs, and killed if it will not stop one."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from anyio import CancelScope

from engines.settings import inherited
from engines.workers import messages
from engines.workers.messages import Answer, Cancel, Failed, Fields, Hello, Message, Piece, Work

_AHEAD = 4
"""Pieces that may wait for a reader; beyond that the worker waits."""


class WorkerGone(Exception):
    """The process has ended, or must; the text says why."""


class JobFailed(Exception):
    """What a worker says is wrong with a job, under its status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Call:
    """One job of a worker: its pieces, then its answer."""

    def __init__(self, worker: "Worker", number: int) -> None:
        self._worker, self._number = worker, number
        self._heard: asyncio.Queue[Piece | Answer | None] = asyncio.Queue(_AHEAD)
        self._gone: WorkerGone | None = None
        self._over = False
        self._unread = False

    @property
    def over(self) -> bool:
        """Whether the worker is done with it."""
        return self._over

    async def piece(self) -> Piece | None:
        """The next one; None after the last, when `answer` has come. Raises JobFailed and WorkerGone."""
        if self._over:
            return None
        heard = None if self._gone and self._heard.empty() else await self._heard.get()
        if isinstance(heard, Piece):
            return heard
        self._over = True
        if heard is None:
            raise WorkerGone(str(self._gone))
        if heard.status != 200:
            raise JobFailed(heard.text, heard.status)
        self.fields = heard.fields
        return None

    async def answer(self) -> Fields:
        """What it comes to, pieces left aside. Raises JobFailed and WorkerGone."""
        while await self.piece() is not None:
            pass
        return self.fields

    async def hear(self, message: Piece | Answer) -> None:
        """Waits while too many pieces are unread: then the worker waits as well."""
        if not (self._unread and isinstance(message, Piece)):
            await self._heard.put(message)

    def lose(self, gone: WorkerGone) -> None:
        self._gone = gone
        with suppress(asyncio.QueueFull):
            self._heard.put_nowait(None)

    def stop(self) -> None:
        """Asks the worker to, and waits for nothing: the answer comes all the same, soon or when the job is done."""
        if not self._over:
            self._worker.cancel(self._number)

    async def give_up(self) -> None:
        """Returns when the worker has stopped, or has been killed. Whoever cancels us meanwhile changes nothing of
        that: a worker that is killed has to load its model again, and stopping takes it a moment."""
        self._unread = True
        while not self._heard.empty():  # who waits to put one more in must not wait for ever
            heard = self._heard.get_nowait()
            self._over |= not isinstance(heard, Piece)
        if self._over:
            return
        self._worker.cancel(self._number)
        deadline = asyncio.get_running_loop().time() + self._worker.patience
        again: asyncio.CancelledError | None = None
        while not self._over:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.answer()
            except asyncio.CancelledError as exc:
                again = exc
            except TimeoutError:
                self._worker.kill()
                break
            except (JobFailed, WorkerGone):
                break
        if again is not None:
            raise again


class Worker:
    def __init__(self, process: asyncio.subprocess.Process, device: str, patience: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self.device, self.patience = device, patience
        self.running = 0
        """Jobs, or sessions that give it jobs."""
        self._number = 0
        self._calls: dict[int, Call] = {}
        self._gone: WorkerGone | None = None
        """Why nobody answers any more: a session may hold on to a worker that has died."""

    def __repr__(self) -> str:
        return f"<worker {self._process.pid} on {self.device}, {self.running} running>"

    @property
    def gone(self) -> bool:
        """Whether it has ended, or is about to: nobody is to be given it any more."""
        return self._gone is not None

    async def hello(self) -> Hello:
        """Waits until the model is loaded. Raises WorkerGone."""
        match await self._hear():
            case Hello() as hello:
                return hello
            case Failed(reason):
                raise WorkerGone(reason)
        raise WorkerGone("a worker said something unexpected")

    async def listen(self) -> None:
        """Hands what the worker says to those who asked, until it ends. Raises WorkerGone, to each of them as well;
        they are told too where the listening itself is cancelled."""
        gone = WorkerGone("the engine ends")
        try:
            while True:
                match await self._hear():
                    case Piece(number) as piece if number in self._calls:
                        await self._calls[number].hear(piece)
                    case Answer(number) as answer if number in self._calls:
                        await self._calls.pop(number).hear(answer)
                    case _:
                        raise WorkerGone("a worker said something unexpected")
        except WorkerGone as exc:
            gone = exc
            raise
        finally:
            self._gone = gone
            self.kill()
            calls, self._calls = self._calls, {}
            for call in calls.values():
                call.lose(gone)

    @asynccontextmanager
    async def asking(
        self, task: str, fields: Fields, data: bytes = b"", *, urgent: bool = False
    ) -> AsyncIterator[Call]:
        """A job, given up where the block ends before it does. urgent: see messages.Work. Raises WorkerGone, and
        JobFailed for one that is too large."""
        if self._gone is not None:
            raise WorkerGone(str(self._gone))
        self._number += 1
        try:
            self._say(Work(self._number, task, fields, data, urgent))
        except ValueError:  # the worker could not read it, and would end
            raise JobFailed("the request is too large", 413) from None
        call = self._calls[self._number] = Call(self, self._number)
        try:
            yield call
        finally:
            if not call.over:
                with CancelScope(shield=True):  # whoever cancels us may do so again and again
                    await call.give_up()

    async def ask(self, task: str, fields: Fields, data: bytes = b"", *, urgent: bool = False) -> Fields:
        """A job's answer. Raises JobFailed and WorkerGone."""
        async with self.asking(task, fields, data, urgent=urgent) as call:
            return await call.answer()

    def cancel(self, number: int) -> None:
        self._say(Cancel(number))

    def kill(self) -> None:
        self._gone = self._gone or WorkerGone("a worker died")  # what it has said already still arrives
        with suppress(ProcessLookupError):
            self._process.kill()

    # Private

    def _say(self, message: Message) -> None:
        if not self._stdin.is_closing():  # a dead worker is noticed by those who wait for its answer
            self._stdin.write(messages.encode(message))

    async def _hear(self) -> Message:
        try:
            return await messages.read(self._stdout)
        except (EOFError, ConnectionError):
            raise WorkerGone("a worker died") from None
        except ValueError as exc:
            raise WorkerGone("a worker said something unreadable") from exc


@asynccontextmanager
async def started(
    module: str, options: Sequence[str], device: str, environment: Mapping[str, str], patience: float = 0.4
) -> AsyncIterator[Worker]:
    """`python -m module options`; it is gone when the block ends, however it ends. Raises WorkerGone.

    device: "cpu" or "cuda:N"; the process sees no other. environment: added to ours. patience: seconds between asking
    it to stop a job and killing it; what is killed has to load its model again.
    """
    number = device.removeprefix("cuda:") if device != "cpu" else ""
    inside = "cpu" if device == "cpu" else "cuda:0"
    pipe = asyncio.subprocess.PIPE
    # Libraries leave files in it, and one that is killed cannot clear up after itself.
    try:
        scratch = tempfile.TemporaryDirectory(prefix="worker-", ignore_cleanup_errors=True)
    except OSError as exc:
        raise WorkerGone(f"no worker can be started: {exc.strerror}") from exc
    # CUDA counts by speed unless it is told to count as nvidia-smi does, and with it whoever names a device.
    own = {
        **environment,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": number,
        "TMPDIR": scratch.name,
    }
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *options, "--device", inside,
            stdin=pipe, stdout=pipe, limit=messages.AHEAD,
            env=inherited(own),
        )  # fmt: skip
    except OSError as exc:
        scratch.cleanup()
        raise WorkerGone(f"no worker can be started: {exc.strerror}") from exc
    worker = Worker(process, device, patience)
    try:
        yield worker
    finally:
        worker.kill()
        try:
            await process.wait()
        finally:
            await asyncio.to_thread(scratch.cleanup)  # what libraries left may be much
