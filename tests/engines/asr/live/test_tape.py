"""What is kept of a stream, under its place in it; and audio of any rate, cut anywhere, on its way there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.asr.live.resampler import Resampler
from engines.asr.live.tape import RATE, Samples, Tape


def count(start: int, end: int) -> Samples:
    return np.arange(start, end, dtype=np.float32)


class TestTape:
    @given(st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 60_000)), max_size=20))
    def test_what_is_kept_stays_at_its_place(self, steps: list[tuple[int, int]]) -> None:
        tape, place, forgotten = Tape(), 0, 0
        for size, keep in steps:
            tape.add(count(place, place + size))
            place += size
            tape.forget(place - keep)
            forgotten = max(forgotten, place - keep)
            assert tape.start <= forgotten
            assert tape.end == place
            found = tape.cut(place - keep, place)
            assert np.array_equal(found, count(max(0, tape.start, place - keep), place))

    def test_it_keeps_little_more_than_it_must(self) -> None:
        tape = Tape()
        for second in range(100):
            tape.add(count(second * RATE, (second + 1) * RATE))
            tape.cut(tape.start, tape.end)
            tape.forget(tape.end - RATE)
            assert tape.end - tape.start <= 3 * RATE

    def test_an_empty_one(self) -> None:
        assert len(Tape().cut(0, 100)) == 0


class TestResampler:
    @pytest.mark.parametrize("packet", [1, 3, 1920, 10_000])
    def test_16_khz_stays_as_it_is(self, packet: int) -> None:
        pcm = np.random.default_rng(0).integers(-32768, 32768, 5000, np.int16)
        made = Resampler(RATE)
        found = [made.add(pcm.tobytes()[at : at + packet]) for at in range(0, 2 * len(pcm), packet)]
        assert np.array_equal(np.concatenate([*found, made.finish()]), pcm.astype(np.float32) / 32768)

    @pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
    def test_other_rates_keep_pitch_level_and_length(self, rate: int) -> None:
        seconds = 2
        wave = np.sin(2 * np.pi * 440 * np.arange(seconds * rate) / rate) * 0.5
        pcm = (wave * 32767).astype("<i2").tobytes()
        made = Resampler(rate)
        found = np.concatenate([*(made.add(pcm[at : at + 777]) for at in range(0, len(pcm), 777)), made.finish()])
        assert abs(len(found) - seconds * RATE) <= 2
        expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / RATE) * 0.5
        assert np.abs(found - expected)[200:-200].max() < 0.01

    def test_half_a_sample_waits_for_the_other_half(self) -> None:
        made = Resampler(RATE)
        assert [len(made.add(b"\0")) for _ in range(4)] == [0, 1, 0, 1]
        made.add(b"\0")
        assert len(made.finish()) == 0
