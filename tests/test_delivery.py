"""Narrated speech in the format that its client wants: whole sentences, and a free event loop."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.delivery import Delivered, Packed, Wanted, deliver
from gateway.encoding import FORMATS, Encoders
from gateway.errors import EngineBroke
from gateway.events import Audio
from gateway.narration import Narrated, SentenceBegin, SentenceEnd
from tests.sound import decoded, tone

ENCODERS = Encoders(2)


async def sentences(count: int, seconds: float = 0.5, rate: int = 24000) -> AsyncIterator[Narrated]:
    sound = tone(rate, seconds)
    for index in range(count):
        yield SentenceBegin(index + 1, "a", index * seconds)
        for at in range(0, len(sound), 4800):
            yield Audio(sound[at : at + 4800], rate)
        yield SentenceEnd(index + 1, "a", index * seconds, (index + 1) * seconds)


async def delivered(wanted: Wanted, count: int = 3) -> list[Delivered]:
    async with deliver(sentences(count), ENCODERS, wanted) as events:
        return [event async for event in events]


@pytest.mark.parametrize("rate", [8000, 22050, 24000])
@pytest.mark.parametrize("pitch", [1.0, 1.3])
async def test_all_of_a_sentence_is_out_before_its_end(rate: int, pitch: float) -> None:
    inside: list[int] = []
    for event in await delivered(Wanted("pcm", rate, pitch=pitch)):
        if isinstance(event, SentenceBegin):
            inside.append(0)
        elif isinstance(event, Packed):
            inside[-1] += len(event.data) // 2
    assert inside == [rate // 2] * 3


@pytest.mark.parametrize("name", FORMATS)
async def test_it_is_one_stream_of_any_format(name: str) -> None:
    events = await delivered(Wanted(name, 24000, gain=0.5, pitch=0.9))
    stream = b"".join(event.data for event in events if isinstance(event, Packed))
    raw = ["-f", "s16le", "-ar", "24000", "-ac", "1"] if name == "pcm" else []
    assert len(decoded(stream, 24000, *raw)) / 24000 == pytest.approx(1.5, abs=0.15)
    assert all(event.data for event in events if isinstance(event, Packed))


async def test_what_is_told_of_the_sound_grows_with_it() -> None:
    told = [event.until for event in await delivered(Wanted("pcm", 16000), 1) if isinstance(event, Packed)]
    assert told[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


async def test_a_failure_leaves_it_as_it_is() -> None:
    async def broken() -> AsyncIterator[Narrated]:
        yield Audio(tone(24000, 0.2), 24000)
        raise EngineBroke("it died")

    heard = []
    with pytest.raises(EngineBroke, match="it died"):
        async with deliver(broken(), ENCODERS, Wanted("wav", 24000)) as events:
            async for event in events:
                heard.append(event)  # noqa: PERF401  (a list would be lost with the failure)
    assert heard


async def test_the_loop_is_free_meanwhile() -> None:
    """W16: decoding and encoding stood in the way of every other stream."""
    late: list[float] = []

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            late.append(loop.time() - due)

    async def one() -> None:
        async with deliver(sentences(4, 2.0), ENCODERS, Wanted("mp3", 44100, gain=1.5, pitch=1.2)) as events:
            async for _ in events:
                pass

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        async with asyncio.TaskGroup() as streams:
            for _ in range(8):
                streams.create_task(one())
        watching.cancel()
    assert sorted(late)[len(late) // 2] < 0.02
