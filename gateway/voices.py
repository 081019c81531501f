"""The voices: who has which, and the recording behind each.

Rule 1: a voice of another device, or of another tenant's, behaves exactly as one that does not exist.
Rule 2: the recording is stored before the row is written and removed after the last row is gone, so a row never
stands without its audio; what a killed process left between the two is swept later.
Rule 3: recordings are named by their content and shared. Whatever writes or removes one holds the lock of its digest.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway import caller
from gateway.database import Database
from gateway.database import voices as table
from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.files import Files
from gateway.recordings import Recordings
from gateway.tasks import KeyedLocks, shielded
from gateway.verbs import Reference

ORPHAN_AGE = 600.0
"""Seconds after which a recording without a voice is nobody's: no `add` takes that long."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RecordingLost(GatewayError):
    """The storage lost what a voice is made of. The same training again repairs it."""

    code = "recording_lost"


@dataclass(frozen=True, slots=True)
class Voice:
    id: str
    """A UUID, version 4."""
    tenant: str
    """Whose key it came with (gateway/caller.py); empty where keys have none, or none is asked."""
    device_id: str
    name: str
    prompt_text: str
    """What is said in the recording; empty where nobody knows."""
    digest: str
    """Names the recording."""
    created_at: datetime
    """UTC."""
    updated_at: datetime
    """UTC."""
    consent: str = ""
    """What it was made with (gateway/consents.py); empty where none was asked."""


_SELECT = select(*(table.c[field.name] for field in fields(Voice)))


