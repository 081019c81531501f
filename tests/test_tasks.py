"""Tasks and their owners: nothing outlives its reason, and no failure changes its type on the way."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from gateway.errors import ClientGone, EngineBusy
from gateway.tasks import KeyedLocks, SharedWork, forever, shielded, task_group, until_gone


async def never() -> None:
    await asyncio.Event().wait()


async def fail(error: BaseException) -> None:
    raise error


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


class TestTaskGroup:
    async def test_a_lone_failure_keeps_its_type(self) -> None:
        with pytest.raises(EngineBusy):
            async with task_group() as tasks:
                tasks.create_task(never())
                tasks.create_task(fail(EngineBusy()))

    async def test_a_failure_of_the_block_keeps_its_type_and_ends_the_tasks(self) -> None:
        with pytest.raises(EngineBusy):
            async with task_group() as tasks:
                tasks.create_task(never())
                raise EngineBusy
        assert not others()

    async def test_a_failure_two_groups_deep_keeps_its_type(self) -> None:
        with pytest.raises(EngineBusy):
            async with task_group(), task_group() as inner:
                inner.create_task(fail(EngineBusy()))

    async def test_two_failures_at_once_stay_a_group(self) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with task_group() as tasks:
                tasks.create_task(fail(EngineBusy()))
                tasks.create_task(fail(ValueError()))
        assert {type(exc) for exc in caught.value.exceptions} == {EngineBusy, ValueError}

    async def test_a_client_whose_leaving_several_tasks_notice_has_left_once(self) -> None:
        with pytest.raises(ClientGone):
            async with task_group() as tasks:
                tasks.create_task(fail(ClientGone()))
                tasks.create_task(fail(ClientGone()))

    async def test_a_cancellation_from_outside_stays_a_cancellation(self) -> None:
        async def work() -> None:
            async with task_group() as tasks:
                tasks.create_task(never())

        task = asyncio.create_task(work())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not others()

    async def test_which_of_several_failures_leaves_it_can_be_said(self) -> None:
        for which, kind in ((0, ClientGone), (-1, EngineBusy)):
            with pytest.raises(kind) as caught:
                async with task_group(failure=which) as tasks:
                    tasks.create_task(fail(ClientGone()))
                    try:
                        await never()
                    finally:
                        raise EngineBusy
            assert not isinstance(caught.value.__context__, BaseExceptionGroup)

    @pytest.mark.parametrize("end", [EngineBusy, ClientGone, asyncio.CancelledError, ValueError])
    async def test_what_its_block_and_its_tasks_had_is_freed_at_once_however_it_ends(
        self, end: type[Exception]
    ) -> None:
        class Sound:
            pass

        async def play(sound: Sound) -> None:
            raise end

        async def work() -> None:
            sound = Sound()
            seen.append(weakref.ref(sound))
            async with task_group(failure=0) as tasks:
                tasks.create_task(play(sound))
                await settle()
                raise end

        seen: list[weakref.ref[Sound]] = []
        gc.disable()
        try:
            with suppress(end):
                await work()
            await settle()  # the step of a task keeps the cancellation that it began with
            assert seen[0]() is None
        finally:
            gc.enable()


class TestUntilGone:
    async def test_a_hang_up_cancels_the_block_and_says_who_is_gone(self) -> None:
        cleaned = False
        with pytest.raises(ClientGone):
            async with until_gone(lambda: asyncio.sleep(0.01)):
                try:
                    await never()
                finally:
                    cleaned = True
        assert cleaned
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    async def test_the_task_can_still_wait_after_a_hang_up(self) -> None:
        with pytest.raises(ClientGone):
            async with until_gone(lambda: asyncio.sleep(0)):
                await never()
        await asyncio.wait_for(asyncio.sleep(0.001), 1)

    async def test_a_block_that_ends_first_ends_its_watcher(self) -> None:
        async with until_gone(never):
            await asyncio.sleep(0)
        await settle()
        assert not others()

    async def test_a_failure_of_the_block_passes_unchanged(self) -> None:
        with pytest.raises(EngineBusy):
            async with until_gone(never):
                raise EngineBusy

    async def test_a_cancellation_from_elsewhere_stays_a_cancellation(self) -> None:
        async def work() -> None:
            async with until_gone(never):
                await never()

        task = asyncio.create_task(work())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_cancellation_from_elsewhere_wins_over_a_hang_up_at_the_same_moment(self) -> None:
        gone = asyncio.Event()

        async def hangup() -> None:
            await gone.wait()

        async def work() -> None:
            async with until_gone(hangup):
                try:
                    await never()
                finally:
                    await shielded(asyncio.sleep(0.01))

        task = asyncio.create_task(work())
        await settle()
        gone.set()
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_hang_up_in_the_tick_that_ends_the_block_does_not_cancel_what_follows(self) -> None:
        gone, done = asyncio.Event(), asyncio.Event()

        async def hangup() -> None:
            await gone.wait()

        async def work() -> str:
            async with until_gone(hangup):
                await done.wait()
            await settle()
            return "answered"

        task = asyncio.create_task(work())
        await settle()
        gone.set()
        done.set()
        assert await task == "answered"

    async def test_every_order_of_hang_up_and_end_gives_an_answer_or_client_gone(self) -> None:
        for ticks_until_gone in range(6):
            for ticks_of_work in range(6):

                async def hangup(ticks: int = ticks_until_gone) -> None:
                    for _ in range(ticks):
                        await asyncio.sleep(0)

                async def work(hangup: Callable[[], Awaitable[None]] = hangup, ticks: int = ticks_of_work) -> None:
                    try:
                        async with until_gone(hangup):  # type: ignore[arg-type]
                            for _ in range(ticks):
                                await asyncio.sleep(0)
                    except ClientGone:
                        pass
                    await settle()
                    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

                await asyncio.create_task(work())

    async def test_a_deadline_around_the_block_is_still_a_timeout(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), until_gone(never):
                await never()

    async def test_a_hang_up_inside_a_task_group_is_not_mistaken_for_its_cancellation(self) -> None:
        with pytest.raises(ClientGone):
            async with until_gone(lambda: asyncio.sleep(0.01)), task_group() as tasks:
                tasks.create_task(never())

    async def test_a_failed_sibling_is_not_mistaken_for_a_hang_up(self) -> None:
        with pytest.raises(EngineBusy):
            async with task_group() as tasks, until_gone(never):
                tasks.create_task(fail(EngineBusy()))
                await never()


class TestShielded:
    async def test_the_result_comes_back(self) -> None:
        assert await shielded(asyncio.sleep(0, "done")) == "done"

    async def test_a_failure_keeps_its_type(self) -> None:
        with pytest.raises(EngineBusy):
            await shielded(fail(EngineBusy()))

    @pytest.mark.parametrize("times", [1, 2, 5])
    async def test_cleanup_ends_before_the_cancellation_follows(self, times: int) -> None:
        ended = False

        async def cleanup() -> None:
            nonlocal ended
            await asyncio.sleep(0.01)
            ended = True

        task = asyncio.create_task(shielded(cleanup()))
        for _ in range(times):
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    async def test_a_cancellation_is_not_lost_when_the_cleanup_fails_which_is_its_cause(self) -> None:
        async def cleanup() -> None:
            await asyncio.sleep(0.01)
            raise EngineBusy

        task = asyncio.create_task(shielded(cleanup()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__cause__, EngineBusy)

    async def test_a_cancellation_in_the_tick_of_the_end_is_not_lost(self) -> None:
        async def work() -> None:
            await shielded(asyncio.sleep(0))
            await asyncio.sleep(0)

        for ticks in range(8):
            task = asyncio.create_task(work())
            for _ in range(ticks):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_a_deadline_waits_for_the_cleanup_and_is_still_a_timeout(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await shielded(asyncio.sleep(0.01))

    async def test_work_that_cancels_itself_is_a_cancellation(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await shielded(fail(asyncio.CancelledError()))


class Counted:
    """Work that waits for a word, and counts how often it began, ended and was cancelled."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.cancelled += 1
            raise
        return f"made {self.begun}"


