"""What a key has used, in memory: counted, limited, written down, and begun anew with each day and month."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from gateway import accounts
from gateway.accounts import Account
from gateway.caller import EVERYTHING, Right
from gateway.errors import QuotaUsed, RateLimited
from gateway.keys import Key, Limits

NOON = datetime(2030, 1, 30, 12, tzinfo=UTC)


class Clock:
    """Stands in for `time` in gateway/accounts.py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moment, self.seconds = NOON, 1000.0
        monkeypatch.setattr(accounts, "time", self)

    def time(self) -> float:
        return self.moment.timestamp()

    def monotonic(self) -> float:
        return self.seconds

    def on(self, **more: float) -> None:
        self.moment += timedelta(**more)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def account(**limits: float | int) -> Account:
    asked = Limits(**limits)  # type: ignore[arg-type]
    return Account(Key("id", "d" * 64, "", "", EVERYTHING, asked, "", NOON, None, None, None))


class TestQuota:
    def test_all_of_it_can_be_used_and_not_a_sample_more(self, clock: Clock) -> None:
        one = account(day_seconds=10)
        one.afford(10)
        one.charge(Right.SPEAK, 4)
        one.charge(Right.TRANSCRIBE, 6)
        assert one.used() == (10, 10)
        with pytest.raises(QuotaUsed):
            one.afford()
        with pytest.raises(QuotaUsed):
            one.charge(Right.SPEAK, 1 / 48000)

    def test_what_would_be_too_much_is_refused_before(self, clock: Clock) -> None:
        one = account(day_seconds=10)
        one.charge(Right.SPEAK, 4)
        one.afford(6)
        with pytest.raises(QuotaUsed, match="4.0 of 10 seconds of audio are used, and this needs 6.5"):
            one.afford(6.5)
        assert one.used() == (4, 4)

    def test_the_day_begins_anew_and_the_month_goes_on(self, clock: Clock) -> None:
        one = account(day_seconds=10, month_seconds=25)
        for _ in range(2):
            one.charge(Right.SPEAK, 10)
            with pytest.raises(QuotaUsed) as refused:
                one.afford()
            clock.on(days=1)
        assert refused.value.retry_after == 12 * 3600 + 1
        assert clock.moment.day == 1, "a new month, too"
        assert one.used() == (0, 0)

    def test_the_month_ends_what_the_day_would_allow(self, clock: Clock) -> None:
        one = account(day_seconds=10, month_seconds=15)
        one.charge(Right.SPEAK, 10)
        clock.on(days=1)
        with pytest.raises(QuotaUsed, match="2030-02-01") as refused:
            one.charge(Right.SPEAK, 5.5)
        assert refused.value.retry_after == 12 * 3600 + 1

    def test_what_is_without_limit_is_counted_all_the_same(self, clock: Clock) -> None:
        one = account()
        one.charge(Right.CONVERSE, 1e6)
        one.afford(1e9)
        assert one.used() == (1e6, 1e6)

    def test_a_limit_that_changes_acts_at_once(self, clock: Clock) -> None:
        one = account()
        one.charge(Right.SPEAK, 5)
        one.take_up(replace(one.key, limits=Limits(day_seconds=5)))
        with pytest.raises(QuotaUsed):
            one.afford()


class TestWritingDown:
    def test_nothing_is_counted_twice_while_it_is_written(self, clock: Clock) -> None:
        one = account(day_seconds=100)
        one.charge(Right.SPEAK, 3)
        assert one.take() == {("2030-01-30", "speak"): 3}
        one.charge(Right.SPEAK, 2)
        assert one.used() == (5, 5)
        one.confirm()
        assert one.used() == (5, 5)
        assert one.take() == {("2030-01-30", "speak"): 2}

    def test_nothing_is_lost_where_it_cannot_be_written(self, clock: Clock) -> None:
        one = account(day_seconds=100)
        one.charge(Right.SPEAK, 3)
        one.take()
        one.charge(Right.SPEAK, 2)
        one.give_back()
        assert one.take() == {("2030-01-30", "speak"): 5}

    def test_what_other_processes_have_used_counts_too(self, clock: Clock) -> None:
        one = account(day_seconds=10)
        one.charge(Right.SPEAK, 1)
        one.know(date(2030, 1, 30), (8.5, 20.0))
        assert one.used() == (9.5, 21.0)
        with pytest.raises(QuotaUsed):
            one.afford(1)

    def test_sums_of_yesterday_are_not_taken_for_todays(self, clock: Clock) -> None:
        one = account()
        clock.on(days=1)
        one.know(date(2030, 1, 30), (8.5, 20.0))
        assert one.used() == (0, 0)

    def test_audio_at_midnight_goes_to_the_day_it_passed_on(self, clock: Clock) -> None:
        one = account()
        one.charge(Right.SPEAK, 3)
        clock.on(days=1)
        one.charge(Right.SPEAK, 2)
        assert one.used() == (2, 5)
        assert one.take() == {("2030-01-30", "speak"): 3, ("2030-01-31", "speak"): 2}
        one.confirm()
        assert one.used() == (2, 5)


class TestRate:
    def test_any_minute_has_so_many_requests_and_no_more(self, clock: Clock) -> None:
        one = account(rate=3)
        for _ in range(3):
            one.enter()
            clock.seconds += 10
        with pytest.raises(RateLimited) as refused:
            one.enter()
        assert refused.value.retry_after == 31
        clock.seconds += 30
        one.enter()
        with pytest.raises(RateLimited):
            one.enter()

    def test_who_waits_as_long_as_told_is_let_in(self, clock: Clock) -> None:
        one = account(rate=2)
        one.enter()
        clock.seconds += 0.4
        one.enter()
        with pytest.raises(RateLimited) as refused:
            one.enter()
        clock.seconds += refused.value.retry_after or 0
        one.enter()

    def test_who_is_refused_is_not_counted(self, clock: Clock) -> None:
        one = account(rate=1, sessions=1)
        one.enter()
        for _ in range(5):
            with pytest.raises(RateLimited):
                one.enter()
        one.leave()
        clock.seconds += 60
        one.enter()
        assert one.running == 1
