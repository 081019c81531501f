import asyncio
import random

import pytest

from engines.s2s.line import Line
from engines.workers.pool import Busy


async def test_who_waits_is_let_in_in_order_and_told_each_place() -> None:
    line = Line(1, 3)
    told: dict[int, list[int]] = {number: [] for number in range(4)}
    order: list[int] = []

    async def turn(number: int) -> None:
        async with line.place(lambda place, seconds: told[number].append(place)):
            order.append(number)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(turn(number))
    assert order == [0, 1, 2, 3]
    assert told == {0: [], 1: [1], 2: [2, 1], 3: [3, 2, 1]}
    assert repr(line) == "<0/1 turns, 0/3 waiting>"


async def test_a_full_line_refuses() -> None:
    line = Line(1, 0)
    async with line.place(_nothing):
        with pytest.raises(Busy, match="1 turns are being answered and 0 wait"):
            async with line.place(_nothing):
                pass
    async with line.place(_nothing):
        assert repr(line) == "<1/1 turns, 0/0 waiting>"


async def test_the_estimate_follows_what_turns_take() -> None:
    line = Line(1, 1)
    for _ in range(30):
        async with line.place(_nothing):
            pass
    told: list[float] = []
    async with line.place(_nothing), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_wait(line, told))
        await asyncio.sleep(0)
        waiting.cancel()
    assert told == [0.1]


@pytest.mark.parametrize("seed", range(50))
async def test_whatever_is_cancelled_when_no_place_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    line, working, most = Line(2, 5), 0, 0

    async def turn() -> None:
        nonlocal working, most
        try:
            async with line.place(_nothing):
                working += 1
                most = max(most, working)
                try:
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    working -= 1
        except Busy:
            pass

    async with asyncio.TaskGroup() as tasks:
        running = []
        for _ in range(60):
            running.append(tasks.create_task(turn()))
            if chance.random() < 0.5:
                chance.choice(running).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
    assert most <= 2
    assert repr(line) == "<0/2 turns, 0/5 waiting>"


def _nothing(place: int, seconds: float) -> None:
    pass


async def _wait(line: Line, told: list[float]) -> None:
    async with line.place(lambda place, seconds: told.append(seconds)):
        pass
