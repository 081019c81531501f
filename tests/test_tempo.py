"""Speech said faster or slower: its duration changes, its pitch does not, and its end is there."""

import numpy as np
import pytest

from gateway.encoding import Encoders
from gateway.tempo import FASTEST, SLOWEST, Tempo
from tests.sound import cents, decoded, hertz, samples, tone

SPEEDS = (SLOWEST, 0.8, 1.25, FASTEST)


def said(speed: float, sound: bytes, rate: int = 24000, piece: int = 4800) -> bytes:
    tempo = Tempo(rate, speed)
    return b"".join([tempo.feed(sound[at : at + piece]) for at in range(0, len(sound), piece)]) + tempo.feed(b"", True)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("rate", [24000, 48000])
def test_the_duration_changes_and_the_pitch_does_not(speed: float, rate: int) -> None:
    sound = samples(said(speed, tone(rate, 3.0), rate))
    assert len(sound) / rate == pytest.approx(3.0 / speed, abs=0.03)
    middle = sound[len(sound) // 4 : -len(sound) // 4]
    assert cents(hertz(middle, rate), 440) < 1
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_end_of_it_is_there(speed: float) -> None:
    sound = samples(said(speed, tone(24000, 1.0) + tone(24000, 0.1, hertz=1000)))
    assert hertz(sound[-int(0.08 * 24000 / speed) :], 24000) == pytest.approx(1000, rel=0.02)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("piece", [482, 96000])
def test_it_sounds_the_same_in_whatever_pieces_it_comes(speed: float, piece: int) -> None:
    sound = samples(said(speed, tone(24000, 2.0), piece=piece))
    assert len(sound) / 24000 == pytest.approx(2.0 / speed, abs=0.03)
    assert cents(hertz(sound, 24000), 440) < 1.5


@pytest.mark.parametrize("seconds", [0.005, 0.04, 0.09])
def test_a_short_sound_is_not_swallowed(seconds: float) -> None:
    assert np.abs(samples(said(2.0, tone(24000, seconds)))).max() > 0.4


@pytest.mark.parametrize("speed", [SLOWEST - 0.01, FASTEST + 0.01, float("nan")])
def test_a_speed_beyond_its_limits_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Tempo(24000, speed)


async def test_an_encoder_changes_the_tempo_before_it_packs() -> None:
    async with Encoders(1).open("mp3", 22050, 16000, 2.0) as encoder:
        data = await encoder.feed(tone(22050, 4.0)) + await encoder.end()
        assert encoder.seconds == 2.0
    sound = decoded(data, 16000)
    assert len(sound) / 16000 == pytest.approx(2.1, abs=0.1)
    assert cents(hertz(sound[8000:24000], 16000), 440) < 2
