"""Encoded speech, decoded again: the same sound at the rate that is stated, from the first bytes on and to its end."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gateway.encoding import FORMATS, Encoder, Encoders
from gateway.wire import wav
from tests.sound import cents, decoded, described, hertz, lag, pcm, samples, tone

ENCODERS = Encoders(2)
DELAY = {"mp3": 1105, "aac": 1024, "m4a": 1024}
"""Samples of silence that a decoder of these gives first."""
CODED = [name for name, form in FORMATS.items() if form.codec]
RATES = (8000, 16000, 22050, 24000, 48000)


def raw(name: str, rate: int) -> list[str]:
    return ["-f", "s16le", "-ar", str(rate), "-ac", "1"] if name == "pcm" else []


async def encoded(encoder: Encoder, sound: bytes, piece: int = 4800) -> bytes:
    async with encoder:
        made = [await encoder.feed(sound[at : at + piece]) for at in range(0, len(sound), piece)]
        return b"".join([*made, await encoder.end()])


def rising(rate: int, seconds: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """A tone that is nowhere the same, so that what is where can be told."""
    t = np.arange(round(rate * seconds)) / rate
    return 0.5 * np.sin(2 * np.pi * (300 + 400 * t) * t)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("source", "target"), [(22050, None), *((24000, rate) for rate in RATES)])
async def test_the_pitch_stays_at_every_rate(name: str, source: int, target: int | None) -> None:
    encoder = ENCODERS.open(name, source, target)
    data = await encoded(encoder, tone(source, 2.0))
    rate = encoder.sample_rate
    if name != "opus":  # whose decoders give 48 kHz whatever it was made of
        assert f"{rate} Hz, mono" in described(data, *raw(name, rate))
    sound = decoded(data, rate, *raw(name, rate))
    assert cents(hertz(sound[rate // 2 : rate * 3 // 2], rate), 440) < 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [8000, 24000, 48000])
async def test_all_of_it_is_there_and_where_it_was(name: str, rate: int) -> None:
    original = rising(rate, 2.013)
    data = await encoded(ENCODERS.open(name, rate), pcm(original))
    sound = decoded(data, rate, *raw(name, rate))
    delay = DELAY.get(name, 0)
    assert abs(lag(sound, original) - delay) <= 1
    frame = {"mp3": 3 * 1152, "aac": 2 * 1024, "m4a": 2 * 1024}.get(name, 0)
    assert 0 <= len(sound) - len(original) - delay <= frame, "nothing lost, and no more padding than a codec's frames"
    tail = slice(delay + len(original) - rate // 50, delay + len(original))
    assert np.sqrt((sound[tail] ** 2).mean()) > 0.5 * np.sqrt((original[-rate // 50 :] ** 2).mean())


@pytest.mark.parametrize("name", FORMATS)
async def test_the_first_bytes_leave_with_the_first_piece(name: str) -> None:
    """Of 100 ms, as engines send them; and but for the codecs that look ahead they are sound, not only a header."""
    async with ENCODERS.open(name, 24000) as encoder:
        first = await encoder.feed(tone(24000, 0.1))
    assert len(first) > 300
    if name in ("opus", "wav", "pcm"):
        assert np.abs(decoded(first, 24000, *raw(name, 24000))).max() > 0.2


@pytest.mark.parametrize("name", CODED)
async def test_it_comes_as_it_is_fed(name: str) -> None:
    """No more than 150 ms of it are held back at any time: what came so far is what was fed so far."""
    rate = 24000
    async with ENCODERS.open(name, rate) as encoder:
        data = b"".join([await encoder.feed(tone(rate, 0.1)) for _ in range(10)])
    frames = {"mp3": 576, "aac": 1024, "m4a": 1024}
    heard = len(decoded(data, rate)) / rate if name != "flac" else 1.0
    assert heard > 1.0 - 0.15 - frames.get(name, 0) / rate


@pytest.mark.parametrize("name", FORMATS)
async def test_the_pieces_do_not_matter(name: str) -> None:
    sound = pcm(rising(24000, 1.3))
    ways = [await encoded(ENCODERS.open(name, 22050, 24000), sound, piece) for piece in (202, 12340, len(sound))]
    if name == "opus":  # each stream has a number of its own
        ways = [decoded(data, 24000).tobytes() for data in ways]
    assert ways[0] == ways[1] == ways[2]


async def test_pages_of_opus_are_short() -> None:
    data = await encoded(ENCODERS.open("opus", 24000), tone(24000, 1.0))
    assert data.count(b"OggS") >= 45, "a page each 20 ms"


async def test_what_is_lossless_loses_nothing() -> None:
    sound = pcm(rising(24000, 1.0))
    for name in ("flac", "wav", "pcm"):
        data = await encoded(ENCODERS.open(name, 24000), sound)
        assert decoded(data, 24000, *raw(name, 24000)).tobytes() == samples(sound).tobytes()


async def test_a_wav_has_no_length_and_states_the_rate_it_has() -> None:
    data = await encoded(ENCODERS.open("wav", 24000, 16000), tone(24000, 0.5))
    assert data[: wav.HEADER_BYTES] == wav.header(16000)
    assert len(data) - wav.HEADER_BYTES == 16000


@pytest.mark.parametrize(
    ("name", "wanted", "got"),
    [
        ("mp3", 22050, 22050),
        ("mp3", 96000, 48000),
        ("opus", 22050, 24000),
        ("opus", 44100, 48000),
        ("opus", 8000, 8000),
        ("aac", 23000, 24000),
        ("flac", 23456, 23456),
        ("wav", 11111, 11111),
        ("pcm", 96000, 96000),
    ],
)
def test_a_rate_that_cannot_be_carried_becomes_the_next(name: str, wanted: int, got: int) -> None:
    assert ENCODERS.open(name, 24000, wanted).sample_rate == got


@pytest.mark.parametrize("name", FORMATS)
async def test_nothing_fed_is_nothing_broken(name: str) -> None:
    async with ENCODERS.open(name, 24000, 16000) as encoder:
        assert len(await encoder.end()) <= wav.HEADER_BYTES


@pytest.mark.parametrize("name", CODED)
async def test_one_that_is_left_in_the_middle_frees_its_memory(name: str) -> None:
    async def some() -> int:
        for _ in range(40):
            async with ENCODERS.open(name, 24000) as encoder:
                await encoder.feed(tone(24000, 0.1))
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    await some()
    before = await some()
    assert await some() - before < 40 * 100_000, "an unclosed FLAC encoder keeps a megabyte"


async def test_one_that_is_cancelled_at_work_is_closed_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, free = Encoders(1), threading.Event()
    closed: list[bool] = []
    encoder = threads.open("flac", 24000)
    line = encoder._line
    assert line is not None
    monkeypatch.setattr(type(line), "close", lambda _: closed.append(free.is_set()))
    threads._threads.submit(free.wait, 0.0)

    async def use() -> None:
        async with encoder:
            await encoder.feed(tone(24000, 0.1))

    task = asyncio.get_running_loop().create_task(use())
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, free.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_the_event_loop_runs_on_while_sound_is_packed() -> None:
    """A minute of it at once, which takes a core half a second."""
    async with ENCODERS.open("mp3", 24000) as encoder:
        work = asyncio.get_running_loop().create_task(encoder.feed(tone(24000, 60.0)))
        turns, began = 0, time.perf_counter()
        while not work.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 1000 * (time.perf_counter() - began)


async def test_short_streams_have_their_turn_beside_a_long_piece() -> None:
    threads = Encoders(1)
    async with threads.open("mp3", 24000) as long, threads.open("mp3", 24000) as short:
        work = asyncio.get_running_loop().create_task(long.feed(tone(24000, 120.0)))
        await asyncio.sleep(0)
        await short.feed(tone(24000, 0.1))
        assert not work.done()
        await work


async def test_who_has_heard_nothing_yet_goes_before_who_has_much_to_hear() -> None:
    threads, order = Encoders(1), []

    async def feed(encoder: Encoder, name: str) -> None:
        await encoder.feed(tone(24000, 0.1))
        order.append(name)

    async with threads.open("mp3", 24000) as ahead, threads.open("mp3", 24000) as first:
        await ahead.feed(tone(24000, 10.0))
        free = threading.Event()
        threads._threads.submit(free.wait, 0.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed(ahead, "ahead"))
            await asyncio.sleep(0)
            tasks.create_task(feed(first, "first"))
            await asyncio.sleep(0)
            free.set()
    assert order == ["first", "ahead"]


@pytest.mark.parametrize("name", FORMATS)
async def test_one_that_was_made_ready_makes_the_same(name: str) -> None:
    sound = (rising(24000, 0.5) * 10_000).astype("<i2").tobytes()
    made = []
    for ready in (False, True):
        async with Encoders(1).open(name, 24000, 16000) as encoder:
            if ready:
                await encoder.ready()
            made.append(await encoded(encoder, sound))
    assert len(made[0]) == len(made[1])
    assert made[0] == made[1] or name == "opus", "each Ogg stream has a number of its own"
