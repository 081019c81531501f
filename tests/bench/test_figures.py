"""What bursts and streams come to."""

import math

import pytest

from bench.engines.figures import (
    Burst,
    Live,
    Request,
    Stream,
    Target,
    drift,
    gigabytes,
    milliseconds,
    percentile,
    table,
)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.95, 1.0)] == [1, 1, 3, 5, 5]
    assert math.isnan(percentile([], 0.5))


def test_a_burst_states_what_the_server_does_and_what_a_client_sees() -> None:
    requests = (Request(took=1.0, first=0.25, audio=4.0), Request(took=2.0, first=0.75, audio=4.0))
    burst = Burst(2, requests, wall=2.0, health=(), rss=0, vram=None)
    assert burst.per_second == 1.0
    assert burst.audio_per_wall == 4.0
    assert burst.rtf == pytest.approx(0.375)
    assert (burst.took(0.5), burst.took(0.95), burst.first(0.95)) == (1.0, 2.0, 0.75)


def test_a_stream_keeps_up_that_ends_soon_and_without_a_fault() -> None:
    def stream(ended: float, fault: str = "") -> Stream:
        return Stream(deltas=3, utterances=1, first=0.5, final=ended, ended=ended, fault=fault)

    live = Live((stream(0.3), stream(2.5), stream(0.3, "it died"), stream(math.inf)), health=(), rss=0, vram=0)
    assert live.realtime == 1


def test_a_drift_compares_the_last_requests_with_the_first() -> None:
    assert drift([1.0] * 10 + [9.0] * 80 + [2.0] * 10) == 2.0
    assert drift([1.0, 3.0]) == 3.0
    assert math.isnan(drift([1.0]))


@pytest.mark.parametrize(
    ("found", "at_least", "met"), [(5, True, True), (4, True, False), (5, False, True), (6, False, False)]
)
def test_a_target_is_met_or_missed(found: float, at_least: bool, met: bool) -> None:
    assert Target("", 5, found, at_least).met is met


def test_a_table_is_markdown_and_says_where_there_is_no_figure() -> None:
    rows = [
        (milliseconds(0.0123), milliseconds(1.5), milliseconds(math.nan), gigabytes(None), gigabytes(2_500_000_000))
    ]
    assert table(("a", "b", "c", "d", "e"), rows).splitlines()[2] == "| 12.3 | 1500 | – | n/a | 2.50 |"
