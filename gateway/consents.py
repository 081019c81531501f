"""Consents: somebody's word that a voice may be made of theirs, with the recording in which they give it.

Rule 1: a consent of another owner behaves exactly as one that does not exist.
Rule 2: the recording is stored before the row is written and removed after the row is gone, so a row never stands
without its recording; what a killed process left between the two is swept later.
"""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, and_, delete, insert, or_, select, update

from gateway import caller
from gateway.database import Database
from gateway.database import voice_consents as table
from gateway.errors import NotFound
from gateway.files import Files
from gateway.tasks import shielded
from gateway.voices import ORPHAN_AGE, checked

MOST = 100
"""In a page."""
_FOLDER = "consents"


@dataclass(frozen=True, slots=True)
class Consent:
    id: str
    tenant: str
    device_id: str
    name: str
    language: str
    """BCP 47."""
    created_at: datetime
    """UTC."""


_SELECT = select(*(table.c[field.name] for field in fields(Consent)))


class Consents:
    """Those of one process; whose they are is asked of gateway/caller.py, too."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database, self._files = database, files

    async def add(self, device_id: str, name: str, language: str, recording: Path) -> Consent:
        """recording: a WAV file. Runs to its end even when the caller is cancelled. Raises BadRequest."""
        device_id, name, _ = checked(device_id, name, "")
        now = datetime.now(UTC)
        consent = Consent(f"cons_{secrets.token_hex(16)}", caller.tenant(), device_id, name, language, now)
        await shielded(self._add(consent, recording))
        return consent

    async def get(self, device_id: str, consent_id: str) -> Consent:
        rows = await self._database.execute(_SELECT.where(*_owned_by(device_id), table.c.id == consent_id))
        if not rows:
            raise NotFound("there is no such consent", code="consent_not_found")
        return _consent(rows[0])

    async def page(self, device_id: str, after: str | None, limit: int) -> tuple[Sequence[Consent], bool]:
        """Up to `limit` of them, the newest first, and whether there are more. after: the id of the last one that the
        caller has. Raises NotFound where it is none."""
        wanted = _SELECT.where(*_owned_by(device_id)).order_by(table.c.created_at.desc(), table.c.id.desc())
        if after is not None:
            last = await self.get(device_id, after)
            older = table.c.created_at < last.created_at
            wanted = wanted.where(or_(older, and_(table.c.created_at == last.created_at, table.c.id < last.id)))
        rows = await self._database.execute(wanted.limit(limit + 1))
        return [_consent(row) for row in rows[:limit]], len(rows) > limit

    async def rename(self, device_id: str, consent_id: str, name: str) -> Consent:
        _, name, _ = checked(device_id, name, "")
        consent = await self.get(device_id, consent_id)
        await self._database.execute(update(table).where(table.c.id == consent.id).values(name=name))
        return replace(consent, name=name)

    async def delete(self, device_id: str, consent_id: str) -> None:
        """Its recording goes with it. Voices that were made with it stay."""
        consent = await self.get(device_id, consent_id)
        await shielded(self._delete(consent))

    async def recording(self, consent: Consent) -> bytes:
        """The WAV file. Raises NotFound."""
        return await self._files.get(_name(consent.id))

    async def sweep(self, older_than: float = ORPHAN_AGE) -> int:
        """Removes the recordings that belong to no consent and have lain for `older_than` seconds; how many."""
        lying = [entry.name for entry in await self._files.entries(_FOLDER) if entry.age >= older_than]
        used = {_name(row.id) for row in await self._database.execute(select(table.c.id))}
        orphans = set(lying) - used
        for name in orphans:
            await self._files.delete(name)
        return len(orphans)

    # Private

    async def _add(self, consent: Consent, recording: Path) -> None:
        await self._files.put(_name(consent.id), recording)
        await self._database.execute(insert(table).values(asdict(consent)))

    async def _delete(self, consent: Consent) -> None:
        await self._database.execute(delete(table).where(table.c.id == consent.id))
        await self._files.delete(_name(consent.id))


def _owned_by(device_id: str) -> tuple[Any, ...]:
    return table.c.tenant == caller.tenant(), table.c.device_id == device_id


def _name(consent_id: str) -> str:
    return f"{_FOLDER}/{consent_id}.wav"


def _consent(row: Row[Any]) -> Consent:
    return Consent(**row._mapping)
