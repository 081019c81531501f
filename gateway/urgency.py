"""A few threads for work that must not wait for other work: what is needed soonest is done first."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import TypeVar

T = TypeVar("T")
_NICE = 5


class Threads:
    """Started with the first work; they end with the process, or with `close`."""

    def __init__(self, threads: int, name: str) -> None:
        self._count, self._name = threads, name
        self._waiting: queue.PriorityQueue[tuple[float, int, _Work | None]] = queue.PriorityQueue()
        self._numbers = count()
        self._started = False

    def __repr__(self) -> str:
        return f"<{self._name}: {self._count} threads, {self._waiting.qsize()} waiting>"

    def submit(self, work: Callable[[], T], due: float) -> "asyncio.Future[T]":
        """Does it once all that is due earlier is done. due: seconds of time.monotonic. A cancellation takes back
        what has not begun."""
        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()
        done: Future[T] = Future()

        def run() -> None:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work())
                except BaseException as exc:
                    done.set_exception(exc)

        self._waiting.put((due, next(self._numbers), run))
        return asyncio.wrap_future(done)

    def close(self) -> None:
        """What was submitted is still done."""
        if self._started:
            for _ in range(self._count):
                self._waiting.put((float("inf"), next(self._numbers), None))

    # Private, and below here on a thread

    def _serve(self) -> None:
        with suppress(OSError):  # Linux only: where cores are few, the event loop goes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (work := self._waiting.get()[2]) is not None:
            work()
            del work  # and what it holds, while nothing is to be done


_Work = Callable[[], None]
