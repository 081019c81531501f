"""Subtitles as players want them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import subtitles
from gateway.wire.subtitles import COLUMNS, LONGEST, SHORTEST, Cue, Word, cues, srt, vtt, width

RAINBOW = (
    "When the sun shines through raindrops in the air, they act as a prism and form a rainbow; the rainbow is a "
    "division of white light into many beautiful colors, which take the shape of a long round arch."
)


def said(text: str, each: float = 0.3) -> list[Word]:
    return [Word(f"{word} ", at * each, (at + 1) * each) for at, word in enumerate(text.split())]


def characters(text: str, each: float = 0.2) -> list[Word]:
    return [Word(one, at * each, (at + 1) * each) for at, one in enumerate(text)]


def assert_readable(found: list[Cue]) -> None:
    before = 0.0
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < width(line) <= COLUMNS for line in cue.lines)
        assert before <= cue.start < cue.end
        before = cue.end


def test_a_short_sentence_is_one_line() -> None:
    assert cues([said("stop the music")], 9) == [Cue(("stop the music",), 0.0, pytest.approx(0.9))]


def test_a_long_one_becomes_cues_that_end_at_its_marks() -> None:
    found = cues([said(RAINBOW)], 60)
    assert_readable(found)
    assert " ".join(" ".join(cue.lines) for cue in found) == RAINBOW
    assert sum(cue.lines[-1][-1] in ",;." for cue in found) >= len(found) - 1
    assert all(cue.end - cue.start <= LONGEST for cue in found)


def test_chinese_takes_two_columns_a_character() -> None:
    text = "我们今天下午要去公园散步因为天气非常好而且我们已经很久没有一起出去走走了，所以大家都很期待这次的活动"
    found = cues([characters(text)], 60)
    assert_readable(found)
    assert max(len(line) for cue in found for line in cue.lines) <= COLUMNS // 2
    assert "".join("".join(cue.lines) for cue in found) == text


def test_two_lines_are_about_as_long() -> None:
    (cue,) = cues([said("this sentence has just a few words more than a line")], 60)
    one, other = map(width, cue.lines)
    assert abs(one - other) < 10


def test_slow_speech_is_parted_by_time() -> None:
    found = cues([said("one two three four five six", each=3.0)], 60)
    assert_readable(found)
    assert all(cue.end - cue.start <= LONGEST for cue in found)
    assert len(found) == 3


@pytest.mark.parametrize(("size", "count"), [(COLUMNS, 1), (COLUMNS + 1, 1), (2 * COLUMNS, 1), (2 * COLUMNS + 1, 2)])
def test_a_word_without_end_is_broken(size: int, count: int) -> None:
    found = cues([[Word("x" * size, 0.0, 4.0)]], 60)
    assert_readable(found)
    assert len(found) == count
    assert sum(len(line) for cue in found for line in cue.lines) == size
    assert found[-1].end == 4.0


def test_a_short_cue_is_shown_for_a_while_if_the_next_one_lets_it() -> None:
    yes, no = [Word("Yes. ", 1.0, 1.1)], [Word("No. ", 1.5, 1.6)]
    assert [cue.end for cue in cues([yes, no], 60)] == [1.5, pytest.approx(1.5 + SHORTEST)]
    assert [cue.end for cue in cues([yes], 1.2)] == [1.2]


def test_times_that_overlap_or_stand_still_become_valid() -> None:
    assert_readable(cues([[Word("a ", 1.0, 3.0)], [Word("b ", 2.0, 2.5)], [Word("c ", 2.0, 2.0)]], 2.0))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "00:00:00,000"), (59.9996, "00:01:00,000"), (3661.5, "01:01:01,500"), (360_000.001, "100:00:00,001")],
)
def test_how_times_are_written(seconds: float, shown: str) -> None:
    assert srt(7, Cue(("a",), seconds, seconds)) == f"7\n{shown} --> {shown}\na\n\n"
    assert vtt(Cue(("a",), seconds, seconds)).startswith(shown.replace(",", "."))


def test_a_text_cannot_end_its_cue_or_be_markup() -> None:
    cue = Cue(("a --> b <i>&c", "d"), 0.0, 1.0)
    assert vtt(cue).split("\n")[1] == "a --&gt; b &lt;i&gt;&amp;c"
    assert srt(1, cue).count("-->") == 1


_CUE = re.compile(r"(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n(.+(?:\n.+)?)\n\n")


@given(
    st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=60), min_size=1, max_size=40)
)
def test_whatever_is_said_a_strict_reader_finds_every_cue(texts: list[str]) -> None:
    words = [Word(f"{text} ", at * 0.4, at * 0.4 + 0.3) for at, text in enumerate(texts)]
    found = cues([words], len(words))
    for one, other in zip(found, found[1:], strict=False):
        assert one.end <= other.start
    whole = "".join(srt(number, cue) for number, cue in enumerate(found, 1))
    assert "".join(match[0] for match in _CUE.finditer(whole)) == whole
    assert len(_CUE.findall(whole)) == len(found)


def test_a_mad_engine_s_text_takes_no_time() -> None:
    assert len(subtitles.cues([said("word " * 20_000)], 1e9)) > 1000
