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
        self.take_up(key)
        self.running = 0
        """Requests and connections."""
        self.seen = 0.0
        """time.time() of its last request; 0 where the database knows that already."""
        self._asked: deque[float] = deque()
        self._of_day = self._of_month = 0.0
        """Seconds of audio, those in the database and those that are not."""
        self._fresh: dict[tuple[str, str], float] = {}
        """(day, verb) → seconds that the database has not."""
        self._under_way: dict[tuple[str, str], float] = {}
        """Those that are being written to it."""
        self._open_page()

    def __repr__(self) -> str:
        day, month = self.used()
        return f"<{self.key.id}: {self.running} running, {day:.2f} s today, {month:.2f} s this month>"

    def take_up(self, key: Key) -> None:
        """The same key, as it is now."""
        self.key = key
        self.id, self.tenant, self.rights, self.appkey = key.id, key.tenant, key.rights, key.appkey

    @property
    def stirred(self) -> bool:
        """Whether there is something that the database does not know."""
        return self.seen > 0 or bool(self._fresh)

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
        self.seen = time.time()
        self.running += 1

    def leave(self) -> None:
        self.running -= 1

    def used(self) -> tuple[float, float]:
        """Seconds of audio today and this month, UTC."""
        self._turn_page()
        return self._of_day, self._of_month

    def afford(self, seconds: float = 0.0) -> None:
        """Raises QuotaUsed where so many more are too many, or none are left."""
        limits = self.key.limits
        if limits.day_seconds is None and limits.month_seconds is None:
            return
        self._turn_page()
        for used, most, until in (
            (self._of_day, limits.day_seconds, _next_day),
            (self._of_month, limits.month_seconds, _next_month),
        ):
            if most is not None and (used >= most or used + seconds > most):
                raise _used_up(used, most, seconds, until(self._day))

    def charge(self, right: Right, seconds: float) -> None:
        """Counts them. Raises QuotaUsed where they were more than was left; they are counted all the same."""
        self._turn_page()
        place = (self._day_text, right)
        self._fresh[place] = self._fresh.get(place, 0.0) + seconds
        self._of_day += seconds
        self._of_month += seconds
        limits = self.key.limits
        if limits.day_seconds is not None and self._of_day > limits.day_seconds:
            raise _used_up(self._of_day, limits.day_seconds, 0.0, _next_day(self._day))
        if limits.month_seconds is not None and self._of_month > limits.month_seconds:
            raise _used_up(self._of_month, limits.month_seconds, 0.0, _next_month(self._day))

    def take(self) -> dict[tuple[str, str], float]:
        """(day, verb) → seconds for the database, which are to be confirmed or given back."""
        self._under_way, self._fresh = self._fresh, {}
        return self._under_way

    def confirm(self) -> None:
        """What was taken is stored."""
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
            day = self._day_text
            mine = [*self._fresh.items(), *self._under_way.items()]
            self._of_day = stored[0] + sum(seconds for (at, _), seconds in mine if at == day)
            self._of_month = stored[1] + sum(seconds for (at, _), seconds in mine if at[:8] == day[:8])

    # Private

    def _turn_page(self) -> None:
        """A new day begins with nothing, and a new month too."""
        if time.time() >= self._until:
            month = self._day_text[:8]
            self._open_page()
            self._of_day = 0.0
            if self._day_text[:8] != month:
                self._of_month = 0.0

    def _open_page(self) -> None:
        self._day = datetime.fromtimestamp(time.time(), UTC).date()
        self._day_text = self._day.isoformat()
        self._until = _midnight(_next_day(self._day)).timestamp()


def _next_day(day: date) -> date:
    return day + timedelta(days=1)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _midnight(day: date) -> datetime:
    """With which it begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _used_up(used: float, most: float, more: float, until: date) -> QuotaUsed:
    asked = f", and this needs {more:.1f}" if more else ""
    wait = max(1, int(_midnight(until).timestamp() - time.time()) + 1)
    return QuotaUsed(
        f"{used:.1f} of {most:g} seconds of audio are used{asked}; more from {until.isoformat()}", retry_after=wait
    )
