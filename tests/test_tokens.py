"""What a token is."""

import pytest

from gateway import tokens


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n", 0),
        ("Hello there.", 3),
        ("It's 12:30", 6),
        ("你好，世界", 5),
        ("Hello 世界!", 4),
        ("naïve café", 2),
        ("こんにちは", 5),
        ("👋 hi", 2),
    ],
)
def test_of_text_is_a_word_a_character_or_a_mark(text: str, count: int) -> None:
    assert tokens.of_text(text) == count


def test_of_sound_is_a_piece_of_time() -> None:
    assert (tokens.of_heard(1.0), tokens.of_spoken(1.0)) == (10, 20)
    assert (tokens.of_heard(0.01), tokens.of_spoken(0.0)) == (1, 0)
    assert tokens.of_spoken(3 * 0.1) == 6
