"""Secrets that a page in a browser may have: each stands for the key that made it, at one path, for some minutes.

Rule 1: 256 random bits, in memory alone: whoever restarts the gateway makes them again.
Rule 2: bounded: of very many the oldest go first.
Rule 3: one is good as long as its key is; no further ones can be made with it.
"""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

PREFIX = "ek_"
MOST = 10_000


@dataclass(frozen=True, slots=True)
class Secret:
    value: str = field(repr=False)
    key_id: str
    """Whose it is; empty where no key was asked."""
    path: str
    """Where it is good."""
    expires_at: int
    """Seconds since 1970."""
    content: object = field(repr=False)
    """What its maker wants whoever shows it to get."""


class Ephemeral:
    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._made: OrderedDict[str, Secret] = OrderedDict()

    def __repr__(self) -> str:
        return f"<ephemeral: {len(self._made)}/{self._most}>"

    def make(self, key_id: str, path: str, seconds: int, content: object) -> Secret:
        made = Secret(PREFIX + secrets.token_urlsafe(32), key_id, path, int(time.time()) + seconds, content)
        for value in [value for value, one in self._made.items() if _over(one)]:
            del self._made[value]
        while len(self._made) >= self._most:
            self._made.popitem(last=False)
        self._made[made.value] = made
        return made

    def find(self, value: str, path: str) -> Secret | None:
        """None where it is none, or for another path, or too old."""
        found = self._made.get(value) if value.startswith(PREFIX) else None
        return None if found is None or found.path != path or _over(found) else found


# Private


def _over(secret: Secret) -> bool:
    return time.time() >= secret.expires_at