class Voices:
    """The voice registry of one process."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database = database
        self._recordings = Recordings(files)
        self._locks = KeyedLocks()

    async def add(
        self,
        device_id: str,
        name: str,
        pcm: bytes,
        sample_rate: int,
        digest: str,
        prompt_text: str = "",
        consent: str = "",
    ) -> Voice:
        """The new voice, or the one that the same call made before.

        pcm: mono s16le; digest: names it. Runs to its end even when the caller is cancelled.
        """
        now = datetime.now(UTC)
        device_id, name, prompt_text = checked(device_id, name, prompt_text)
        consent = _text("consent", consent, 0, 100)
        voice = Voice(
            id=str(uuid.uuid4()),
            tenant=caller.tenant(),
            device_id=device_id,
            name=name,
            prompt_text=prompt_text,
            digest=digest,
            created_at=now,
            updated_at=now,
            consent=consent,
        )
        return await shielded(self._add(voice, pcm, sample_rate))

    async def list(self, device_id: str) -> Sequence[Voice]:
        """Oldest first."""
        _text("device_id", device_id, 1, 200)
        rows = await self._database.execute(
            _SELECT.where(*_owned_by(device_id)).order_by(table.c.created_at, table.c.id)
        )
        return [_voice(row) for row in rows]

    async def get(self, device_id: str, voice_id: str) -> Voice:
        _text("device_id", device_id, 1, 200)
        if _ID.fullmatch(voice_id):
            rows = await self._database.execute(_SELECT.where(*_owned_by(device_id), table.c.id == voice_id))
            if rows:
                return _voice(rows[0])
        raise NotFound("there is no such voice", code="voice_not_found")

    async def named(self, device_id: str, name: str) -> Voice:
        """By its id, or the newest of that name. Raises NotFound."""
        try:
            return await self.get(device_id, name)
        except NotFound:
            if found := [voice for voice in await self.list(device_id) if voice.name == name]:
                return found[-1]
            raise

    async def rename(self, device_id: str, voice_id: str, name: str) -> Voice:
        """A voice may take the name of an equal one. Both stay; `add` then finds the one that had it before."""
        name = _text("name", name.strip(), 1, 200)
        old = await self.get(device_id, voice_id)
        async with self._locks.hold(old.digest):
            await self._rename(replace(old, name=name, updated_at=datetime.now(UTC)))
        return await self.get(device_id, voice_id)  # it may have been deleted meanwhile

    async def delete(self, device_id: str, voice_id: str) -> None:
        """Its recording goes with it, unless another voice uses the same."""
        voice = await self.get(device_id, voice_id)
        await shielded(self._delete(voice))

    async def reference(self, voice: Voice) -> Reference:
        """What an engine needs to speak with this voice. Raises RecordingLost."""
        found = await self._recordings.get(voice.digest)
        if found is None:
            await self.get(voice.device_id, voice.id)  # deleted meanwhile: NotFound says so
            lost = f"the recording of the voice {voice.name!r} is lost; train the voice again"
            raise RecordingLost(lost, quotes=True)
        pcm, sample_rate = found
        return Reference(pcm, sample_rate, voice.digest, voice.prompt_text)

    async def known(self, digest: str) -> bytes | None:
        """The PCM stored for this digest, if any: what was decoded once need not be decoded again."""
        found = await self._recordings.get(digest)
        return found and found[0]

    async def sweep(self, older_than: float = ORPHAN_AGE) -> int:
        """Removes the recordings that no voice uses and that have lain for `older_than` seconds; how many."""
        used = {row.digest for row in await self._database.execute(select(table.c.digest).distinct())}
        candidates = set(await self._recordings.older(older_than)) - used
        return sum([await shielded(self._sweep(digest)) for digest in candidates])

    # Private

    async def _add(self, voice: Voice, pcm: bytes, sample_rate: int) -> Voice:
        async with self._locks.hold(voice.digest):
            if await self._recordings.load(voice.digest) is None:
                await self._recordings.put(voice.digest, pcm, sample_rate)
            key = _repeat_key(voice)
            with suppress(IntegrityError):
                await self._database.execute(insert(table).values(asdict(voice) | {"repeat_key": key}))
                return voice
            same = (*_owned_by(voice.device_id), table.c.repeat_key == key)
            return _voice((await self._database.execute(_SELECT.where(*same)))[0])

    async def _rename(self, voice: Voice) -> None:
        change = update(table).where(table.c.id == voice.id).values(name=voice.name, updated_at=voice.updated_at)
        try:
            await self._database.execute(change.values(repeat_key=_repeat_key(voice)))
        except IntegrityError:  # an equal voice holds the key; the id is one that nobody else can hold
            await self._database.execute(change.values(repeat_key=voice.id))

    async def _delete(self, voice: Voice) -> None:
        async with self._locks.hold(voice.digest):
            await self._database.execute(delete(table).where(table.c.id == voice.id))
            await self._drop_unused(voice.digest)

    async def _sweep(self, digest: str) -> bool:
        async with self._locks.hold(digest):
            return await self._drop_unused(digest)

    async def _drop_unused(self, digest: str) -> bool:
        if await self._database.execute(select(table.c.id).where(table.c.digest == digest).limit(1)):
            return False
        await self._recordings.delete(digest)
        return True


def checked(device_id: str, name: str, prompt_text: str) -> tuple[str, str, str]:
    """A new voice's words, without surrounding blanks. Raises BadRequest; asked before a recording is decoded, too."""
    return (
        _text("device_id", device_id, 1, 200),
        _text("name", name.strip(), 1, 200),
        _text("prompt_text", prompt_text.strip(), 0, 2000),
    )


def _owned_by(device_id: str) -> tuple[ColumnElement[bool], ...]:
    """Of that device, where the one who asks may see it."""
    return table.c.tenant == caller.tenant(), table.c.device_id == device_id


def _repeat_key(voice: Voice) -> str:
    """The same for two calls of `add` that ask for the same voice."""
    return hashlib.sha256(json.dumps([voice.name, voice.digest, voice.prompt_text]).encode()).hexdigest()


def _voice(row: Row[Any]) -> Voice:
    return Voice(**row._mapping)


def _text(field: str, value: str, least: int, most: int) -> str:
    if not least <= len(value) <= most:
        raise BadRequest(f"{field} must have {least} to {most} characters, not {len(value)}", param=field)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRequest(f"{field} holds a character that cannot be stored", param=field)
    return value
