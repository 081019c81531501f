"""Louder, quieter, higher, lower: measured in the sound that comes out."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.effects import KNEE, Effects, amplified
from gateway.encoding import Encoders
from gateway.errors import EngineBroke
from gateway.events import Audio
from tests.sound import cents, hertz, pcm, samples, tone

ENCODERS = Encoders(2)


async def spoken(effects: Effects, sound: bytes, rate: int, piece: int = 4410) -> bytes:
    """One sentence of it."""
    made = [await effects.feed(Audio(sound[at : at + piece], rate)) for at in range(0, len(sound), piece)]
    return b"".join([*made, await effects.end()])


@pytest.mark.parametrize("pitch", [0.5, 0.8, 2 ** (1 / 12), 1.3, 2.0])
@pytest.mark.parametrize(("source", "target"), [(22050, 22050), (24000, 8000), (22050, 48000), (11025, 16000)])
async def test_the_pitch_is_the_one_asked_for_and_the_duration_stays(pitch: float, source: int, target: int) -> None:
    made = await spoken(Effects(ENCODERS, target, pitch=pitch), tone(source, 2.0, 300.0), source)
    assert len(made) // 2 == 2 * target, "to the sample"
    middle = samples(made)[target // 2 : target * 3 // 2]
    assert cents(hertz(middle, target), 300 * pitch) < 2
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("seconds", [0.004, 0.05, 0.31])
@pytest.mark.parametrize("pitch", [0.5, 1.0, 1.7])
async def test_a_short_sound_is_as_long_as_it_was(seconds: float, pitch: float) -> None:
    made = await spoken(Effects(ENCODERS, 16000, pitch=pitch), tone(24000, seconds), 24000)
    assert len(made) // 2 == round(seconds * 16000)
    assert np.abs(samples(made)).max() > 0.4


async def test_the_end_of_a_sentence_is_in_it() -> None:
    effects = Effects(ENCODERS, 16000, pitch=1.5)
    for _ in range(3):
        made = samples(await spoken(effects, tone(24000, 0.5, 300.0) + tone(24000, 0.2, 800.0), 24000))
        assert hertz(made[-1600:], 16000) == pytest.approx(1200, rel=0.02)
        assert hertz(made[:4800], 16000) == pytest.approx(450, rel=0.02)


async def test_nothing_asked_for_is_nothing_done() -> None:
    effects = Effects(ENCODERS, 24000)
    sound = tone(24000, 0.5)
    assert await spoken(effects, sound, 24000) == sound
    assert await effects.end() == b""


@pytest.mark.parametrize(("source", "target"), [(22050, 8000), (24000, 22050), (24000, 48000), (16000, 44100)])
async def test_the_rate_is_the_one_that_is_stated(source: int, target: int) -> None:
    made = samples(await spoken(Effects(ENCODERS, target), tone(source, 2.0), source))
    assert len(made) == 2 * target
    assert cents(hertz(made[target // 2 : -target // 2], target), 440) < 1


class TestLoudness:
    @pytest.mark.parametrize("gain", [0.0, 0.02, 0.5, 0.99])
    def test_quieter_is_to_scale(self, gain: float) -> None:
        sound = samples(tone(16000, 0.5, loudness=0.9))
        assert np.abs(samples(amplified(tone(16000, 0.5, loudness=0.9), gain)) - sound * gain).max() < 1e-4

    def test_louder_is_to_scale_where_there_is_room(self) -> None:
        sound = samples(tone(16000, 0.5, loudness=0.3))
        assert np.abs(samples(amplified(tone(16000, 0.5, loudness=0.3), 2.0)) - sound * 2).max() < 1e-4

    def test_what_is_too_loud_is_pressed_together_and_keeps_its_pitch(self) -> None:
        made = samples(amplified(tone(16000, 1.0, loudness=0.9), 2.0))
        assert KNEE < np.abs(made).max() <= 1.0
        assert cents(hertz(made, 16000), 440) < 1

    @given(some.lists(some.integers(-32768, 32767), min_size=1), some.floats(0, 2))
    def test_no_sample_wraps_around(self, found: list[int], gain: float) -> None:
        before = np.array(found, "<i2")
        after = np.frombuffer(amplified(before.tobytes(), gain), "<i2")
        assert len(after) == len(before)
        assert np.all(before.astype(int) * after.astype(int) >= 0), "the sign stays"
        assert np.all(np.abs(after.astype(int)) <= np.abs(before.astype(int)) * gain + 1)

    @given(some.integers(-32768, 32766), some.floats(1, 2))
    def test_what_was_louder_stays_louder(self, one: int, gain: float) -> None:
        low, high = np.frombuffer(amplified(np.array([one, one + 1], "<i2").tobytes(), gain), "<i2")
        assert low <= high

    def test_a_second_takes_next_to_no_time(self) -> None:
        sound = pcm(np.random.default_rng(1).uniform(-1, 1, 24000))
        taken = []
        for _ in range(5):
            begun = time.process_time()
            amplified(sound, 2.0)
            taken.append(time.process_time() - begun)
        assert min(taken) < 0.01


async def test_one_that_is_left_in_a_sentence_begins_anew() -> None:
    effects = Effects(ENCODERS, 16000, pitch=1.2)
    await effects.feed(Audio(tone(24000, 0.5), 24000))
    await effects.close()
    assert len(await spoken(effects, tone(22050, 1.0), 22050)) == 32000


async def test_an_engine_that_changes_its_rate_within_a_sentence_is_found_out() -> None:
    effects = Effects(ENCODERS, 16000)
    await effects.feed(Audio(tone(24000, 0.1), 24000))
    with pytest.raises(EngineBroke, match="from 24000 to 22050 Hz"):
        await effects.feed(Audio(tone(22050, 0.1), 22050))
    await effects.close()
    assert len(await spoken(effects, tone(22050, 1.0), 22050)) == 32000, "between two sentences it may"
