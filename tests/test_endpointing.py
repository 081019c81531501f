"""Who begins to speak, and who has ended, in sound that somebody might really send."""

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
import soxr

from gateway.endpointing import FRAME, RATE, Endpointer, Started, Stopped, _Segments
from gateway.settings import Settings
from tests.engines.asr.sound import SENTENCES, noise, person, say, silence

SETTINGS = Settings()
PADDING, SILENCE = SETTINGS.endpoint_padding, SETTINGS.endpoint_silence


async def hear(made: Endpointer, pcm: bytes, size: int | None = None) -> list[Started | Stopped]:
    """All that a stream has, in pieces of `size` bytes."""
    found: list[Started | Stopped] = []
    for at in range(0, len(pcm), size or len(pcm) or 1):
        found += await made.feed(pcm[at : at + (size or len(pcm))])
    return found


def at_rate(pcm: bytes, rate: int) -> bytes:
    return bytes(soxr.resample(np.frombuffer(pcm, "<i2"), RATE, rate).astype("<i2")) if rate != RATE else pcm


def bounds(pcm: bytes) -> tuple[float, float]:
    """Seconds to the first and to the last sound in it."""
    (loud,) = np.nonzero(np.abs(np.frombuffer(pcm, "<i2").astype(int)) > 300)
    return loud[0] / RATE, loud[-1] / RATE


def test_the_network_keeps_nothing_on_disk_and_reports_to_nobody(tmp_path: Path) -> None:
    """onnxruntime would, unless it runs under CI: the variables that say so are left out."""
    environment = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    code = "from gateway import endpointing; endpointing._network()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not list(tmp_path.iterdir())
    assert "telemetry" not in done.stderr


class TestWhatItHears:
    @pytest.mark.parametrize("dbfs", [None, -60, -50, -40, -30])
    async def test_nothing_in_silence_and_noise(self, dbfs: float | None) -> None:
        made = Endpointer(SETTINGS, RATE)
        assert await hear(made, silence(20) if dbfs is None else noise(20, dbfs)) == []
        assert made.end() == []
        assert not made.speaking

    @pytest.mark.parametrize("sentence", SENTENCES)
    async def test_where_a_sentence_begins_and_ends(self, sentence: str) -> None:
        spoken = say(sentence)
        first, last = (1 + time for time in bounds(spoken))
        started, stopped = await hear(Endpointer(SETTINGS, RATE), silence(1) + spoken + silence(1))
        assert isinstance(started, Started)
        assert isinstance(stopped, Stopped)
        assert abs(started.at + PADDING - first) < 0.2
        assert abs(stopped.at - last) < 0.2

    @pytest.mark.parametrize("dbfs", [-60, -50, -40])
    async def test_speech_in_noise(self, dbfs: float) -> None:
        spoken = silence(1) + say("the weather is very nice today") + silence(1.5)
        mixed = np.frombuffer(spoken, "<i2").astype(int) + np.frombuffer(noise(len(spoken) / 32000, dbfs), "<i2")
        made = Endpointer(SETTINGS, RATE)
        assert [type(one) for one in await hear(made, np.clip(mixed, -32768, 32767).astype("<i2").tobytes())] == [
            Started,
            Stopped,
        ]

    async def test_a_person(self) -> None:
        made = Endpointer(SETTINGS, RATE)
        found = await hear(made, silence(0.5) + person("hello_world_en.wav") + silence(1))
        assert [type(one) for one in found] == [Started, Stopped]

    async def test_a_pause_to_breathe_ends_nothing_and_a_longer_one_does(self) -> None:
        one, other = say("what time is it"), say("how are you today")
        for pause, utterances in ((0.3, 1), (1.2, 2)):
            found = await hear(Endpointer(SETTINGS, RATE), one + silence(pause) + other + silence(1))
            assert len(found) == 2 * utterances, found

    @pytest.mark.parametrize("length", [0.001, 0.02, 0.06])
    async def test_clicks_begin_nothing(self, length: float) -> None:
        click = noise(length, -6)
        assert await hear(Endpointer(SETTINGS, RATE), (silence(0.5) + click) * 10 + silence(1)) == []

    async def test_speech_after_a_long_silence(self) -> None:
        made = Endpointer(SETTINGS, RATE)
        await hear(made, noise(300, -50))
        assert isinstance((await hear(made, say("hello world")))[0], Started)


