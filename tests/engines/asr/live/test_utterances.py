"""What the VAD says, made into utterances."""

from collections.abc import Sequence

import pytest

from engines.asr.live.events import Began, Delta, Ended, pack, unpack
from engines.asr.live.utterances import LONGEST, Utterances


def heard(*said: tuple[Sequence[Sequence[int]], int]) -> list[Began | Ended]:
    made = Utterances()
    return [event for value, now in said for event in made.heard(value, now)]


def test_an_utterance_begins_a_little_before_the_vad_says_so() -> None:
    assert heard(([[270, -1]], 600), ([], 2000), ([[-1, 3210]], 4000)) == [Began(170), Ended(170, 3210)]


def test_never_before_the_stream_or_the_utterance_before() -> None:
    assert heard(([[20, 500]], 1500), ([[540, -1]], 1600)) == [Began(0), Ended(0, 500), Began(500)]


def test_a_whole_one_at_once() -> None:
    assert heard(([[270, 900], [1500, 2000]], 3000)) == [Began(170), Ended(170, 900), Began(1400), Ended(1400, 2000)]


def test_one_that_ends_where_the_next_begins() -> None:
    found = heard(([[200, -1]], 600), ([[-1, 1500], [1700, -1]], 2400))
    assert found == [Began(100), Ended(100, 1500), Began(1600)]


def test_an_end_without_a_beginning_is_none() -> None:
    assert heard(([[-1, 500]], 600), ([], 700)) == []


def test_nothing_ends_after_the_audio() -> None:
    assert heard(([[0, 1000]], 900)) == [Began(0), Ended(0, 900)]


def test_one_that_is_too_long_is_cut_and_goes_on() -> None:
    found = heard(([[100, -1]], 500), ([], LONGEST), ([], LONGEST + 60), ([[-1, LONGEST + 900]], LONGEST + 2000))
    assert found == [Began(0), Ended(0, LONGEST), Began(LONGEST), Ended(LONGEST, LONGEST + 900)]


def test_one_whose_end_comes_too_late_is_cut_before() -> None:
    found = heard(([[0, -1]], 500), ([[-1, LONGEST + 10]], LONGEST + 20))
    assert found == [Began(0), Ended(0, LONGEST), Began(LONGEST), Ended(LONGEST, LONGEST + 10)]


def test_one_that_is_far_too_long_is_cut_often() -> None:
    found = heard(([[0, -1]], 3 * LONGEST + 10))
    assert [event for event in found if isinstance(event, Ended)] == [
        Ended(at, at + LONGEST) for at in range(0, 3 * LONGEST, LONGEST)
    ]


@pytest.mark.parametrize(("said", "ended"), [([[270, -1]], [Ended(170, 700)]), ([[270, 400]], []), ([], [])])
def test_the_end_of_the_stream_ends_what_runs(said: Sequence[Sequence[int]], ended: list[Ended]) -> None:
    made = Utterances()
    list(made.heard(said, 600))
    assert list(made.finish(700)) == ended


def test_events_travel_as_json() -> None:
    events = [Began(170), Delta("今天"), Ended(170, 3210)]
    assert unpack(pack(events)) == events