class TestSharedWork:
    async def test_the_same_work_asked_several_times_is_done_once(self) -> None:
        shared, work = SharedWork(), Counted()
        asked = [asyncio.create_task(shared.run("a", work)) for _ in range(5)]
        await settle()
        assert repr(shared) == "<shared: 1 running, 5 waiting>"
        work.go.set()
        assert await asyncio.gather(*asked) == ["made 1"] * 5
        assert repr(shared) == "<shared: 0 running, 0 waiting>"

    async def test_work_asked_again_later_is_done_again(self) -> None:
        shared, work = SharedWork(), Counted()
        work.go.set()
        assert await shared.run("a", work) == "made 1"
        await settle()
        assert await shared.run("a", work) == "made 2"

    async def test_different_work_runs_side_by_side(self) -> None:
        shared, one, two = SharedWork(), Counted(), Counted()
        asked = [asyncio.create_task(shared.run("1", one)), asyncio.create_task(shared.run("2", two))]
        await settle()
        assert repr(shared) == "<shared: 2 running, 2 waiting>"
        one.go.set()
        two.go.set()
        await asyncio.gather(*asked)

    async def test_a_caller_that_leaves_does_not_take_the_work_with_it(self) -> None:
        shared, work = SharedWork(), Counted()
        first, second = (asyncio.create_task(shared.run("a", work)) for _ in range(2))
        await settle()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert repr(shared) == "<shared: 1 running, 1 waiting>"
        work.go.set()
        assert await second == "made 1"

    async def test_when_the_last_caller_has_left_the_work_has_ended(self) -> None:
        shared, work = SharedWork(), Counted()
        asked = [asyncio.create_task(shared.run("a", work)) for _ in range(3)]
        await settle()
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        assert (work.begun, work.cancelled) == (1, 1)
        assert repr(shared) == "<shared: 0 running, 0 waiting>"
        assert not others()

    async def test_a_caller_that_comes_while_abandoned_work_ends_gets_fresh_work(self) -> None:
        shared, work = SharedWork(), Counted()
        first = asyncio.create_task(shared.run("a", work))
        await settle()
        first.cancel()
        await settle()
        second = asyncio.create_task(shared.run("a", work))
        await settle()
        work.go.set()
        assert await second == "made 2"
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_a_failure_reaches_every_caller_with_its_type_and_is_not_kept(self) -> None:
        shared, work = SharedWork(), Counted()
        asked = [asyncio.create_task(shared.run("a", lambda: fail(EngineBusy()))) for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(exc) for exc in found] == [EngineBusy] * 3
        work.go.set()
        assert await shared.run("a", work) == "made 1"


