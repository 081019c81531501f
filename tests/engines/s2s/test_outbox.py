import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engines.s2s.outbox import Outbox, Pace, TooSlow
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus
from tests.engines.s2s.talking import tone


class Wire:
    """What a client reads, when it does."""

    def __init__(self) -> None:
        self.got: list[tuple[float, wire.Message]] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, data: bytes) -> None:
        await self.reads.wait()
        self.got.append((time.monotonic(), wire.decode(data)))

    def sounds(self) -> list[float]:
        return [at for at, one in self.got if isinstance(one, wire.Audio)]


def nothing() -> None:
    pass


@asynccontextmanager
async def writing(pace: Pace) -> AsyncIterator[tuple[Outbox, Wire]]:
    line = Wire()
    outbox = Outbox(line.send, pace)
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(outbox.write())
        yield outbox, line
        work.cancel()


async def test_messages_overtake_sound_and_what_ends_a_reply_does_not() -> None:
    async with writing(Pace(lead=0.2)) as (outbox, line):
        ended = asyncio.Event()
        await outbox.sound(tone(0.6), nothing)
        outbox.behind(ended.set)
        await asyncio.sleep(0.1)
        outbox.say(wire.Text("now"))
        await asyncio.sleep(0.05)
        assert wire.Text("now") in [one for _, one in line.got]
        assert not ended.is_set()
        await asyncio.wait_for(ended.wait(), 2)
        assert len(line.sounds()) == 16, "0.6 s, and a page for what the codec holds back"
        assert line.sounds()[-1] - line.sounds()[0] == pytest.approx(0.64 - 0.2 - 0.04, abs=0.1)


async def test_the_end_of_a_reply_without_sound_does_not_wait() -> None:
    async with writing(Pace()) as (outbox, _):
        ended = asyncio.Event()
        outbox.behind(ended.set)
        await asyncio.wait_for(ended.wait(), 0.5)


async def test_what_is_dropped_is_neither_sent_nor_ended() -> None:
    async with writing(Pace(lead=0.1)) as (outbox, line):
        await outbox.sound(tone(5.0), nothing)
        outbox.behind(lambda: pytest.fail("it was dropped"))
        await asyncio.sleep(0.1)
        outbox.drop()
        before = len(line.sounds())
        await asyncio.sleep(0.2)
        assert len(line.sounds()) == before < 10


async def test_a_break_in_the_sound_does_not_make_what_follows_hurry() -> None:
    async with writing(Pace(lead=0.1)) as (outbox, line):
        await outbox.sound(tone(0.04), nothing)
        await asyncio.sleep(0.4)
        await outbox.sound(tone(0.4), nothing)
        await asyncio.sleep(0.15)
        assert len(line.sounds()) < 9


async def test_who_makes_sound_waits_where_too_much_is_unsent() -> None:
    async with writing(Pace(lead=0.0, waiting=0.5)) as (outbox, _):
        began = time.monotonic()
        await outbox.sound(tone(1.0), nothing)
        assert time.monotonic() - began > 0.4
        await asyncio.wait_for(outbox.sound(b"", nothing), 1)


async def test_who_waits_for_room_goes_on_when_all_is_dropped() -> None:
    async with writing(Pace(lead=0.0, waiting=0.5)) as (outbox, _), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outbox.sound(tone(60.0), nothing))
        await asyncio.sleep(0.05)
        outbox.drop()
        await asyncio.wait_for(waiting, 1)


async def test_a_silent_connection_is_kept_alive() -> None:
    async with writing(Pace(ping=0.1)) as (outbox, line):
        await asyncio.sleep(0.35)
        assert [one for _, one in line.got] == [wire.Ping()] * 3
        outbox.say(wire.Text("x"))
        await asyncio.sleep(0.05)
        assert len(line.got) == 4


async def test_who_reads_nothing_is_given_up() -> None:
    line = Wire()
    line.reads.clear()
    outbox = Outbox(line.send, Pace(unread=0.1))
    outbox.say(wire.Text("x"))
    with pytest.raises(TooSlow, match="nothing has been read for 0.1 s"):
        await asyncio.wait_for(outbox.write(), 1)


async def test_what_waits_for_who_does_not_read_is_bounded() -> None:
    line = Wire()
    line.reads.clear()
    outbox = Outbox(line.send, Pace())
    for _ in range(10_000):
        outbox.say(wire.Text("x"))
    assert repr(outbox) == "<2001 messages, 0.0 s of sound>"
    with pytest.raises(TooSlow):
        outbox.check()
    with pytest.raises(TooSlow):
        await asyncio.wait_for(outbox.write(), 1)


async def test_what_waits_for_who_has_left_is_let_go() -> None:
    outbox = Outbox(Wire().send, Pace())
    outbox.say(wire.Text("x"))
    await outbox.sound(tone(1.0), nothing)
    outbox.forget()
    assert repr(outbox) == "<0 messages, 0.0 s of sound>"


async def test_replies_share_one_stream() -> None:
    async with writing(Pace(lead=1.0)) as (outbox, line):
        for _ in range(2):
            await outbox.sound(tone(0.1), nothing)
            outbox.behind(nothing)
        await asyncio.sleep(0.2)
        messages = [one.pages for _, one in line.got if isinstance(one, wire.Audio)]
        assert len(messages) == 8
        unpacker, pages = opus.Unpacker(), opus.Pages()
        pcm = b"".join(unpacker.feed(page) for data in messages for page in pages.feed(data))
        assert len(pcm) == 8 * 2 * opus.FRAME
        assert sum(message.count(b"OpusHead") for message in messages) == 1
