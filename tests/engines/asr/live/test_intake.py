"""What waits to be heard is bounded, in order, and never too old."""

import asyncio

import pytest

from engines.asr.live.intake import PIECE, Intake, TooSlow


async def test_frames_keep_their_order_and_audio_that_waits_comes_as_one() -> None:
    intake = Intake(10)
    for frame in ("config", b"ab", b"cd", "end", b"ef"):
        await intake.put(frame)
    assert [await intake.get() for _ in range(4)] == ["config", b"abcd", "end", b"ef"]


async def test_not_more_of_it_than_is_worked_through_at_once() -> None:
    intake = Intake(10)
    for _ in range(4):
        await intake.put(bytes(PIECE // 2))
    assert [len(await intake.get()) for _ in range(2)] == [PIECE, PIECE]


async def test_it_waits_for_room() -> None:
    intake = Intake(1)
    await intake.put(bytes(32_000))
    waiting = asyncio.ensure_future(intake.put(bytes(32_000)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await intake.get()
    await waiting
    assert repr(intake) == "<1 frames, 32000 of 32000 bytes>"


async def test_its_room_is_a_time_at_any_rate() -> None:
    intake = Intake(1)
    intake.rate = 48_000
    for _ in range(3):
        await intake.put(bytes(32_000))
    assert "96000 of 96000" in repr(intake)


async def test_frames_without_content_are_bounded_too() -> None:
    intake = Intake(0.1)
    with pytest.raises(TooSlow):
        for _ in range(1000):
            await intake.put("")


async def test_nobody_who_makes_room_is_too_slow() -> None:
    intake = Intake(0.05)
    await intake.put(bytes(1600))
    with pytest.raises(TooSlow, match="more than 0.05 s behind"):
        await intake.put(bytes(1600))


async def test_a_frame_that_waited_too_long_is_too_late() -> None:
    intake = Intake(0.05)
    await intake.put(b"ab")
    await asyncio.sleep(0.1)
    with pytest.raises(TooSlow):
        await intake.get()
