"""When each word was said, by the engine or as it seems, and which words are a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import Transcript, Word
from gateway.passages import Passage
from gateway.pieces import Piece, Span
from gateway.timing import Sentence, sentences

PIECE = Piece(10.0, 20.0, (Span(10.5, 13.0), Span(14.0, 19.0)))


def timed(*said: Transcript, piece: Piece = PIECE) -> list[Sentence]:
    return sentences(Passage(piece, said))


def words(found: list[Sentence]) -> list[tuple[str, float, float]]:
    return [(word.word, word.start, word.end) for one in found for word in one.words]


def text(*said: str) -> list[str]:
    return [one.text for one in timed(*(Transcript(one, "") for one in said))]


class TestSentences:
    @pytest.mark.parametrize(
        ("whole", "parts"),
        [
            ("Stop. Go on! Why?", ["Stop.", "Go on!", "Why?"]),
            ("It is 3.5 km to Dr. Who. Yes", ["It is 3.5 km to Dr. Who.", "Yes"]),
            ("你好，世界。今天天气很好！", ["你好，世界。", "今天天气很好！"]),
            ("“Stop.” (Go on…) he said - then left", ["“Stop.”", "(Go on…)", "he said - then left"]),
            ("no marks at all", ["no marks at all"]),
            ("GPT模型，very good。ok", ["GPT模型，very good。", "ok"]),
            ("...", ["..."]),
        ],
    )
    def test_end_where_their_marks_are(self, whole: str, parts: list[str]) -> None:
        assert text(whole) == parts

    def test_a_pause_parts_them_too(self) -> None:
        spoken = (Word("one", 11.0, 11.5), Word("two", 12.0, 12.5), Word("three", 13.2, 14.0))
        assert [one.text for one in timed(Transcript("one two three", "", words=spoken))] == ["one two", "three"]

    def test_words_are_without_punctuation_and_characters_are_words(self) -> None:
        found = words(timed(Transcript("(Hello), it's 你好。", "")))
        assert [word for word, _, _ in found] == ["Hello", "it's", "你", "好"]


class TestTimesOfTheEngine:
    def test_are_kept(self) -> None:
        spoken = (Word("hello", 11.0, 11.5), Word("world", 11.6, 12.25))
        (found,) = timed(Transcript("Hello, world!", "", words=spoken))
        assert (found.measured, found.start, found.end) == (True, 11.0, 12.25)
        assert words([found]) == [("Hello", 11.0, 11.5), ("world", 11.6, 12.25)]

    def test_tell_of_numbers_that_are_written_otherwise(self) -> None:
        heard = ["i", "have", "twenty", "three", "dogs", "now"]
        spoken = tuple(Word(word, 11 + at / 2, 11.5 + at / 2) for at, word in enumerate(heard))
        found = words(timed(Transcript("I have 23 dogs now.", "", words=spoken)))
        assert found == [
            ("I", 11.0, 11.5),
            ("have", 11.5, 12.0),
            ("23", 12.0, 13.0),
            ("dogs", 13.0, 13.5),
            (
                "now",
                13.5,
                14.0,
            ),
        ]

    def test_of_characters_are_kept(self) -> None:
        spoken = tuple(Word(one, 11 + at / 4, 11.25 + at / 4) for at, one in enumerate("今天天气"))
        found = words(timed(Transcript("今天，天气。", "", words=spoken)))
        assert found == [(one, 11 + at / 4, 11.25 + at / 4) for at, one in enumerate("今天天气")]

    def test_that_are_mad_stay_in_the_piece_and_in_order(self) -> None:
        spoken = (Word("one", -5.0, 90.0), Word("two", 12.0, 11.0), Word("three", 1e9, -1e9))
        found = words(timed(Transcript("one two three", "", words=spoken)))
        assert_ordered(found)

    def test_of_words_that_are_not_in_the_text_are_shared_out(self) -> None:
        spoken = (Word("@@", 11.0, 12.0), Word("##", 12.0, 13.0))
        assert words(timed(Transcript("你好", "", words=spoken))) == [("你", 11.0, 12.0), ("好", 12.0, 13.0)]

    def test_a_text_without_end_does_not_take_for_ever(self) -> None:
        spoken = tuple(Word("ab", 11.0, 12.0) for _ in range(30_000))
        assert timed(Transcript("ba " * 30_000, "", words=spoken))


class TestEstimates:
    def test_words_lie_where_somebody_speaks(self) -> None:
        found = timed(Transcript("these are quite a few words that somebody says", ""))
        assert not any(one.measured for one in found)
        assert_ordered(words(found))
        for _, start, end in words(found):
            assert any(span.start - 1e-3 <= start <= end <= span.end + 1e-3 for span in PIECE.speech)

    def test_longer_words_take_longer(self) -> None:
        found = words(timed(Transcript("a extraordinarily", ""), piece=Piece(0, 10, (Span(0, 10),))))
        assert found[1][2] - found[1][1] > 5 * (found[0][2] - found[0][1])

    def test_all_of_the_speech_is_shared_out(self) -> None:
        found = words(timed(Transcript("one two three four", ""), piece=Piece(0, 9, (Span(1, 5), Span(6, 8)))))
        assert (found[0][1], found[-1][2]) == (1.0, 8.0)

    def test_where_speech_was_not_looked_for_it_is_everywhere(self) -> None:
        assert words(timed(Transcript("one", ""), piece=Piece(3, 5, ()))) == [("one", 3.0, 5.0)]

    def test_the_engine_s_times_of_an_utterance_bound_them(self) -> None:
        found = words(timed(Transcript("one two", "", start=14.5, end=16.5), Transcript("three", "", start=17, end=18)))
        assert (found[0][1], found[1][2], found[2][1], found[2][2]) == (14.5, 16.5, 17.0, 18.0)

    def test_texts_without_times_share_the_piece(self) -> None:
        found = words(timed(Transcript("one", ""), Transcript("two", ""), piece=Piece(0, 6, (Span(0, 6),))))
        assert found == [("one", 0.0, 3.0), ("two", 3.0, 6.0)]

    @given(st.text(max_size=60).filter(str.strip), st.lists(st.floats(10, 20), min_size=2, max_size=8))
    def test_whatever_the_text_they_are_in_order_and_nothing_is_lost(self, said: str, edges: list[float]) -> None:
        edges.sort()
        spans = tuple(Span(*pair) for pair in zip(edges[::2], edges[1::2], strict=False))
        found = timed(Transcript(said, ""), piece=Piece(10.0, 20.0, spans))
        assert_ordered(words(found))
        assert sorted("".join(one.text for one in found).replace(" ", "")) == sorted("".join(said.split()))


def assert_ordered(found: list[tuple[str, float, float]]) -> None:
    before = PIECE.start
    for _, start, end in found:
        assert before <= start <= end <= PIECE.end
        before = start
