"""What a client is to be told waits in order, within bounds, and replies can be taken back."""

import asyncio

from gateway import outbox
from gateway.events import Audio, Opus, Phase, ReplyAudio, ReplyText, Transcript, Turn
from gateway.outbox import Ended, Out, Outbox, Speech
from gateway.wire import opus


def sound(turn: int, seconds: float = 1.0) -> ReplyAudio:
    return ReplyAudio(turn, Audio(bytes(2 * int(seconds * 24_000)), 24_000))


async def rest(box: Outbox) -> list[Out]:
    box.close()
    found = []
    while (event := await box.get()) is not None:
        found.append(event)
    return found


async def test_a_reader_that_waits_is_woken_by_an_event_and_by_the_end() -> None:
    box = Outbox()
    waiting = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.put(Speech(1, True, 0.5))
    assert await waiting == Speech(1, True, 0.5)
    waiting = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.close()
    assert await waiting is None


async def test_the_engine_waits_for_room_which_reading_and_taking_back_make() -> None:
    for make in ("read", "take back"):
        box = Outbox()
        while not box.full:
            box.put(sound(1))
        assert 20 <= outbox.MOST_BYTES / 48_000 < 25, "seconds of PCM"
        waiting = asyncio.create_task(box.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        if make == "read":
            await box.get()
        else:
            box.drop_replies()
        await asyncio.wait_for(waiting, 1)


async def test_replies_are_taken_back_and_what_is_no_reply_stays_in_order() -> None:
    box, timings = Outbox(), {"first_audio": 1.0}
    heard, over = Transcript("x", "", utterance=1), Ended(1, "completed", timings)
    for event in (Speech(1, True, 0), heard, Turn(1, Phase.WORKING), ReplyText(1, "a"), sound(1), over):
        box.put(event)
    box.drop_replies()
    assert await rest(box) == [Speech(1, True, 0), heard, Ended(1, "cancelled", timings)]
    assert repr(box) == "<outbox: 0 events, 0 bytes>"


async def test_a_turn_of_which_nothing_was_taken_back_ended_as_it_did() -> None:
    box = Outbox()
    for event in (Ended(1, "completed"), Ended(2, "failed"), ReplyText(2, "x"), sound(3)):
        box.put(event)
    box.drop_replies()
    assert await rest(box) == [Ended(1, "completed"), Ended(2, "failed")]


def pages() -> list[Opus]:
    packer, cut = opus.Packer(), opus.Pages()
    return [Opus(page) for message in packer.feed(bytes(20_000)) for page in cut.feed(message)]


async def test_headers_that_were_taken_back_come_with_the_next_audio() -> None:
    box, (head, tags, first, second, *_) = Outbox(), pages()
    for page in (head, tags, first):
        box.put(ReplyAudio(1, page))
    box.drop_replies()
    box.put(ReplyText(2, "x"))
    box.put(ReplyAudio(2, second))
    assert await rest(box) == [ReplyText(2, "x"), *(ReplyAudio(2, page) for page in (head, tags, second))]


async def test_but_not_before_a_stream_that_brings_its_own() -> None:
    box, (head, tags, first, *_) = Outbox(), pages()
    box.drop(ReplyAudio(1, head))
    box.drop(ReplyAudio(1, tags))
    for page in (head, tags, first):
        box.put(ReplyAudio(2, page))
    assert await rest(box) == [ReplyAudio(2, page) for page in (head, tags, first)]
