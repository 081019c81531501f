"""Clients that leave at any byte, in the middle of whatever they do: nothing of them stays. Processes, as in use."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from bench.cycles import Stand, cycles, embedded, pages_of, relay, settled


@pytest.mark.parametrize("stand", [embedded, relay])
async def test_whoever_hangs_up_leaves_nothing_behind(stand: Callable[[], AbstractContextManager[Stand]]) -> None:
    pages = pages_of(None)
    with stand() as running:
        await cycles(running.port, pages, 8, seed=1)
        before = await asyncio.to_thread(settled, running)
        await cycles(running.port, pages, 24, seed=2)
        after = await asyncio.to_thread(settled, running, before)
        assert not after.more_than(before), f"{before} → {after}"
        assert not (after.conversations or after.places or after.files)
