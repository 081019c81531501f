"""Wishes for NLS synthesis, and its subtitles."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.wire import nls
from gateway.wire.nls_tts import RATES, Manner, read_manner, subtitles, written


def test_what_is_not_said_is_as_usual() -> None:
    assert read_manner({}, 22050) == Manner("", "pcm", 22050, 50, 0, 0, "", False)
    assert (
        read_manner(dict.fromkeys(("voice", "format", "sample_rate", "volume", "prompt")), 16000).sample_rate == 16000
    )


@pytest.mark.parametrize(("rate", "speed"), [(-500, 0.5), (-250, 0.5), (-100, 0.8), (0, 1), (100, 1.2), (500, 2)])
def test_speed(rate: float, speed: float) -> None:
    assert Manner(speech_rate=rate).speed == speed


@pytest.mark.parametrize(("rate", "semitones"), [(-500, -12), (0, 0), (500 / 12, 1), (500, 12)])
def test_pitch(rate: float, semitones: float) -> None:
    assert Manner(pitch_rate=rate).pitch == pytest.approx(2 ** (semitones / 12))


def test_gain() -> None:
    assert [Manner(volume=volume).gain for volume in (0, 50, 100)] == [0, 1, 2]


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_what_is_out_of_its_range_is_moved_into_it(value: float) -> None:
    found = read_manner({"volume": value, "speech_rate": value, "pitch_rate": value}, 8000)
    assert 0 <= found.volume <= 100
    assert -500 <= found.speech_rate <= 500
    assert 0.5 <= found.pitch <= 2


def test_formats_are_known_in_capitals_too() -> None:
    assert [written(name) for name in ("PCM", " wav ", "Mp3", "ogg")] == ["pcm", "wav", "mp3", "ogg"]
    for name in ("speex", "amr", "", "tape"):
        with pytest.raises(nls.Unusable, match="there are pcm, wav"):
            written(name)


@pytest.mark.parametrize("rate", [*RATES, "16000"])
def test_known_rates(rate: Any) -> None:
    assert read_manner({"sample_rate": rate}, 8000).sample_rate == int(rate)


@pytest.mark.parametrize("rate", [0, -8000, 16000.5, 96000, 10**400])
def test_other_rates_are_refused(rate: Any) -> None:
    with pytest.raises(nls.Unusable):
        read_manner({"sample_rate": rate}, 8000)


@given(some.text(alphabet="ab 你好，。'’3.5%🙂かな한", max_size=60), some.floats(0, 100), some.floats(0, 30))
def test_words_fill_their_sentence_in_order(text: str, begin: float, seconds: float) -> None:
    whole, *words = subtitles(text, begin, begin + seconds, words=True)["subtitles"]
    assert (whole["text"], whole["sentence"], whole["begin_index"], whole["end_index"]) == (text, True, 0, len(text))
    at = [time for word in words for time in (word["begin_time"], word["end_time"])]
    assert at == sorted(at)
    if words:
        assert (at[0], at[-1]) == (whole["begin_time"], whole["end_time"])
    for word in words:
        assert text[word["begin_index"] : word["end_index"]] == word["text"]
    assert "".join(filter(str.isalnum, text)) == "".join(filter(str.isalnum, "".join(word["text"] for word in words)))
