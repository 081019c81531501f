import numpy as np
import pytest

from engines.tts.backends.embedded import Embedded
from engines.tts.prosody import measure

from .sound import RATE, spoken, tone


@pytest.mark.parametrize("hertz", [70.0, 110.0, 180.0, 260.0, 380.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_the_pitch_of_a_known_sound_is_found(hertz: float, rate: int) -> None:
    assert measure(tone(hertz, 1.0, rate), rate).f0 == pytest.approx(hertz, rel=0.02)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    assert measure(noise, RATE).f0 == 0
    assert measure(np.zeros(RATE, np.float32), RATE).f0 == 0
    assert measure(np.zeros(10, np.float32), RATE) == measure(np.zeros(0, np.float32), RATE)


@pytest.mark.parametrize("beats", [2.0, 4.0, 6.0])
def test_a_voice_that_swells_so_often_a_second_has_that_rate(beats: float) -> None:
    at = np.arange(4 * RATE) / RATE
    swelling = np.asarray(tone(150, 4.0) * (0.55 + 0.45 * np.sin(2 * np.pi * beats * at)), np.float32)
    assert measure(swelling, RATE).rate == pytest.approx(beats, rel=0.15)


def test_pauses_do_not_slow_a_voice_down(without_flite: Embedded) -> None:
    said = spoken(without_flite, "我们下午三点在图书馆门口见面")
    paused = np.concatenate([said, np.zeros(3 * RATE, np.float32), said])
    assert measure(paused, RATE).rate == pytest.approx(measure(said, RATE).rate, rel=0.1)


def test_a_quiet_recording_measures_as_a_loud_one(without_flite: Embedded) -> None:
    said = spoken(without_flite, "我们下午三点在图书馆门口见面")
    loud, quiet = measure(said, RATE), measure(np.asarray(said / 30, np.float32), RATE)
    assert quiet.f0 == pytest.approx(loud.f0, rel=0.01)
    assert quiet.rate == pytest.approx(loud.rate, rel=0.05)
