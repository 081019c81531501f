"""Work in threads: what is needed soonest is done first, and nothing is lost."""

import asyncio
import threading

import pytest

from gateway.urgency import Threads


@pytest.fixture
def one() -> Threads:
    return Threads(1, "test")


async def test_the_soonest_is_done_first_and_equals_in_order(one: Threads) -> None:
    free, order = threading.Event(), []
    busy = one.submit(free.wait, 0.0)
    works = [one.submit(lambda due=due: order.append(due), due) for due in (3.0, 1.0, 2.0)]  # type: ignore[misc]
    works += [one.submit(lambda name=name: order.append(name), 2.0) for name in "ab"]  # type: ignore[misc]
    assert repr(one).startswith("<test: 1 threads, ")
    free.set()
    await asyncio.gather(busy, *works)
    assert order == [1.0, 2.0, "a", "b", 3.0]


async def test_the_loop_runs_on_and_several_threads_work_at_a_time() -> None:
    both = threading.Barrier(2, timeout=5)
    two = Threads(2, "test")
    await asyncio.gather(two.submit(both.wait, 0.0), two.submit(both.wait, 0.0))


async def test_a_failure_is_the_caller_s_and_the_thread_goes_on(one: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        await one.submit(lambda: 1 / 0, 0.0)
    assert await one.submit(lambda: 1, 0.0) == 1


async def test_what_is_cancelled_before_it_begins_is_not_done(one: Threads) -> None:
    free, done = threading.Event(), []
    busy = one.submit(free.wait, 0.0)
    work = one.submit(lambda: done.append(1), 1.0)
    work.cancel()
    await asyncio.sleep(0)
    free.set()
    await busy
    await one.submit(lambda: None, 2.0)
    assert not done


async def test_what_was_submitted_before_the_end_is_done(one: Threads) -> None:
    works = [one.submit(lambda: 1, float(number)) for number in range(20)]
    one.close()
    assert sum(await asyncio.gather(*works)) == 20


def test_one_that_was_never_used_starts_no_thread(one: Threads) -> None:
    before = threading.active_count()
    one.close()
    Threads(3, "test")
    assert threading.active_count() == before
