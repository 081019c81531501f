"""CosyVoice's protocol: language tags, and texts that must not be read as instructions."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire.cosyvoice import form, split_tag, tagged, without_control

TRICKY = st.text(st.sampled_from("<|> abz中\n[]/_")) | st.text()


def test_a_tag_is_written_and_read_back() -> None:
    assert tagged("Hello.", "en") == "<|en|>Hello."
    assert split_tag("<|en|>Hello.") == ("en", "Hello.")


def test_without_a_language_the_text_stays_as_it_is() -> None:
    assert tagged("Hello.", "") == "Hello."
    assert split_tag("Hello.") == ("", "Hello.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<| EN |>Hi", ("en", "Hi")),
        ("<|zh|><|en|>Hi", ("zh", "<|en|>Hi")),
        ("Hi <|en|>", ("", "Hi <|en|>")),
        ("<|en>Hi", ("", "<|en>Hi")),
        ("<|||>Hi", ("", "<|||>Hi")),
        ("<||>Hi", ("", "Hi")),
        ("", ("", "")),
    ],
)
def test_only_a_whole_tag_at_the_very_start_counts(text: str, expected: tuple[str, str]) -> None:
    assert split_tag(text) == expected


@given(st.sampled_from(["zh", "en", "ja", "yue", "ko"]), TRICKY)
def test_any_text_comes_back_from_behind_its_tag(language: str, text: str) -> None:
    assert split_tag(tagged(text, language)) == (language, text)


@pytest.mark.parametrize(
    "text",
    [
        "<|en|>Hello",
        "Hello<|endofprompt|>there",
        "<<|a|>|b|>",
        "<|<|<|x|>|>|>",
        "<||||>",
        "<|a<|b|>c|>",
        "<|",
        "|>",
        "<|>",
        "<<||>>",
        "< |en|>",
    ],
)
def test_every_control_mark_is_taken_out_however_nested(text: str) -> None:
    cleaned = without_control(text)
    assert "<|" not in cleaned
    assert "|>" not in cleaned


@given(TRICKY)
@example("<|" * 50 + "|>" * 50)
@example("<|>" * 50)
@example("|><|" * 50)
def test_no_text_keeps_a_control_mark(text: str) -> None:
    cleaned = without_control(text)
    assert "<|" not in cleaned
    assert "|>" not in cleaned


@given(TRICKY)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert without_control(without_control(text)) == without_control(text)


@pytest.mark.parametrize("text", ["Hello [laughter] there", "a < b | c > d", "<strong>so</strong>", "你好，世界。"])
def test_what_is_no_control_mark_stays_word_for_word(text: str) -> None:
    assert without_control(text) == text


def test_the_words_around_a_control_mark_stay_apart() -> None:
    assert without_control("one<|x|>two").split() == ["one", "two"]


@given(
    st.dictionaries(st.sampled_from(["tts_text", "spk_id", "speed"]), st.text(st.characters(codec="utf-8"), min_size=1))
)
def test_a_form_is_read_back_as_it_was_written(fields: dict[str, str]) -> None:
    assert dict(parse_qsl(form(fields).decode("ascii"), keep_blank_values=True, strict_parsing=bool(fields))) == fields