class TestWhatItSays:
    async def test_speaking_between_the_two(self) -> None:
        made = Endpointer(SETTINGS, RATE)
        assert len(await made.feed(say("hello world"))) == 1
        assert made.speaking
        assert repr(made).startswith("<speech")
        assert len(await made.feed(silence(1))) == 1
        assert not made.speaking

    async def test_nothing_starts_before_the_audio_or_before_the_last_end(self) -> None:
        spoken = say("hello world")
        made = Endpointer(SETTINGS, RATE, padding=5, silence=0.1)
        found = await hear(made, spoken + silence(0.5) + spoken + silence(0.5))
        times = [one.at for one in found]
        assert times[0] == 0
        assert times == sorted(times)
        assert any(one.at == two.at for one, two in zip(found[1::2], found[2::2], strict=False))

    async def test_the_end_of_the_input_ends_what_is_said(self) -> None:
        spoken = say("hello world")
        made = Endpointer(SETTINGS, RATE)
        await made.feed(spoken)
        (stopped,) = made.end()
        assert abs(stopped.at - len(spoken) / 2 / RATE) < 0.25
        assert not made.speaking
        assert made.end() == []

    async def test_it_goes_on_after_an_end(self) -> None:
        spoken = say("hello world")
        made = Endpointer(SETTINGS, RATE)
        await made.feed(spoken)
        (stopped,) = made.end()
        started, second = await hear(made, silence(1) + spoken + silence(1))
        assert started.at + PADDING > stopped.at
        assert second.at > started.at

    async def test_each_has_its_own_ways(self) -> None:
        pcm = silence(1) + say("hello world") + silence(1.2) + say("stop the music") + silence(3)
        patient = await hear(Endpointer(SETTINGS, RATE, silence=2), pcm)
        quick = await hear(Endpointer(SETTINGS, RATE, silence=0.2, padding=0.1), pcm)
        assert len(patient) == 2
        assert len(quick) == 4
        assert quick[0].at - patient[0].at == pytest.approx(PADDING - 0.1)
        assert len(await hear(Endpointer(SETTINGS, RATE), pcm)) == 4
        assert len(await hear(Endpointer(SETTINGS, RATE, threshold=0.9999), pcm)) < 4

    async def test_the_end_is_said_as_soon_as_the_silence_is_long_enough(self) -> None:
        made = Endpointer(SETTINGS, RATE)
        await made.feed(say("hello world"))
        waited, found = 0.0, []
        while not found:
            found = await made.feed(silence(0.02))
            waited += 0.02
            assert waited < 2
        assert waited < SILENCE + 0.3


