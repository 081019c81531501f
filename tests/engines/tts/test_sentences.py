import pytest

from engines.tts import sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("你好。今天怎么样？很好！", ["你好。", "今天怎么样？", "很好！"]),
        ("Hello. How are you? Fine!", ["Hello.", "How are you?", "Fine!"]),
        ("one\ntwo\n\nthree", ["one", "two", "three"]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("Wait... what?", ["Wait...", "what?"]),
        ("“走吧！”他说。", ["“走吧！”", "他说。"]),
    ],
)
def test_text_is_cut_at_the_ends_of_sentences(text: str, pieces: list[str]) -> None:
    assert list(sentences.split(text)) == pieces


@pytest.mark.parametrize("text", ["It costs 3.14 in all", "see example.com today", "Dr. Smith and J. Doe", "Mrs. Lee"])
def test_a_full_stop_inside_a_sentence_does_not_end_it(text: str) -> None:
    assert list(sentences.split(text)) == [text]


def test_what_cannot_be_spoken_is_left_out() -> None:
    assert list(sentences.split("!!! … \n hello. ***")) == ["hello."]


@pytest.mark.parametrize("text", ["好" * 5_000, "a" * 5_000, "word " * 1_000, "一些话，" * 1_000])
def test_no_piece_is_longer_than_the_limit_and_nothing_is_lost(text: str) -> None:
    pieces = list(sentences.split(text))
    assert max(map(len, pieces)) <= sentences.LONGEST
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_a_long_sentence_is_cut_at_a_pause_rather_than_inside_a_word() -> None:
    text = "a long clause of words, " * 20
    assert all(piece.endswith("words,") for piece in sentences.split(text))


def test_the_first_piece_does_not_wait_for_the_rest() -> None:
    pieces = sentences.split("One. " * 1_000_000)
    assert next(pieces) == "One."
