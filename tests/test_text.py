"""What may be spoken: checked before any engine hears of it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, TooLarge
from gateway.text import printable, speakable, untagged


def test_a_text_at_the_limit_is_spoken_and_one_over_it_is_not() -> None:
    assert len(speakable("a" * 100, 100)) == 100
    with pytest.raises(TooLarge, match="101 characters; the limit is 100") as caught:
        speakable("a" * 101, 100)
    assert caught.value.code == "text_too_long"


def test_the_limit_counts_characters_not_bytes() -> None:
    assert speakable("你" * 100, 100)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "。！？", "...", "\0", "😀", "\u200b", "—", "<||>"])
def test_a_text_with_nothing_to_say_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        speakable(text, 100)
    assert caught.value.code == "text_empty"


@pytest.mark.parametrize("text", ["a", "5", "你", "ا", "п", "é", "ก", "３", "½"])
def test_one_letter_or_digit_of_any_script_is_something_to_say(text: str) -> None:
    assert speakable(text, 100) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  Hello.\n", "Hello."),
        ("Hel\0lo", "Hello"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("one\r\ntwo", "one \ntwo"),
        ("\ufeffHello", "Hello"),
        ("a\x1b[31mb", "a[31mb"),
        ("Hello 😀!", "Hello 😀!"),
    ],
)
def test_control_characters_are_left_out_and_lines_are_kept(text: str, clean: str) -> None:
    assert speakable(text, 100) == clean


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2009", "\u2028", "\u0085"])
def test_words_between_blanks_of_any_kind_stay_apart(blank: str) -> None:
    assert speakable(f"one{blank}two", 100).split() == ["one", "two"]


@given(st.text())
def test_any_text_is_clean_or_refused(text: str) -> None:
    try:
        clean = speakable(text, 50)
    except (BadRequest, TooLarge):
        return
    assert clean == clean.strip()
    assert all(letter.isprintable() or letter in "\n\t" for letter in clean)
    clean.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<strong>重点</strong>来了", "重点来了"),
        ('<speak>Hi<break time="500ms"/> there</speak>', "Hi there"),
        ("a <!-- note --> b", "a  b"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("[laughter]你好", "[laughter]你好"),
        ("<3 you", "<3 you"),
        ("a<b", "a<b"),
        ("50% of $5/day, ￥3, -5℃~10℃, 'q' “q”", "50% of $5/day, ￥3, -5℃~10℃, 'q' “q”"),
    ],
)
def test_tags_are_left_out_and_nothing_else(text: str, said: str) -> None:
    assert untagged(text) == said


def test_a_row_of_open_tags_takes_no_time() -> None:
    begun = time.process_time()
    untagged("<a " * 100_000)
    untagged("<!--" * 100_000)
    assert time.process_time() - begun < 2


def test_halves_of_characters_are_left_out() -> None:
    assert printable("a\ud83d\0b\u3000c\n") == "ab c\n"
