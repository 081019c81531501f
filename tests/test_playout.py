"""Replies at the pace of speech: what waits, what overtakes what, what a cut leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import TooSlow
from gateway.events import Audio, Opus
from gateway.playout import LEAD, MOST_SECONDS, Playout
from gateway.wire import opus
from tests.surfaces.talker import pages_of, pitch, tone


class Client:
    """What arrives, and when."""

    def __init__(self, patience: float = 5.0, delay: float = 0.0) -> None:
        self.got: list[tuple[float, bytes]] = []
        self.delay = delay
        self.playout = Playout(self.receive, lambda page: b"\1" + page, patience)

    async def receive(self, message: bytes) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        self.got.append((asyncio.get_running_loop().time(), message))

    def kinds(self) -> list[str]:
        """ "a" for sound, otherwise the message."""
        return ["a" if message[:1] == b"\1" else message.decode() for _, message in self.got]

    def pages(self) -> list[bytes]:
        cut = opus.Pages()
        return [page for _, message in self.got if message[:1] == b"\1" for page in cut.feed(message[1:])]

    def seconds(self) -> float:
        return sum(map(opus.seconds, self.pages()))

    def end(self, turn: int) -> None:
        self.playout.end(turn, lambda seconds, cut: json.dumps([turn, round(seconds, 2), cut]).encode())

    async def until(self, message: str) -> None:
        async with asyncio.timeout(5):
            while message not in self.kinds():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def playing(client: Client) -> AsyncIterator[Playout]:
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(client.playout.run())
        yield client.playout
        run.cancel()


def pcm(seconds: float, hertz: float = 440.0) -> Audio:
    return Audio(tone(seconds, hertz), 24_000)


async def test_the_lead_comes_at_once_and_the_rest_in_time() -> None:
    client = Client()
    async with playing(client) as playout:
        for page in pages_of(tone(1.5)):
            await playout.play(1, Opus(page))
        client.end(1)
        assert LEAD <= client.seconds() <= LEAD + 0.09
        await client.until("[1, 1.56, false]")
    times = [at for at, _ in client.got]
    assert 0.4 < times[-1] - times[0] < 0.8


async def test_pages_pass_unchanged_and_in_order() -> None:
    client, pages = Client(), pages_of(tone(1.2))
    async with playing(client) as playout:
        for page in pages:
            await playout.play(1, Opus(page))
        client.end(1)
        await client.until("[1, 1.24, false]")
    assert client.pages() == pages


async def test_words_overtake_the_sound_of_their_turn_and_of_no_other() -> None:
    client = Client()
    async with playing(client) as playout:
        await playout.play(1, pcm(1.4))
        await playout.say(1, b"one")
        client.end(1)
        await playout.say(2, b"two")
        await playout.play(2, pcm(0.1))
        await playout.say(2, b"more")
        client.end(2)
        assert "one" in client.kinds() and "two" not in client.kinds()
        await client.until("[2, 0.16, false]")
    order = [kind for kind in client.kinds() if kind != "a"]
    assert order == ["one", "[1, 1.44, false]", "two", "more", "[2, 0.16, false]"]
    assert client.kinds().index("[1, 1.44, false]") == len(client.kinds()) - 1 - client.kinds()[::-1].index("two") - 1


async def test_who_brings_too_much_has_to_wait() -> None:
    client = Client()
    async with playing(client) as playout:
        brought = 0

        async def bring() -> None:
            nonlocal brought
            while True:
                await playout.play(1, pcm(0.5))
                brought += 1

        async with asyncio.TaskGroup() as tasks:
            bringing = tasks.create_task(bring())
            await asyncio.sleep(0.3)
            assert brought * 0.5 <= LEAD + MOST_SECONDS + 1.0
            before = brought
            playout.cut()
            await asyncio.sleep(0.05)
            assert brought > before, "a cut makes room"
            bringing.cancel()


async def test_a_cut_leaves_the_ends_and_what_is_no_reply() -> None:
    client = Client()
    async with playing(client) as playout:
        await playout.play(1, pcm(3.0))
        client.end(1)
        await playout.say(2, b"answer", reply=True)
        await playout.say(2, b"heard")
        await playout.play(2, pcm(3.0))
        client.end(2)
        assert playout.cut()
        await playout.hush()
        await client.until("[2, 0.0, true]")
    assert [kind for kind in client.kinds() if kind != "a"] == [
        next(kind for kind in client.kinds() if kind.startswith("[1, ") and kind.endswith("true]")),
        "heard",
        "[2, 0.0, true]",
    ]
    assert client.seconds() <= LEAD + 0.13


async def test_a_cut_keeps_the_headers_of_a_stream() -> None:
    client, pages = Client(), pages_of(tone(0.2))
    async with playing(client) as playout:
        await playout.play(1, pcm(2.0))
        for page in pages:
            await playout.play(2, Opus(page))
        playout.cut()
        for page in pages[4:]:
            await playout.play(3, Opus(page))
        client.end(3)
        await client.until(f"[3, {0.04 * len(pages[4:])}, false]")
    numbers = [page for page in client.pages() if page in pages]
    assert numbers == pages[:2] + pages[4:]


async def test_after_a_cut_the_next_reply_comes_at_once_and_clean() -> None:
    client = Client()
    async with playing(client) as playout:
        await playout.play(1, pcm(5.0, 400))
        await asyncio.sleep(0.05)
        playout.cut()
        await playout.hush()
        before = len(client.pages())
        begun = asyncio.get_running_loop().time()
        await playout.play(2, pcm(0.5, 1000))
        client.end(2)
        await client.until("[2, 0.56, false]")
        assert asyncio.get_running_loop().time() - begun < 0.2
    unpacker = opus.Unpacker()
    heard = [unpacker.feed(page) for page in client.pages()]
    assert abs(pitch(b"".join(heard[before:])) - 1000) < 5


async def test_nothing_to_hear_is_nothing_to_cut() -> None:
    client = Client()
    async with playing(client) as playout:
        assert not playout.cut()
        await playout.hush()
        assert not client.got
        await playout.play(1, pcm(0.2))
        client.end(1)
        await client.until("[1, 0.24, false]")
        assert playout.cut(), "the client is still hearing it"


async def test_who_holds_up_a_reply_too_long_is_too_slow() -> None:
    client = Client(patience=0.2, delay=0.03)
    with pytest.raises(TooSlow):
        try:
            async with playing(client) as playout:
                await playout.play(1, pcm(2.0))
                await asyncio.sleep(2)
        except* TooSlow as group:
            raise group.exceptions[0] from None
    assert len(client.got) < 12


async def test_a_rate_that_changes_in_a_reply_loses_nothing() -> None:
    client = Client()
    async with playing(client) as playout:
        for rate in (16_000, 48_000, 24_000, 22_050):
            await playout.play(1, Audio(tone(0.2, 600, rate), rate))
        client.end(1)
        await client.until("[1, 0.84, false]")
    unpacker = opus.Unpacker()
    heard = b"".join(map(unpacker.feed, client.pages()))
    assert abs(pitch(heard) - 600) < 5


async def test_a_later_turn_overtakes_no_end_that_its_client_is_slow_to_take() -> None:
    client = Client(delay=0.02)
    async with playing(client) as playout:
        await playout.play(1, pcm(0.1))
        client.end(1)
        while "a" not in client.kinds():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        await playout.say(2, b"two")
        await client.until("two")
        await client.until("[1, 0.16, false]")
    assert client.kinds()[-2:] == ["[1, 0.16, false]", "two"]
