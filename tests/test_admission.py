"""The gate: who is inside, who waits, who is refused. Its repr is the specification."""

import asyncio
import random

import pytest

from gateway.admission import Gate
from gateway.errors import EngineBusy


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def waiting(gate: Gate) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(gate.acquire())


async def test_slots_are_taken_and_given_back() -> None:
    gate = Gate("tts", 2, 8)
    assert repr(gate) == "<tts: 0/2 running, 0/8 waiting>"
    async with gate.enter():
        assert repr(gate) == "<tts: 1/2 running, 0/8 waiting>"
        async with gate.enter():
            assert repr(gate) == "<tts: 2/2 running, 0/8 waiting>"
    assert repr(gate) == "<tts: 0/2 running, 0/8 waiting>"


async def test_a_failure_inside_gives_the_slot_back() -> None:
    gate = Gate("tts", 1, 0)
    with pytest.raises(KeyError):
        async with gate.enter():
            raise KeyError
    assert repr(gate) == "<tts: 0/1 running, 0/0 waiting>"


async def test_a_full_gate_refuses_rather_than_queues_for_ever() -> None:
    gate = Gate("tts", 1, 2)
    await gate.acquire()
    tasks = [waiting(gate), waiting(gate)]
    await settle()
    assert repr(gate) == "<tts: 1/1 running, 2/2 waiting>"
    with pytest.raises(EngineBusy, match="1 are served and 2 wait") as caught:
        await gate.acquire()
    assert caught.value.retry_after
    for _ in tasks:
        gate.release()
    await asyncio.gather(*tasks)
    assert repr(gate) == "<tts: 1/1 running, 0/2 waiting>"


async def test_without_a_queue_nobody_waits() -> None:
    gate = Gate("tts", 1, 0)
    await gate.acquire()
    with pytest.raises(EngineBusy):
        await gate.acquire()


async def test_who_comes_first_is_served_first() -> None:
    gate = Gate("tts", 1, 100)
    order: list[int] = []

    async def visit(number: int) -> None:
        async with gate.enter():
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(visit(number))
    assert order == list(range(20))


async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    first = waiting(gate)
    await settle()
    gate.release()  # the slot is promised to `first`, which has not run yet
    second = waiting(gate)
    await settle()
    assert first.done()
    assert not second.done()
    gate.release()
    await second


async def test_one_that_is_cancelled_in_the_queue_leaves_it() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    gone, next_one = waiting(gate), waiting(gate)
    await settle()
    gone.cancel()
    await settle()
    assert repr(gate) == "<tts: 1/1 running, 1/8 waiting>"
    gate.release()
    await next_one
    assert repr(gate) == "<tts: 1/1 running, 0/8 waiting>"


async def test_one_that_is_cancelled_in_the_moment_of_its_turn_passes_the_slot_on() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    gone, next_one = waiting(gate), waiting(gate)
    await settle()
    gate.release()
    gone.cancel()
    await next_one
    assert gone.cancelled()
    assert repr(gate) == "<tts: 1/1 running, 0/8 waiting>"
    gate.release()
    assert repr(gate) == "<tts: 0/1 running, 0/8 waiting>"


async def test_a_slot_freed_in_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    gone, next_one = waiting(gate), waiting(gate)
    await settle()
    gone.cancel()
    gate.release()
    await next_one
    assert gone.cancelled()
    assert repr(gate) == "<tts: 1/1 running, 0/8 waiting>"


async def test_a_slot_freed_in_the_moment_the_last_waiter_is_cancelled_is_free() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    gone = waiting(gate)
    await settle()
    gone.cancel()
    gate.release()
    await settle()
    assert repr(gate) == "<tts: 0/1 running, 0/8 waiting>"
    async with asyncio.timeout(1):
        await gate.acquire()


async def test_more_slots_let_waiters_in_at_once() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    tasks = [waiting(gate) for _ in range(3)]
    await settle()
    gate.resize(3)
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    assert repr(gate) == "<tts: 3/3 running, 1/8 waiting>"
    gate.release()
    await tasks[2]


async def test_fewer_slots_take_effect_as_requests_end() -> None:
    gate = Gate("tts", 2, 8)
    await gate.acquire()
    await gate.acquire()
    task = waiting(gate)
    await settle()
    gate.resize(1)
    assert repr(gate) == "<tts: 2/1 running, 1/8 waiting>"
    gate.release()
    await settle()
    assert not task.done()
    gate.release()
    await task
    assert repr(gate) == "<tts: 1/1 running, 0/8 waiting>"


@pytest.mark.parametrize("seed", range(5))
async def test_no_slot_is_lost_or_gained_whatever_happens(seed: int) -> None:
    """Visitors that come, are cancelled at any moment and leave, while the size changes."""
    chance = random.Random(seed)
    gate = Gate("tts", 3, 10)
    inside = most = 0

    async def visit() -> None:
        nonlocal inside, most
        async with gate.enter():
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                inside -= 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(2000):
        match chance.randrange(6):
            case 0 | 1 | 2:
                tasks.append(asyncio.get_running_loop().create_task(visit()))
            case 3:
                if tasks:
                    chance.choice(tasks[-20:]).cancel()
            case 4:
                gate.resize(chance.randint(1, 5))
            case 5:
                await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most <= 5
    assert inside == gate.running == gate.waiting == 0


async def test_a_wait_that_lasts_too_long_is_refused_and_gives_up_its_place() -> None:
    gate = Gate("tts", 1, 8, patience=0.02)
    async with gate.enter():
        with pytest.raises(EngineBusy, match="none of 1 places came free in 0.02 s"):
            await gate.acquire()
    assert repr(gate) == "<tts: 0/1 running, 0/8 waiting>"


async def test_who_waits_is_told_each_new_place_and_about_how_long() -> None:
    gate = Gate("tts", 1, 8)
    told: dict[str, list[int]] = {"first": [], "second": []}
    estimates: list[float] = []

    async def visit(name: str) -> None:
        def moved(place: int, seconds: float) -> None:
            told[name].append(place)
            estimates.append(seconds)

        async with gate.enter(moved):
            pass

    await gate.acquire()
    tasks = [asyncio.get_running_loop().create_task(visit(name)) for name in told]
    await settle()
    assert told == {"first": [1], "second": [2]}
    assert estimates[1] == 2 * estimates[0] > 0
    gate.release()
    await asyncio.gather(*tasks)
    assert told == {"first": [1], "second": [2, 1]}


async def test_who_need_not_wait_is_told_nothing() -> None:
    gate = Gate("tts", 1, 8)
    async with gate.enter(lambda _place, _seconds: pytest.fail("told of a queue")):
        pass


async def test_a_place_moves_up_when_one_in_front_leaves_the_queue() -> None:
    gate = Gate("tts", 1, 8)
    await gate.acquire()
    places: list[int] = []
    gone = waiting(gate)
    await settle()
    behind = asyncio.get_running_loop().create_task(gate.acquire(lambda place, _: places.append(place)))
    await settle()
    gone.cancel()
    await settle()
    assert places == [2, 1]
    gate.release()
    await behind


async def test_estimates_follow_how_long_visits_last() -> None:
    gate = Gate("tts", 1, 8)
    async with gate.enter():
        await asyncio.sleep(0.05)
    await gate.acquire()
    estimates: list[float] = []
    task = asyncio.get_running_loop().create_task(gate.acquire(lambda _, seconds: estimates.append(seconds)))
    await settle()
    assert estimates[0] < 1, "not the seconds that were assumed before the first visit"
    gate.release()
    await task
