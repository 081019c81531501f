from collections.abc import Iterator
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from engines.tts.backends.espeak import LOCK, Espeak


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))


def counting() -> Iterator[bool]:
    yield from (False, False)
    while True:
        yield True


def test_mandarin_is_read_as_mandarin_and_not_as_letters(espeak: Espeak) -> None:
    read = espeak.phonemes("你好", "cmn")
    assert "ni" in read
    assert "Au" in read
    assert "(en)" not in read


def test_cantonese_reads_han_differently(espeak: Espeak) -> None:
    assert espeak.phonemes("你好", "yue") not in ("", espeak.phonemes("你好", "cmn"))


@pytest.mark.parametrize("code", ["zh", "cmn", "yue", "en-us", "en", "fr", "ja", "ko", "ru", "ar", "hi", "th", "no"])
def test_every_language_it_lists_can_be_spoken_under_its_code(espeak: Espeak, code: str) -> None:
    assert code in espeak.languages
    assert len(espeak.say("1 2 3", f"{code}+f3", 175, 50, lambda: False)) > 0.3 * espeak.sample_rate


def test_stopping_ends_it_inside_a_sentence_and_frees_the_lock(espeak: Espeak) -> None:
    answers = counting()
    said = espeak.say("hello world " * 100, "en-us", 175, 50, lambda: next(answers))
    assert len(said) < 0.5 * espeak.sample_rate
    assert not LOCK.locked()
    assert len(espeak.say("hello world", "en-us", 175, 50, lambda: False)) > 0.5 * espeak.sample_rate


def test_a_null_character_does_not_end_the_text(espeak: Espeak) -> None:
    whole = espeak.say("one two three four", "en-us", 175, 50, lambda: False)
    cut = espeak.say("one two\0three four", "en-us", 175, 50, lambda: False)
    assert len(cut) == pytest.approx(len(whole), rel=0.3)


def test_pace_changes_the_length(espeak: Espeak) -> None:
    slow, fast = (len(espeak.say("one two three", "en-us", pace, 50, lambda: False)) for pace in (100, 300))
    assert slow > 2 * fast


def test_markup_is_read_out_rather_than_obeyed(espeak: Espeak) -> None:
    said = espeak.say('<audio src="/etc/passwd"/> [[x]]', "en-us", 175, 50, lambda: False)
    assert np.abs(said).max() > 1_000


def test_without_its_data_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        Espeak(tmp_path / "nothing.so", tmp_path)
