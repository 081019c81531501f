import pytest

from engines.tts.languages import runs


@pytest.mark.parametrize(
    ("sentence", "language"),
    [
        ("你好", "cmn"), ("hello", "en-us"), ("こんにちは", "ja"), ("안녕하세요", "ko"), ("Привет", "ru"),
        ("مرحبا", "ar"), ("नमस्ते", "hi"), ("สวัสดี", "th"), ("Γειά", "el"), ("שלום", "he"), ("2024", "cmn"),
    ],
)  # fmt: skip
def test_a_script_decides_the_language(sentence: str, language: str) -> None:
    assert list(runs(sentence, "cmn")) == [(language, sentence)]


@pytest.mark.parametrize(
    ("sentence", "asked_for"),
    [("你好", "yue"), ("bonjour", "fr"), ("Добрий день", "uk"), ("سلام", "fa"), ("नमस्कार", "mr"), ("カー", "ja")],
)
def test_the_language_asked_for_reads_its_own_script(sentence: str, asked_for: str) -> None:
    assert list(runs(sentence, asked_for)) == [(asked_for, sentence)]


@pytest.mark.parametrize(("sentence", "asked_for"), [("hello", "cmn"), ("hello", "ja"), ("hello", "ru")])
def test_latin_letters_are_english_where_the_language_has_others(sentence: str, asked_for: str) -> None:
    assert list(runs(sentence, asked_for)) == [("en-us", sentence)]


def test_a_mixed_sentence_is_cut_where_the_script_changes() -> None:
    assert list(runs("我有3个 iPhone 15，很好", "cmn")) == [
        ("cmn", "我有3个 "), ("en-us", "iPhone 15，"), ("cmn", "很好"),
    ]  # fmt: skip


def test_figures_before_the_first_letter_go_with_it() -> None:
    assert list(runs("3 apples", "cmn")) == [("en-us", "3 apples")]
