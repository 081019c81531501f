"""Sound of another sample rate: the same sound, however it is cut, and all of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.resample import Resampler

RATES = (8000, 16000, 22050, 24000, 44100, 48000)


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0, loudness: float = 0.5) -> bytes:
    t = np.arange(int(rate * seconds)) / rate
    return (np.sin(2 * np.pi * hertz * t) * 32767 * loudness).astype("<i2").tobytes()


def samples(pcm: bytes) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    return np.frombuffer(pcm, "<i2")


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("target", [16000, 24000])
def test_a_tone_stays_the_same_tone(source: int, target: int) -> None:
    made = Resampler(source, target).feed(tone(source), last=True)
    assert abs(len(made) // 2 - target // 2) <= 1
    found, asked = samples(made).astype(float), samples(tone(target)).astype(float)
    size = min(len(found), len(asked))
    middle = slice(size // 10, -size // 10)
    assert np.abs(found[:size][middle] - asked[:size][middle]).max() < 60, "0.2 % of full scale"


@given(st.lists(st.integers(0, 700), max_size=12), st.sampled_from(RATES))
def test_the_pieces_do_not_matter(cuts: list[int], source: int) -> None:
    pcm = tone(source, 0.1)
    whole = Resampler(source, 24000).feed(pcm, last=True)
    resampler, made, at = Resampler(source, 24000), [], 0
    for cut in cuts:
        made.append(resampler.feed(pcm[at : at + 2 * cut]))
        at += 2 * cut
    made.append(resampler.feed(pcm[at:], last=True))
    assert b"".join(made) == whole


def test_the_last_sample_comes_out() -> None:
    click = bytes(2 * 22049) + b"\x00\x40"
    made = samples(Resampler(22050, 24000).feed(click, last=True))
    assert np.abs(made[-20:]).max() > 8000, "the very last sample is the loudest"


def test_after_the_last_it_begins_anew() -> None:
    resampler = Resampler(16000, 24000)
    first = resampler.feed(tone(16000), last=True)
    assert resampler.feed(b"", last=True) == b""
    assert resampler.feed(tone(16000), last=True) == first


def test_loud_sound_is_cut_off_and_does_not_wrap() -> None:
    square = np.where(np.arange(8000) // 20 % 2, 32767, -32768).astype("<i2")
    made = samples(Resampler(16000, 24000).feed(square.tobytes(), last=True)).astype(int)
    plain = np.repeat(square, 3)[::2].astype(int)[: len(made)]
    inside = np.ones(len(plain), bool)
    for edge in np.flatnonzero(np.diff(plain)):
        inside[max(0, edge - 6) : edge + 7] = False
    assert (np.sign(made[: len(plain)][inside]) == np.sign(plain[inside])).all()


def test_the_same_rate_is_passed_on_as_it_is() -> None:
    pcm = tone(24000, 0.01)
    assert Resampler(24000, 24000).feed(pcm) is pcm