class TestKeyedLocks:
    async def test_the_same_key_is_held_by_one_at_a_time_and_forgotten_after(self) -> None:
        locks, inside, most = KeyedLocks(), 0, 0

        async def work() -> None:
            nonlocal inside, most
            async with locks.hold("a"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(10)))
        assert (most, repr(locks)) == (1, "<locks: 0 held>")

    async def test_another_key_does_not_wait(self) -> None:
        locks = KeyedLocks()
        async with locks.hold("a"), locks.hold("b"):
            assert repr(locks) == "<locks: 2 held>"

    async def test_a_waiter_that_leaves_lets_the_next_one_in(self) -> None:
        locks = KeyedLocks()

        async def work() -> str:
            async with locks.hold("a"):
                return "done"

        async with locks.hold("a"):
            first, second = asyncio.create_task(work()), asyncio.create_task(work())
            await settle()
            first.cancel()
        assert await second == "done"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert repr(locks) == "<locks: 0 held>"


class TestForever:
    async def test_a_failure_is_told_and_does_not_end_the_series(self) -> None:
        told: list[Exception] = []
        runs = 0

        async def work() -> None:
            nonlocal runs
            runs += 1
            if runs % 2:
                raise EngineBusy

        task = asyncio.create_task(forever(work, 0, told.append))
        while runs < 4:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [type(exc) for exc in told] == [EngineBusy, EngineBusy]
