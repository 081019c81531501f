from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engines.tts.backends import flite
from engines.tts.backends.english_voices import _AWB, _RESPONSE, _STRETCH
from engines.tts.backends.flite import LOCK, Flite
from engines.tts.prosody import Prosody, measure


@pytest.fixture(scope="module")
def rms() -> Flite:
    return voice("rms")


def voice(name: str) -> Flite:
    try:
        return Flite(name)
    except OSError as exc:
        pytest.skip(f"libflite is not installed: {exc}")


def counting() -> Iterator[bool]:
    yield from (False, False, False)
    while True:
        yield True


def test_stopping_ends_it_inside_a_sentence_and_frees_the_lock(rms: Flite) -> None:
    answers = counting()
    said = rms.say("what time is it " * 10, 1.2, 1.0, lambda: next(answers))
    assert len(said) < 0.5 * rms.sample_rate
    assert not LOCK.locked()
    assert len(rms.say("what time is it", 1.2, 1.0, lambda: False)) > 1.0 * rms.sample_rate


def test_a_voice_loaded_twice_still_speaks_from_both(rms: Flite) -> None:
    again = voice("rms")
    for speaker in (rms, again, rms):
        assert len(speaker.say("hello", 1.2, 1.0, lambda: False)) > 0.3 * rms.sample_rate


def test_two_voices_in_many_threads_say_what_each_says_alone(rms: Flite) -> None:
    def length(speaker: Flite) -> int:
        return len(speaker.say("turn on the light", 1.2, 1.0, lambda: False))

    speakers = [rms, voice("awb")] * 6
    alone = [length(speaker) for speaker in speakers]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(length, speakers)) == alone


def test_the_pitched_voice_is_as_it_is_taken_to_be() -> None:
    text = "I would like to buy a train ticket to the city. Please tell me when the next one leaves."
    awb = voice("awb")

    def measured(pace: float) -> Prosody:
        said = awb.say(text, _STRETCH / pace, 1.0, lambda: False)
        return measure(np.divide(said, 32_768, dtype=np.float32), awb.sample_rate)

    assert measured(1.0).f0 == pytest.approx(_AWB.f0, rel=0.05)
    assert measured(1.0).rate == pytest.approx(_AWB.rate, rel=0.2)
    assert measured(1.6).rate == pytest.approx(_AWB.rate * 1.6**_RESPONSE, rel=0.2)


def test_where_the_library_is_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flite, "_FILE", "libnothing-of-the-kind-{}.so.1")
    with pytest.raises(OSError, match="libnothing-of-the-kind"):
        Flite("rms")