class TestPiecesAndRates:
    @pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100, 48_000])
    async def test_the_pieces_change_nothing_and_the_rate_hardly_anything(self, rate: int) -> None:
        pcm = silence(0.7) + say("hello world") + silence(1.1) + say("stop the music") + silence(1)
        expected = await hear(Endpointer(SETTINGS, RATE), pcm)
        sound = at_rate(pcm, rate)
        whole = await hear(Endpointer(SETTINGS, rate), sound)
        assert [type(one) for one in whole] == [Started, Stopped] * 2
        assert all(abs(one.at - other.at) < 0.1 for one, other in zip(whole, expected, strict=True))
        sizes = random.Random(rate)
        for size in (1, 333, 640, 7681):
            assert await hear(Endpointer(SETTINGS, rate), sound, size) == whole
        made, found, at = Endpointer(SETTINGS, rate), [], 0
        while at < len(sound):
            size = sizes.randint(0, 4000)
            found += await made.feed(sound[at : at + size])
            at += size
        assert found == whole

    async def test_no_bytes(self) -> None:
        made = Endpointer(SETTINGS, RATE)
        assert await made.feed(b"") == await made.feed(b"\0") == []
        assert made.end() == []

    async def test_a_cancelled_feed_is_heard_all_the_same(self) -> None:
        pcm = silence(1) + say("hello world") + silence(1)
        expected = await hear(Endpointer(SETTINGS, RATE), pcm)
        for patience in (0, 0.001, 0.005):
            made = Endpointer(SETTINGS, RATE)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(patience):
                    await made.feed(pcm)
            assert await made.feed(bytes(2 * FRAME)) == expected


class TestBeingOneOfMany:
    async def test_many_streams_leave_nothing_behind(self) -> None:
        async def live() -> "weakref.ref[Endpointer]":
            made = Endpointer(SETTINGS, 24_000)
            await made.feed(bytes(24_000 // 5))
            made.end()
            return weakref.ref(made)

        await live()
        before, threads = psutil.Process().memory_info().rss, threading.active_count()
        gone = [await live() for _ in range(1000)]
        gc.collect()
        assert not any(one() for one in gone)
        assert threading.active_count() <= threads + 1
        assert psutil.Process().memory_info().rss - before < 10 * 2**20

    async def test_the_event_loop_goes_on_while_twenty_speak(self) -> None:
        pcm, late = say("the weather is very nice today") + silence(1), []

        async def tick() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                late.append(time.perf_counter() - before - 0.005)

        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(tick())
            twenty = [tasks.create_task(hear(Endpointer(SETTINGS, RATE), pcm, 640)) for _ in range(20)]
            heard = await asyncio.gather(*twenty)
            ticking.cancel()
        assert all(found == heard[0] for found in heard)
        assert len(heard[0]) == 2
        assert sorted(late)[len(late) * 9 // 10] < 0.05

    async def test_the_package_that_would_bring_torch_is_not_imported(self) -> None:
        await hear(Endpointer(SETTINGS, RATE), silence(1))
        assert "silero_vad" not in sys.modules


class TestSegments:
    """`.` is no speech, `~` between the thresholds, `#` speech; a frame each."""

    @staticmethod
    def read(frames: str, silence: float = 0.096, padding: float = 0.0) -> list[tuple[str, int]]:
        made = _Segments(0.5, silence, padding)
        found = [one for frame in frames for one in made.heard({".": 0.1, "~": 0.4, "#": 0.9}[frame])]
        found += made.end(made.now)
        return [(type(one).__name__, round(one.at * RATE / FRAME)) for one in found]

    @pytest.mark.parametrize(
        ("frames", "expected"),
        [
            ("..##..#.", []),
            ("..###...", [("Started", 2), ("Stopped", 5)]),
            ("..#~~##...", [("Started", 2), ("Stopped", 7)]),
            ("..##.###...", [("Started", 5), ("Stopped", 8)]),
            ("###..#...", [("Started", 0), ("Stopped", 6)]),
            ("###~~~~~~~...", [("Started", 0), ("Stopped", 10)]),
            ("###.~~..", [("Started", 0), ("Stopped", 3)]),
            ("###..~#", [("Started", 0), ("Stopped", 7)]),
            ("~~~~~~~", []),
        ],
    )
    def test_thresholds(self, frames: str, expected: list[tuple[str, int]]) -> None:
        assert self.read(frames) == expected

    def test_a_low_threshold_still_has_one_below_it(self) -> None:
        made = _Segments(0.1, 0.05, 0)
        found = [one for probability in [0.2] * 4 + [0.01] * 4 for one in made.heard(probability)]
        assert [type(one) for one in found] == [Started, Stopped]
