from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soxr

from engines.tts.backends.embedded import Embedded
from engines.tts.backends.espeak_voices import EspeakVoices
from engines.tts.job import Job, Refused, Samples
from engines.tts.prosody import measure
from gateway.wire import cosyvoice

from .sound import RATE, spoken


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(text, language) of everything espeak-ng was asked to say."""
    seen: list[tuple[str, str]] = []
    say = EspeakVoices.say

    def noted(self: EspeakVoices, text: str, language: str, *rest: object) -> object:
        seen.append((text, language))
        return say(self, text, language, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EspeakVoices, "say", noted)
    return seen


def job(text: str, speaker: str = "中文女") -> Job:
    return Job(mode=cosyvoice.SFT, text=text, speaker=speaker)


def never() -> bool:
    return False


@pytest.mark.parametrize("characters", [50, 5_000])
def test_the_first_piece_costs_one_sentence_however_long_the_text(
    without_flite: Embedded, calls: list[tuple[str, str]], characters: int
) -> None:
    pieces = without_flite.speak(job("今天天气很好。" * (characters // 7)), never)
    assert calls == []
    assert next(pieces)
    assert calls == [("今天天气很好。", "cmn")]


def test_nothing_more_is_made_once_stopped(without_flite: Embedded, calls: list[tuple[str, str]]) -> None:
    gone: list[bool] = []
    pieces = without_flite.speak(job("今天天气很好。" * 700), lambda: bool(gone))
    next(pieces)
    gone.append(True)
    assert list(pieces) == []
    assert len(calls) == 2


@pytest.mark.parametrize("speaker", cosyvoice.PRESETS)
def test_every_preset_speaks(embedded: Embedded, speaker: str) -> None:
    said = spoken(embedded, "你好，世界。Hello world.", speaker=speaker)
    assert np.abs(said).max() > 0.1
    assert len(said) > RATE


def test_women_and_men_differ_in_pitch(embedded: Embedded) -> None:
    for women, men, text in (("中文女", "中文男", "今天天气很好"), ("英文女", "英文男", "What time is it?")):
        high, low = (measure(spoken(embedded, text, speaker=who), RATE).f0 for who in (women, men))
        assert high > 1.4 * low


@pytest.mark.parametrize(
    ("text", "speaker", "languages"),
    [
        ("你好", "粤语女", ["yue"]),
        ("你好", "日语男", ["cmn"]),
        ("ありがとう", "中文女", ["ja"]),
        ("bonjour", "英文男", ["en-us"]),
        ("<|fr|>bonjour", "英文男", ["fr"]),
        ("<|yue|>你好", "中文女", ["yue"]),
        ("<|zh|>你好 friend", "英文男", ["cmn", "en-us"]),
        ("<|en|>hello", "中文女", ["en-us"]),
        ("You are a helpful assistant.<|endofprompt|><|zh|>你好", "中文女", ["cmn"]),
    ],
)
def test_the_language_follows_the_script_the_preset_and_the_tag(
    without_flite: Embedded, calls: list[tuple[str, str]], text: str, speaker: str, languages: list[str]
) -> None:
    spoken(without_flite, text, speaker=speaker)
    assert [language for _, language in calls] == languages


def test_tokens_that_stand_for_noises_are_not_read_out(without_flite: Embedded, calls: list[tuple[str, str]]) -> None:
    spoken(without_flite, "你好[breath]<strong>世界</strong>。")
    assert [text for text, _ in calls] == ["你好  世界 。"]


@pytest.mark.parametrize(("text", "reason"), [("<|xx|>hi", "'xx'"), ("<|../../x|>hi", "x"), ("<|en|>...", "nothing")])
def test_what_cannot_be_read_is_refused_before_anything_is_made(
    without_flite: Embedded, text: str, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        without_flite.speak(job(text), never)


def test_speed_and_instructions_change_the_length(without_flite: Embedded) -> None:
    def length(**more: Any) -> int:
        return len(spoken(without_flite, "我们下午三点在图书馆门口见面", **more))

    normal = length()
    assert length(speed=2.0) < 0.65 * normal
    assert length(speed=0.5) > 1.6 * normal
    assert length(instruction="请用尽可能慢的语速说") > 1.15 * normal
    assert length(instruction="You are a helpful assistant. 请用快一点的语速<|endofprompt|>") < 0.85 * normal
    assert length(instruction="用快乐的语气说") == pytest.approx(normal, rel=0.1)


def test_english_is_spoken_by_flite_whoever_the_preset_is(with_flite: Embedded, calls: list[tuple[str, str]]) -> None:
    for speaker in ("中文女", "英文男", "英文女"):
        assert len(spoken(with_flite, "What time is it?", speaker=speaker)) > RATE
    assert calls == []


def test_english_words_in_a_chinese_sentence_keep_its_voice(with_flite: Embedded, calls: list[tuple[str, str]]) -> None:
    spoken(with_flite, "我喜欢 Python。")
    assert calls == [("我喜欢 ", "cmn"), ("Python。", "en-us")]


def test_without_flite_english_is_read_by_espeak(without_flite: Embedded, calls: list[tuple[str, str]]) -> None:
    said = spoken(without_flite, "What time is it?")
    assert calls == [("What time is it?", "en-us")]
    assert np.abs(said).max() > 0.1


@pytest.fixture(scope="module")
def recognise() -> Callable[[Samples], str]:
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")

    def decode(said: Samples) -> str:
        decoder.start_utt()
        decoder.process_raw((soxr.resample(said, RATE, 16_000) * 32_767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else ""

    return decode


@pytest.mark.parametrize("speaker", ["中文女", "英文男", "英文女"])
def test_a_recogniser_writes_down_what_was_said(
    with_flite: Embedded, recognise: Callable[[Samples], str], speaker: str
) -> None:
    assert recognise(spoken(with_flite, "What time is it?", speaker=speaker)) == "what time is it"
