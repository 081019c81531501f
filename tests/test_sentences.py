"""A reply that is still arriving, cut into what can be spoken already."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.sentences import FIRST, FIRST_LONGEST, LONGEST, Sentences


def cut(text: str, size: int | None = None) -> list[str]:
    sentences = Sentences()
    pieces = [text] if size is None else [text[at : at + size] for at in range(0, len(text), size)]
    return [found for piece in pieces for found in sentences.feed(piece)] + sentences.end()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("你好。今天好吗？很好！", ["你好。", "今天好吗？", "很好！"]),
        ('He said "Go." Then he went.', ['He said "Go."', "Then he went."]),
        ("It is 3.14 or 2,000.50 at example.com now.", ["It is 3.14 or 2,000.50 at example.com now."]),
        ("Dr. Smith met Mr. J. Doe. They talked.", ["Dr. Smith met Mr. J. Doe.", "They talked."]),
        ("E.g. this, i.e. that. Done.", ["E.g. this, i.e. that.", "Done."]),
        ("So do I. You too.", ["So do I.", "You too."]),
        ("1. First one. 2. Second one.", ["1. First one.", "2. Second one."]),
        ("Well... maybe. Or not?! Yes.", ["Well...", "maybe.", "Or not?!", "Yes."]),
        ("One line\nanother line", ["One line", "another line"]),
        ("**Bold** and `code`.\n- an item\n# Title", ["Bold and code.", "an item", "Title"]),
        ("... ?! 🙂\n", []),
        ("", []),
        ("No end", ["No end"]),
        ("¿Qué tal? Bien.", ["¿Qué tal?", "Bien."]),
        ("क्या हाल है। ठीक है।", ["क्या हाल है।", "ठीक है।"]),
    ],
)
@pytest.mark.parametrize("size", [1, 4, None])
def test_sentences_are_the_same_however_the_text_comes(text: str, expected: list[str], size: int | None) -> None:
    assert cut(text, size) == expected


def test_a_sentence_is_out_as_soon_as_it_has_ended() -> None:
    sentences = Sentences()
    assert sentences.feed("One is done.") == [], "it may be 1.5"
    assert sentences.feed(" Two") == ["One is done."]
    assert sentences.feed("：好。") == ["Two：好。"]
    assert sentences.end() == []


@pytest.mark.parametrize(("size", "first"), [(None, "他说：“走吧。”"), (1, "他说：“走吧。")])
def test_a_sentence_does_not_wait_for_marks_that_nobody_hears(size: int | None, first: str) -> None:
    assert cut("他说：“走吧。”然后走了。", size) == [first, "然后走了。"]


def test_what_ends_a_sentence_again_begins_none() -> None:
    assert cut("真的！！！是吗？？", 1) == ["真的！", "是吗？"]
    assert cut("真的！！！是吗？？") == ["真的！！！", "是吗？？"]


@given(some.text(alphabet="ab 你好，。！.,!?\n”1", max_size=400), some.integers(min_value=1, max_value=130))
def test_sentences_are_cut_at_the_same_places_however_the_text_comes(text: str, size: int) -> None:
    def heard(pieces: list[str]) -> list[str]:
        return ["".join(filter(str.isalnum, piece)) for piece in pieces]

    assert heard(cut(text, size)) == heard(cut(text))


def test_the_first_piece_does_not_wait_for_a_long_sentence() -> None:
    text = "When the rain had stopped and the sun was out again, " + "we all went down to the river and " * 5
    first, *rest = cut(text)
    assert first == "When the rain had stopped and the sun was out again,"
    assert len(first) <= FIRST
    assert all(len(piece) <= LONGEST for piece in rest)


def test_the_first_piece_does_not_wait_for_a_pause_either() -> None:
    """What a recogniser wrote has no punctuation at all."""
    first, *rest = cut("word " * 200)
    assert len(first) <= FIRST_LONGEST
    assert all(FIRST_LONGEST < len(piece) <= LONGEST for piece in rest[:-1])


@pytest.mark.parametrize("text", ["word " * 500, "x" * 1000, "字" * 1000, "a, " * 400])
def test_no_piece_is_too_long(text: str) -> None:
    pieces = cut(text, 7)
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@given(some.text(alphabet='ab1 .,!?。，？\n"”*', max_size=300), some.integers(1, 9))
def test_nothing_that_can_be_said_is_lost(text: str, size: int) -> None:
    pieces = cut(text, size)
    assert "".join(filter(str.isalnum, "".join(pieces))) == "".join(filter(str.isalnum, text))
    assert all(any(map(str.isalnum, piece)) and len(piece) <= LONGEST for piece in pieces)


@pytest.mark.parametrize("text", ["." * 20_000 + "x", "a. " * 6000, "x" * 20_000 + ". y", "1." * 10_000])
def test_a_long_text_keeps_nobody_else_waiting(text: str) -> None:
    """A pattern that tries every pair of places would take a minute, in the event loop."""
    begun = time.process_time()
    cut(text)
    assert time.process_time() - begun < 0.5
