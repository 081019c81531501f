"""The keys: who may use the gateway, for what, and how much. Their rows in the database, and what they are known by.

Rule 1: a key is shown once, when it is made; what is stored tells nobody what it was. Of a key that we made, that is
the SHA-256 of its secret: 256 random bits are guessed by nobody, so a slow hash would only cost every request.
Rule 2: a key of the operator's own choosing may be guessable. It is stored as an HMAC under a pepper that lies beside
the database in a file of its own, so that a copy of the database alone is not enough to guess from.
Rule 3: no row is ever deleted. Once there was a key the gateway asks for one, also after the last was revoked.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.caller import Right
from gateway.database import Database
from gateway.database import keys as table
from gateway.database import usage as usage_table
from gateway.errors import BadRequest

PREFIX = "vg_"
SHORTEST_TOKEN = 10
"""Characters of a key that the operator chose."""
LONGEST_TOKEN = 200
MOST_RATE = 1_000_000
_NOTHING = hashlib.sha256(b"").hexdigest()
"""What an unknown key is compared with, so that it takes as long as a known one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one key; None is without limit."""

    rate: int | None = None
    """Requests in any 60 seconds."""
    sessions: int | None = None
    """Requests and connections at a time."""
    day_seconds: float | None = None
    """Seconds of audio in a day (UTC)."""
    month_seconds: float | None = None
    """Seconds of audio in a calendar month (UTC)."""


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    digest: str = field(repr=False)
    tenant: str
    """Whose voices and chats its bearer sees; empty is everybody's who has no tenant."""
    name: str
    """For people."""
    rights: frozenset[Right]
    limits: Limits
    appkey: str = field(repr=False)
    """What NLS clients must send besides; empty asks for none."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def good(self) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or datetime.now(UTC) < self.expires_at)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key that is to be made."""

    rights: frozenset[Right]
    tenant: str = ""
    name: str = ""
    limits: Limits = Limits()
    appkey: str = field(default="", repr=False)
    expires_at: datetime | None = None
    token: str = field(default="", repr=False)
    """Of the operator's choosing; empty has one made."""


Used = Mapping[tuple[str, str, str], float]
"""(key's id, day, verb) → seconds of audio."""


class Keys:
    """Of one data folder. Other processes may change them at any time."""

    def __init__(self, database: Database, pepper: bytes) -> None:
        self._database, self._pepper = database, pepper

    async def create(self, wanted: Wanted) -> tuple[Key, str]:
        """(the key, what its bearer sends). Raises BadRequest for what cannot be one."""
        _check(wanted)
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        sent = wanted.token or f"{PREFIX}{key_id}_{secret}"
        _, digest = self.digest(sent)
        key = Key(
            key_id,
            digest,
            wanted.tenant,
            wanted.name,
            wanted.rights,
            wanted.limits,
            wanted.appkey,
            datetime.now(UTC),
            wanted.expires_at,
            None,
            None,
        )
        try:
            await self._database.execute(insert(table).values({**_fields(key), "revision": _next_revision()}))
        except IntegrityError:
            raise BadRequest("there is a key with this token, or there was one: each can be used once") from None
        return key, sent

    async def list(self) -> Sequence[Key]:
        """Oldest first, revoked ones too."""
        found, _ = await self.since(0)
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def since(self, revision: int) -> tuple[Sequence[Key], int]:
        """What was made or changed since that revision, it included, as two changes may share one; and the newest."""
        rows = await self._database.execute(select(table).where(table.c.revision >= revision))
        return [_key(row) for row in rows], max((row.revision for row in rows), default=revision)

    async def revoke(self, key_id: str) -> bool:
        """For good. Gives whether there is such a key; one that is revoked stays as it is."""
        change = update(table).where(table.c.id == key_id, table.c.revoked_at.is_(None))
        await self._database.execute(change.values(revoked_at=datetime.now(UTC), revision=_next_revision()))
        return bool(await self._database.execute(select(table.c.id).where(table.c.id == key_id)))

    def digest(self, sent: str) -> tuple[str, str]:
        """(id, what is stored of it); the id is empty for a key of the operator's choosing."""
        if sent.startswith(PREFIX):
            key_id, _, secret = sent.removeprefix(PREFIX).partition("_")
            return key_id, hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        return "", hmac.new(self._pepper, sent.encode(errors="replace"), hashlib.sha256).hexdigest()

    def seal(self, tenant: str, token: str) -> str:
        """Proves that a token which we gave out was this tenant's."""
        return hmac.new(self._pepper, f"{tenant}\0{token}".encode(errors="replace"), hashlib.sha256).hexdigest()[:32]

    async def add(self, used: Used, seen: Mapping[str, datetime]) -> None:
        """Adds what was used, all of it or nothing. seen: when keys were used last, by their ids."""

        async def work(connection: AsyncConnection) -> None:
            for key_id, moment in seen.items():
                await connection.execute(update(table).where(table.c.id == key_id).values(last_used_at=moment))
            for (key_id, day, verb), seconds in used.items():
                row = {"key_id": key_id, "day": day, "verb": verb}
                same = [usage_table.c[name] == value for name, value in row.items()]
                grown = update(usage_table).where(*same).values(seconds=usage_table.c.seconds + seconds)
                if not (await connection.execute(grown)).rowcount:
                    await connection.execute(insert(usage_table).values({**row, "seconds": seconds}))

        if used or seen:
            await self._database.transact(work)

    async def used(self, today: date, key_ids: Iterable[str] | None = None) -> Mapping[str, tuple[float, float]]:
        """Seconds of audio on that day and in its month, by keys' ids; not those of which nothing was used."""
        day, month = today.isoformat(), today.isoformat()[:8]
        seconds = usage_table.c.seconds
        on_the_day = func.sum(case((usage_table.c.day == day, seconds), else_=0.0))
        question = select(usage_table.c.key_id, on_the_day.label("of_day"), func.sum(seconds).label("of_month"))
        question = question.where(usage_table.c.day.startswith(month)).group_by(usage_table.c.key_id)
        if key_ids is not None:
            question = question.where(usage_table.c.key_id.in_(list(key_ids)))
        return {row.key_id: (row.of_day, row.of_month) for row in await self._database.execute(question)}


