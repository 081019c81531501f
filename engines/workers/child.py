"""The worker's side: a loop that does one job at a time.

A thread listens to the server, so that a cancellation or the server's death is noticed in the middle of a job.
"""

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import BinaryIO, Protocol

from engines.workers import messages
from engines.workers.messages import Answer, Cancel, Failed, Fields, Hello, Message, Piece, Work

log = logging.getLogger(__name__)

Stopped = Callable[[], bool]
"""Whether nobody wants the answer any more; asked often, it decides how soon a worker is free again, and how soon
something urgent is done: that happens while it is asked, in the thread that runs the job."""


class Tasks(Protocol):
    """What a worker can do."""

    def load(self) -> Hello:
        """Raises whatever says why it cannot be."""
        ...

    def run(self, work: Work, stopped: Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        """Yields the pieces of the answer and returns its fields.

        Ends early, soon after `stopped` says so. An exception with a `status` is the caller's to read; of any other
        the caller learns the type.
        """
        ...


class _Ears:
    """The server's side of the conversation: jobs in order, and which of them are no longer wanted."""

    def __init__(self, source: BinaryIO) -> None:
        self.jobs: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        """None where something urgent has come."""
        self.urgent: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._source = source
        self._cancelled: set[int] = set()

    def listen(self) -> None:
        try:
            while True:
                match messages.receive(self._source):
                    case Work(urgent=True) as work:
                        self.urgent.put(work)
                        self.jobs.put(None)
                    case Work() as work:
                        self.jobs.put(work)
                    case Cancel(number):
                        self._cancelled.add(number)
        finally:
            os._exit(0)  # the server is gone, and nobody else wants the answer; a job in progress cannot be unwound

    def unwanted(self, work: Work) -> bool:
        return work.number in self._cancelled

    def done(self, work: Work) -> None:
        self._cancelled.discard(work.number)


def main(tasks: Tasks) -> None:
    """Never returns: the end of stdin ends the process."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us too; the server decides when we end
    # Libraries like to print: what they write to stdout must not get between our messages.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(tasks, sys.stdin.buffer, sink)
    os._exit(1)  # the thread that listens holds stdin, which an orderly end would wait for


def _serve(tasks: Tasks, source: BinaryIO, sink: BinaryIO) -> None:
    """Returns where the model cannot be loaded."""

    def say(message: Message) -> None:
        sink.write(messages.encode(message))
        sink.flush()

    ears = _Ears(source)
    threading.Thread(target=ears.listen, name="listen", daemon=True).start()
    try:
        hello = tasks.load()
    except (Exception, SystemExit) as exc:
        log.exception("the model cannot be loaded")
        say(Failed(f"{type(exc).__name__}: {exc}"[:500]))
        return
    say(hello)
    while True:
        work = ears.jobs.get()
        _hurry(tasks, ears, say)
        if work is not None:
            say(_answered(tasks, work, ears, say))
            ears.done(work)


def _hurry(tasks: Tasks, ears: _Ears, say: Callable[[Message], None]) -> None:
    """Does what is urgent."""
    with suppress(queue.Empty):
        while True:
            work = ears.urgent.get_nowait()
            say(_answered(tasks, work, ears, say))
            ears.done(work)


def _answered(tasks: Tasks, work: Work, ears: _Ears, say: Callable[[Message], None]) -> Answer:
    mine = threading.get_ident()

    def stopped() -> bool:
        if not work.urgent and threading.get_ident() == mine:
            _hurry(tasks, ears, say)
        return ears.unwanted(work)

    try:
        if stopped():
            return Answer(work.number, 499, "cancelled")
        pieces = tasks.run(work, stopped)
        try:
            while True:
                fields, data = next(pieces)
                say(Piece(work.number, fields, data))
                if stopped():
                    pieces.close()
                    return Answer(work.number, 499, "cancelled")
        except StopIteration as end:
            return Answer(work.number, 499 if stopped() else 200, fields=end.value or {})
    except Exception as exc:
        status = getattr(exc, "status", None)
        if isinstance(status, int):
            return Answer(work.number, status, str(exc))
        log.error("a job failed: %s\n%s", _shown(exc), "".join(traceback.format_tb(exc.__traceback__)))
        return Answer(work.number, 500, f"{type(exc).__name__} in the engine")


def _shown(exc: Exception) -> str:
    """What a log may hold of it: the words of any library may quote those of a user, but for devices and files."""
    text = str(exc)
    known = isinstance(exc, OSError) or text.startswith(("CUDA", "cuDNN", "CUBLAS", "NCCL"))
    return f"{type(exc).__name__}: {text}" if known else type(exc).__name__
