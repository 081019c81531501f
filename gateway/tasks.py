"""Tasks and their owners. The only file that may start a task outside a TaskGroup (ruff guards it).

Every task belongs to a scope that is left by the task that entered it, so nothing outlives its reason.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

from gateway.errors import ClientGone

T = TypeVar("T")


@asynccontextmanager
async def task_group(*, failure: int | None = None) -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose lone failure leaves it bare, so that errors can be matched by their type. So does ClientGone,
    which several of its tasks may find at once.

    failure: which of several leaves it instead of all of them, 0 for the first that was seen, -1 for the last, which is
    that of the block where it failed.
    """
    bare: BaseException
    try:
        async with _Group() as tasks:
            yield tasks
        return
    except BaseExceptionGroup as group:
        _untie(group)
        lone = len(group.exceptions) == 1 or all(isinstance(one, ClientGone) for one in group.exceptions)
        if failure is None and not lone:
            raise
        bare = group.exceptions[failure or 0]
    except BaseException as exc:
        _untie(exc)
        raise
    try:
        raise bare  # not where the group is caught: each would hold the other
    finally:
        del bare


class _Group(asyncio.TaskGroup):
    """Its tasks, once cancelled, do not keep what they had."""

    def create_task(self, coro: Any, **named: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **named)
        task.add_done_callback(_let_go)
        return task


def _let_go(task: asyncio.Task[Any]) -> None:
    """A task keeps the cancellation that it ended with until it is asked, and that the variables on its way, the task
    itself among them."""
    if task.cancelled():
        with suppress(asyncio.CancelledError):
            task.exception()


def _untie(exc: BaseException) -> None:
    """TaskGroup raises what it also has in its variables, and an exception has all variables that it came through. Such
    a ring, and whatever hangs on it, would wait for the garbage collector: megabytes of sound, for minutes."""
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is asyncio.TaskGroup.__aexit__.__code__:
            trace.tb_frame.clear()
        trace = trace.tb_next


class until_gone:
    """`async with until_gone(wait_for_hangup):` runs its block until the client hangs up; then the block is
    cancelled where it stands and ClientGone leaves it. A cancellation from elsewhere stays a cancellation."""

    def __init__(self, hangup: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._hangup = hangup
        self._gone = False
        self._left = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = task.get_loop().create_task(self._hangup())
        self._watch.add_done_callback(self._fire)

    def _fire(self, watch: asyncio.Task[None]) -> None:
        # A callback already queued cannot be removed, so a hang-up in the tick that left the block still gets here.
        if not watch.cancelled() and watch.exception() is None and not self._left:
            self._gone = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._watch.cancel()
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientGone("the client hung up") from None


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Runs cleanup to its end even when this task is cancelled meanwhile; the cancellation follows after it."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
        except BaseException:
            break  # task.result() raises it
    if cancelled:
        raise asyncio.CancelledError from task.exception()
    return task.result()


class SharedWork:
    """The same work asked for several times at once is done once (a client repeats its POST after a socket error).

    Each caller waits for itself: one that is cancelled leaves, and when the last one has left the work is cancelled.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[asyncio.Task[Any], list[None]]] = {}

    def __repr__(self) -> str:
        return f"<shared: {len(self._running)} running, {sum(len(w) for _, w in self._running.values())} waiting>"

    async def run(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if key not in self._running:
            task = asyncio.get_running_loop().create_task(work())
            self._running[key] = (task, [])
            task.add_done_callback(lambda done: self._forget(key, done))
        task, waiters = self._running[key]
        waiters.append(None)
        try:
            result: T = await asyncio.shield(task)
            return result
        finally:
            waiters.pop()
            if not waiters and not task.done():
                self._forget(key, task)
                task.cancel()
                await shielded(_ended(task))

    def _forget(self, key: str, task: asyncio.Task[Any]) -> None:
        if key in self._running and self._running[key][0] is task:
            del self._running[key]


async def _ended(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task])


async def forever(work: Callable[[], Awaitable[object]], every: float, failed: Callable[[Exception], None]) -> None:
    """Repeats `work`, `every` seconds apart. A failure is told to `failed` and does not end the series."""
    while True:
        try:
            await work()
        except Exception as exc:
            failed(exc)
        await asyncio.sleep(every)


class KeyedLocks:
    """One lock for each key that somebody holds or waits for: `async with locks.hold("abc"):`."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, list[None]]] = {}

    def __repr__(self) -> str:
        return f"<locks: {len(self._locks)} held>"

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        lock, holders = self._locks.setdefault(key, (asyncio.Lock(), []))
        holders.append(None)
        try:
            async with lock:
                yield
        finally:
            holders.pop()
            if not holders:
                del self._locks[key]
