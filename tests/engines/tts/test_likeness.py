"""What reference audio does to the voice, measured on what comes out."""

import pytest

from engines.tts.backends.embedded import Embedded
from engines.tts.job import Prompt
from engines.tts.prosody import Prosody, measure

from .sound import RATE, SHARED, prompt, recorded, spoken

TEXTS = {
    "zh": "我们下午三点在图书馆门口见面，不要迟到。",
    "yue": "<|yue|>我哋下晝三點喺圖書館門口見面。",
    "en": "We are going to the park this afternoon. Would you like to come?",
}


def made(backend: Embedded, speaker: str, speed: float) -> Prompt:
    return prompt(spoken(backend, "今天天气很好，我们去公园散步吧。你觉得怎么样？", speaker=speaker, speed=speed))


@pytest.fixture(scope="module")
def low_and_slow(without_flite: Embedded) -> Prompt:
    return made(without_flite, "中文男", 0.9)


@pytest.fixture(scope="module")
def high_and_fast(without_flite: Embedded) -> Prompt:
    return made(without_flite, "英文女", 1.4)


def of(reference: Prompt) -> Prosody:
    return measure(reference.samples, reference.sample_rate)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("flite", [True, False])
def test_the_voice_carries_the_pitch_and_the_pace_of_its_reference(
    request: pytest.FixtureRequest, low_and_slow: Prompt, high_and_fast: Prompt, language: str, flite: bool
) -> None:
    backend = request.getfixturevalue("with_flite" if flite else "without_flite")
    low, high = (spoken(backend, TEXTS[language], prompt=reference) for reference in (low_and_slow, high_and_fast))
    assert len(low) > 1.2 * len(high)
    for said, reference in ((low, low_and_slow), (high, high_and_fast)):
        assert measure(said, RATE).f0 == pytest.approx(of(reference).f0, rel=0.1)
        assert measure(said, RATE).rate == pytest.approx(of(reference).rate, rel=0.25)


@pytest.mark.parametrize("name", ["reference_en.wav", "zero_shot_prompt_zh.wav"])
@pytest.mark.parametrize("language", TEXTS)
def test_the_voice_carries_the_pitch_and_the_pace_of_a_person(embedded: Embedded, name: str, language: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside this checkout")
    reference = prompt(*recorded(name))
    found = measure(spoken(embedded, TEXTS[language], prompt=reference), RATE)
    assert found.f0 == pytest.approx(of(reference).f0, rel=0.1)
    assert found.rate == pytest.approx(of(reference).rate, rel=0.25)


def test_a_reference_is_measured_once(
    embedded: Embedded, low_and_slow: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken(embedded, "你好", prompt=low_and_slow)
    monkeypatch.setattr("engines.tts.backends.embedded.measure", None)
    spoken(embedded, "你好", prompt=low_and_slow)


def test_only_so_many_references_are_remembered(monkeypatch: pytest.MonkeyPatch, low_and_slow: Prompt) -> None:
    monkeypatch.setattr("engines.tts.backends.embedded._REMEMBERED", 2)
    backend = Embedded(flite=False)
    backend.load()
    for louder in (1.0, 0.9, 0.8):
        spoken(backend, "好", prompt=prompt(low_and_slow.samples * louder))
    assert len(backend._known) == 2


def test_a_reference_that_never_voices_leaves_the_voice_its_own(without_flite: Embedded) -> None:
    import numpy as np

    whisper = np.random.default_rng(1).normal(0, 0.1, 2 * RATE).astype(np.float32)
    assert measure(spoken(without_flite, TEXTS["zh"], prompt=prompt(whisper)), RATE).f0 > 60
