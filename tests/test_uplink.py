"""What a client says waits in order, within bounds, and is forgotten once it is worth nothing."""

import asyncio

import pytest

from gateway import uplink
from gateway.errors import TooLarge
from gateway.events import Audio, Opus
from gateway.uplink import Turn, Uplink
from gateway.verbs import Begin, Cancel, Change, End, Preset, Said, Write
from gateway.wire import opus

SECOND = Audio(bytes(32_000), 16_000)


async def taken(line: Uplink) -> list[Said]:
    """Everything that waits."""
    found: list[Said] = []
    while "<uplink: 0 items" not in repr(line):
        found.append((await line.take())[0])
    return found


def header() -> Opus:
    return Opus(opus.Pages().feed(opus.Packer().feed(bytes(4000))[0])[0])


async def test_items_leave_in_order_with_the_turns_that_they_begin() -> None:
    line, turn = Uplink(), Turn(1, 0.0)
    line.hear(SECOND, 1.0)
    line.say(End(), turn)
    line.say(Cancel())
    assert line.turns == [turn]
    assert [await line.take() for _ in range(3)] == [(SECOND, None), (End(), turn), (Cancel(), None)]
    assert not line.turns


async def test_a_reader_that_waits_is_woken_and_one_that_has_left_takes_nothing_with_it() -> None:
    line = Uplink()
    waiting = asyncio.create_task(line.take())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    waiting = asyncio.create_task(line.take())
    await asyncio.sleep(0)
    line.say(Write("x"))
    assert await waiting == (Write("x"), None)


async def test_audio_is_bounded_by_its_seconds_and_taking_it_makes_room() -> None:
    line = Uplink()
    with pytest.raises(TooLarge):
        for _ in range(1000):
            line.hear(SECOND, 1.0)
    assert uplink.MOST_SECONDS <= len(await taken(line)) <= uplink.MOST_SECONDS + 1
    line.hear(SECOND, 1.0)


@pytest.mark.parametrize(("piece", "seconds"), [(Audio(bytes(192_000), 192_000), 0.5), (Opus(bytes(100)), 0.0)])
async def test_audio_is_bounded_by_its_size_too(piece: Audio | Opus, seconds: float) -> None:
    line, count = Uplink(), 0
    with pytest.raises(TooLarge):
        while count < 1_000_000:
            line.hear(piece, seconds)
            count += 1
    assert count <= uplink.MOST_ITEMS
    assert count * len(piece.pcm if isinstance(piece, Audio) else piece.page) <= uplink.MOST_BYTES + 200_000


async def test_a_restart_forgets_what_was_said_but_no_wish_and_no_header() -> None:
    line = Uplink()
    line.hear(header(), 0.0)
    line.hear(SECOND, 1.0)
    line.say(Change(persona="a"))
    line.say(End(), Turn(1, 0.0))
    line.say(Change(language="en"))
    line.restart()
    line.restart()
    assert line.restarts
    assert not line.turns
    assert await taken(line) == [header(), Change(persona="a", language="en"), Begin()]


def test_later_wishes_win_and_those_not_mentioned_stay() -> None:
    old = Change("a", Preset("b"), "en", True, ({"x": 1},))
    assert old.then(Change()) == old
    assert Change().then(old) == old
    assert old.then(Change("", Preset("c"), "", False, ())) == Change("", Preset("c"), "", False, ())


async def test_wishes_for_one_turn_are_one_wherever_they_come() -> None:
    """They are said before its audio ends, so no turn hears of them sooner or later."""
    line = Uplink()
    line.say(Change(persona="a"))
    for _ in range(50):
        line.hear(SECOND, 1.0)
        line.say(Change(tools=({"big": "x" * 1000},)))
    line.say(End(), Turn(1, 0.0))
    line.say(Change(language="en"))
    found = [one for one in await taken(line) if not isinstance(one, Audio)]
    assert found == [Change(persona="a", tools=({"big": "x" * 1000},)), End(), Change(language="en")]