def same(digest: str, key: Key | None) -> bool:
    """Whether what was sent is this key; takes as long where there is none."""
    return hmac.compare_digest(digest, key.digest if key else _NOTHING) and key is not None


def pepper(data_dir: Path) -> bytes:
    """Of this data folder; made the first time. Blocks. Raises OSError."""
    file = data_dir.absolute() / "keys.pepper"
    if not file.exists():
        draft = file.with_suffix(f".{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as into:
            into.write(secrets.token_bytes(32))
        try:
            os.link(draft, file)  # whole, and only for the first of two that make one at once
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_bytes()


# Private


def _check(wanted: Wanted) -> None:
    token = wanted.token
    if token.startswith(PREFIX):
        raise BadRequest(f"a token of your own must not begin with {PREFIX}")
    if token and not (SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN and all("!" <= one <= "~" for one in token)):
        raise BadRequest(f"a token has {SHORTEST_TOKEN} to {LONGEST_TOKEN} printable ASCII characters, without blanks")
    if not wanted.rights:
        raise BadRequest("a key needs at least one scope")
    for name, text, most in (("tenant", wanted.tenant, 100), ("name", wanted.name, 200), ("appkey", wanted.appkey, 64)):
        if len(text) > most or not text.isprintable():
            raise BadRequest(f"{name}: at most {most} printable characters")
    limits = wanted.limits
    for what, count in (("rate", limits.rate), ("sessions", limits.sessions)):
        if count is not None and not 1 <= count <= MOST_RATE:
            raise BadRequest(f"{what}: 1 to {MOST_RATE}")
    for what, seconds in (("quota of a day", limits.day_seconds), ("quota of a month", limits.month_seconds)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise BadRequest(f"{what}: more than 0 seconds")


def _next_revision() -> Any:
    newest = table.alias()
    return select(func.coalesce(func.max(newest.c.revision), 0) + 1).scalar_subquery()


def _fields(key: Key) -> dict[str, Any]:
    limits = key.limits
    return {
        "id": key.id,
        "digest": key.digest,
        "tenant": key.tenant,
        "name": key.name,
        "rights": ",".join(sorted(key.rights)),
        "rate": limits.rate,
        "sessions": limits.sessions,
        "day_seconds": limits.day_seconds,
        "month_seconds": limits.month_seconds,
        "appkey": key.appkey,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _key(row: Row[Any]) -> Key:
    return Key(
        row.id,
        row.digest,
        row.tenant,
        row.name,
        frozenset(Right(right) for right in row.rights.split(",")),
        Limits(row.rate, row.sessions, row.day_seconds, row.month_seconds),
        row.appkey,
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.last_used_at,
    )
