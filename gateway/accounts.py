"""A key in use, in memory: how often it asks, how much it does at a time, how much audio it has used.

Rule 1: nothing here waits. What was used goes to the database later, and the sums that are there come back with it, so
that several processes agree within a few seconds.
Rule 2: a limit is of one key. What keys of one tenant share is what belongs to the tenant.
"""

import time
from collections import deque
from datetime import UTC, date, datetime, timedelta

from gateway.caller import Right
from gateway.errors import QuotaUsed, RateLimited
from gateway.keys import Key

_WINDOW = 60.0
"""Seconds that `rate` is counted over: any so many, not those of a clock's minute."""


class Account:
    def __init__(self, key: Key) -> None:
        self.key = key
        self.running = 0
        """Requests and connections."""
        self.seen: datetime | None = None
        """When it last asked, where the database does not know that yet."""
        self._asked: deque[float] = deque()
        self._day = datetime.now(UTC).date()
        self._stored = (0.0, 0.0)
        """Seconds of this day and this month that the database has."""
        self._fresh: dict[tuple[str, str], float] = {}
        """(day, verb) → seconds that it has not."""
        self._under_way: dict[tuple[str, str], float] = {}
        """Those that are being written to it."""

    def __repr__(self) -> str:
        day, month = self.used()
        return f"<{self.key.id}: {self.running} running, {day:.2f} s today, {month:.2f} s this month>"

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def tenant(self) -> str:
        return self.key.tenant

    @property
    def rights(self) -> frozenset[Right]:
        return self.key.rights

    @property
    def appkey(self) -> str:
        return self.key.appkey

    @property
    def stirred(self) -> bool:
        """Whether there is something that the database does not know."""
        return self.seen is not None or bool(self._fresh)

    @property
    def limited(self) -> bool:
        """Whether its audio is counted against a quota."""
        return self.key.limits.day_seconds is not None or self.key.limits.month_seconds is not None

    def enter(self) -> None:
        """One more request. Raises RateLimited; what is refused does not count."""
        limits = self.key.limits
        if limits.sessions is not None and self.running >= limits.sessions:
            raise RateLimited(f"this key has {limits.sessions} at a time, and they are all running")
        if limits.rate is not None:
            now = time.monotonic()
            while self._asked and self._asked[0] <= now - _WINDOW:
                self._asked.popleft()
            if len(self._asked) >= limits.rate:
                wait = max(1, int(self._asked[-limits.rate] + _WINDOW - now) + 1)
                raise RateLimited(f"this key may ask {limits.rate} times a minute", retry_after=wait)
            self._asked.append(now)
        self.seen = datetime.now(UTC)
        self.running += 1

    def leave(self) -> None:
        self.running -= 1

    def used(self) -> tuple[float, float]:
        """Seconds of audio today and this month, UTC."""
        self._turn_page()
        day = self._day.isoformat()
        fresh = [*self._fresh.items(), *self._under_way.items()]
        of_day = sum(seconds for (at, _), seconds in fresh if at == day)
        of_month = sum(seconds for (at, _), seconds in fresh if at[:8] == day[:8])
        return self._stored[0] + of_day, self._stored[1] + of_month

    def afford(self, seconds: float = 0.0) -> None:
        """Raises QuotaUsed where so many more are too many, or none are left."""
        for used, most, until in self._quotas():
            if used >= most or used + seconds > most:
                raise _used_up(used, most, seconds, until)

    def charge(self, right: Right, seconds: float) -> None:
        """Counts them. Raises QuotaUsed where they were more than was left; they are counted all the same."""
        self._turn_page()
        place = (self._day.isoformat(), str(right))
        self._fresh[place] = self._fresh.get(place, 0.0) + seconds
        for used, most, until in self._quotas():
            if used > most:
                raise _used_up(used, most, 0.0, until)

    def take(self) -> dict[tuple[str, str], float]:
        """(day, verb) → seconds for the database, which are to be confirmed or given back."""
        self._under_way, self._fresh = self._fresh, {}
        return self._under_way

    def confirm(self) -> None:
        """What was taken is stored; the new sums follow by `know`."""
        if self._under_way:
            self._turn_page()
            day = self._day.isoformat()
            of_day = sum(seconds for (at, _), seconds in self._under_way.items() if at == day)
            of_month = sum(seconds for (at, _), seconds in self._under_way.items() if at[:8] == day[:8])
            self._stored = (self._stored[0] + of_day, self._stored[1] + of_month)
        self._under_way = {}

    def give_back(self) -> None:
        """What was taken could not be stored."""
        for place, seconds in self._under_way.items():
            self._fresh[place] = self._fresh.get(place, 0.0) + seconds
        self._under_way = {}

    def know(self, today: date, stored: tuple[float, float]) -> None:
        """The database's sums, those of other processes in them."""
        self._turn_page()
        if today == self._day:
            self._stored = stored

    # Private

    def _quotas(self) -> list[tuple[float, float, date]]:
        """(used, limit, the day on which it begins anew) of those that its key has."""
        if not self.limited:
            return []
        limits, (day, month) = self.key.limits, self.used()
        found = ((day, limits.day_seconds, _next_day(self._day)), (month, limits.month_seconds, _next_month(self._day)))
        return [(used, most, until) for used, most, until in found if most is not None]

    def _turn_page(self) -> None:
        """A new day begins with nothing, and a new month too."""
        today = datetime.now(UTC).date()
        if today != self._day:
            month = self._stored[1] if (today.year, today.month) == (self._day.year, self._day.month) else 0.0
            self._day, self._stored = today, (0.0, month)


def _next_day(day: date) -> date:
    return day + timedelta(days=1)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _used_up(used: float, most: float, more: float, until: date) -> QuotaUsed:
    asked = f", and this needs {more:.1f}" if more else ""
    midnight = datetime(until.year, until.month, until.day, tzinfo=UTC)
    wait = max(1, int((midnight - datetime.now(UTC)).total_seconds()) + 1)
    return QuotaUsed(
        f"{used:.1f} of {most:g} seconds of audio are used{asked}; more from {until.isoformat()}", retry_after=wait
    )
