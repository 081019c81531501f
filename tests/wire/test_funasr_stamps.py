"""When each word was said, written and read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.funasr_stamps import Stamp, read, sentences, timestamp

WORDS: tuple[Stamp, ...] = (
    ("正", 430, 670),
    ("是", 670, 810),
    ("因", 810, 1030),
    ("为", 1030, 1130),
    ("so", 1200, 1400),
)


def test_tokens_are_written_as_a_string() -> None:
    assert timestamp(WORDS[:2]) == "[[430,670],[670,810]]"


def test_sentences_are_parted_by_punctuation() -> None:
    assert sentences("正是因为，so", WORDS) == [
        {
            "text_seg": "正 是 因 为",
            "punc": "，",
            "start": 430,
            "end": 1130,
            "ts_list": [[430, 670], [670, 810], [810, 1030], [1030, 1130]],
        },
        {"text_seg": "so", "punc": "", "start": 1200, "end": 1400, "ts_list": [[1200, 1400]]},
    ]


def test_words_that_the_text_writes_otherwise_are_kept() -> None:
    """Numbers are said in words and written in figures."""
    said: tuple[Stamp, ...] = (("Take", 0, 100), ("twenty", 100, 300), ("don't", 300, 400))
    assert [one["text_seg"] for one in sentences("take 20, don't.", said)] == ["Take twenty don't"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("正是，so.", ["正", "是", "so"]),
        ("Don't stop!", ["Don't", "stop"]),
        ("今天 is 3月", ["今", "天", "is", "3", "月"]),
    ],
)
def test_what_is_written_is_read(text: str, words: list[str]) -> None:
    spans = [[100 * at, 100 * at + 90] for at in range(len(words))]
    meant = tuple((word, *span) for word, span in zip(words, spans, strict=True))
    assert read(json.dumps(spans), text) == meant
    assert read(spans, text) == meant, "upstream's Python server writes a list"


@pytest.mark.parametrize(
    "found",
    [
        None,
        "",
        "[",
        "[" * 100_000,
        5,
        {},
        [],
        [[0, 1]],
        [[0, 1], [1]],
        [[5, 1], [6, 7]],
        [[5, 6], [1, 2]],
        [[0, 1.5], [2, 3]],
    ],
)
def test_what_does_not_belong_to_the_text_is_nothing(found: object) -> None:
    assert read(found, "one two") == ()


@given(st.text(max_size=30), st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9), st.integers(0, 9)), max_size=9))
def test_every_word_is_in_one_sentence(text: str, words: list[Stamp]) -> None:
    assert [span for one in sentences(text, words) for span in one["ts_list"]] == [[a, b] for _, a, b in words]
