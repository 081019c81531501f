"""Text that is only ever appended: what a plain-text client's page shows in the end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deltas import Appended

WORDS = st.text(alphabet="ab ，。,.今天", max_size=12)


def shown(*utterances: tuple[list[str], str]) -> str:
    """What a page shows after these partials and finals."""
    page, appended = "", Appended()
    for partials, final in utterances:
        for partial in partials:
            page += appended.partial(partial)
        page += appended.final(final)
    return page


def test_partials_that_grow_are_appended_as_they_come() -> None:
    appended = Appended()
    pieces = [appended.partial(text) for text in ("今", "今天", "今天", "今天天气")]
    assert pieces == ["今", "天", "", "天气"]
    assert appended.final("今天天气。") == "。"


def test_without_partials_finals_are_shown_whole() -> None:
    assert shown(([], "hello world"), ([], "how are you")) == "hello world how are you"
    assert shown(([], "今天天气。"), ([], "明天呢？")) == "今天天气。明天呢？"
    assert shown(([], "你好。"), ([], "hello"), ([], "再见")) == "你好。hello再见"


@pytest.mark.parametrize(
    ("partials", "final", "page"),
    [
        (["hello", "hello wor"], "Hello, world.", "hello world."),
        (["今天天气怎么样明天呢"], "今天天气怎么样？明天呢？", "今天天气怎么样明天呢？"),
        (["it is "], "It is, I think.", "it is I think."),
        (["hello."], "Hello, world", "hello. world"),
        (["what time"], "what time is it", "what time is it"),
        (["today the whether is"], "Today, the weather is nice.", "today the whether is nice."),
        (["i like cats"], "I like hats and dogs.", "i like cats and dogs."),
        (["今天田气"], "今天天气很好。", "今天田气很好。"),
        (["so", "so what"], "so", "so what"),
        (["so what"], "", "so what"),
        (["something else entirely"], "no", "something else entirely"),
        (["Straße"], "STRASSE 5", "Straße 5"),
    ],
)
def test_a_final_that_differs_adds_what_is_missing_and_repeats_nothing(
    partials: list[str], final: str, page: str
) -> None:
    assert shown((partials, final)) == page


def test_a_partial_that_takes_something_back_is_held_until_the_final_says_what_is_true() -> None:
    appended = Appended()
    assert appended.partial("recognise") == "recognise"
    assert appended.partial("wreck a nice") == ""
    assert appended.partial("recognise speech") == " speech"
    assert appended.final("recognise speech.") == "."


def test_an_utterance_without_a_final_is_finished_with_its_last_partial() -> None:
    appended = Appended()
    appended.partial("what is")
    appended.partial("where is it")
    assert appended.end() == " it"
    assert appended.end() == ""


def test_an_empty_utterance_between_two_leaves_no_trace() -> None:
    assert shown(([], "one"), ([], ""), ([""], ""), ([], "two")) == "one two"


@given(st.lists(st.tuples(st.lists(WORDS, max_size=4), WORDS), max_size=4))
def test_any_order_of_partials_and_finals_is_taken(said: list[tuple[list[str], str]]) -> None:
    shown(*said)


@given(WORDS, st.integers(0, 12))
def test_the_page_is_the_final_wherever_it_begins_with_what_was_shown(final: str, cut: int) -> None:
    assert shown(([final[:cut]], final)) == final.lstrip() or final[:cut].strip() == ""


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=6))
def test_partials_of_any_number_add_up_to_the_finals(words: list[str]) -> None:
    partials = [" ".join(words[:n]) for n in range(len(words))]
    whole = " ".join(words)
    assert shown((partials, whole), (partials, whole)) == f"{whole} {whole}"


def test_very_long_utterances_do_not_hold_the_others_up() -> None:
    long = " ".join(f"word{n % 50}" for n in range(5000))
    begun = time.perf_counter()
    page = shown(([f"x{long}"], f"y{long} end"))
    assert time.perf_counter() - begun < 0.5
    assert page.endswith("end")
