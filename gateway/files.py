"""The one storage module: named objects in a folder now, in any object store by URL later.

Rule 1: a name is ours and never a client's; it is checked all the same, so that no name leaves the store.
Rule 2: an object is whole or absent. A reader never sees half of one, and keeps what it opened when it is deleted.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import LocalStore, ObjectStore

from gateway.errors import GatewayError, NotFound
from gateway.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

CHUNK_BYTES = 256 * 1024
UNFINISHED_AGE = 600.0
"""Seconds after which the leftover of a write is nobody's: no write takes that long between two bytes."""
SWEEP_DELAY = 60.0

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PUBLIC = re.compile(r"([A-Za-z0-9_-]{32}|[A-Za-z0-9_-]{40})\.([a-z0-9]{3,4})")
"""The longer ones are those of `reserve`."""
_KEPT_LONGER = 24 * 3600.0
"""Seconds: of a reserved file, beyond the time of the job that it belongs to, which deletes it with itself."""
TYPES = {
    "wav": b"audio/wav",
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "pcm": b"audio/pcm",
}
"""What may be downloaded, by the end of its name."""
_UNFINISHED = re.compile(r".+#\d+")


class StorageFailed(GatewayError):
    """The store did not do what was asked: disk full, no permission, no network."""

    code = "storage_failed"


@dataclass(frozen=True, slots=True)
class Stored:
    name: str
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""
    etag: str | None
    """With its quotes, as HTTP wants it; None where the store gives none."""

    @property
    def age(self) -> float:
        """Seconds since it was stored."""
        return time.time() - self.modified.timestamp()


class Files:
    """Named objects. Each operation runs off the event loop and raises NotFound or StorageFailed."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data_dir.absolute() / "store"
        self._store: ObjectStore = LocalStore(self._folder, mkdir=True)

    async def put(self, name: str, content: Path | bytes) -> None:
        """Stores a file or bytes under `name`, at once or not at all; what was there is replaced."""
        with _translated(_checked(name), missing=StorageFailed):
            await obstore.put_async(self._store, name, content)

    async def get(self, name: str) -> bytes:
        with _translated(_checked(name)):
            found = await obstore.get_async(self._store, name)
            return bytes(await found.bytes_async())

    async def stream(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` to before `end` (None: the rest) in pieces of about CHUNK_BYTES, one in memory at a time."""
        with _translated(_checked(name)):
            found = await obstore.get_async(self._store, name, options=_range(start, end))
            async for chunk in found.stream(CHUNK_BYTES):
                yield chunk

    async def info(self, name: str) -> Stored:
        with _translated(_checked(name)):
            return _stored(await obstore.head_async(self._store, name))

    async def delete(self, name: str) -> None:
        """Deleting what is not there is no error."""
        with suppress(NotFound), _translated(_checked(name)):
            await obstore.delete_async(self._store, name)

    async def entries(self, prefix: str) -> list[Stored]:
        """Every whole object in the folder `prefix`, in no order."""
        with _translated(_checked(prefix)):
            return [_stored(meta) async for some in obstore.list(self._store, prefix) for meta in some]

    async def discard_unfinished(self, older_than: float = UNFINISHED_AGE) -> None:
        """Removes what a killed process left of a write. Of use to a folder only: object stores keep no such thing."""
        await asyncio.to_thread(_discard_unfinished, self._folder, older_than)


class Downloads:
    """Public files that expire. The name is the only key to one, so it cannot be guessed; its age is the store's.

    There are two sorts: a published one lives for `file_ttl`, a reserved one as long as the job that made it.
    """

    def __init__(self, files: Files, settings: Settings) -> None:
        self._files = files
        self._ttl = {"files": settings.file_ttl, "kept": settings.jobs_keep + _KEPT_LONGER}
        """By folder."""

    async def publish(self, path: Path) -> str:
        """Stores a WAV file and gives the name to download it by."""
        name = secrets.token_urlsafe(24) + ".wav"
        await self._files.put(_public(name), path)
        return name

    @staticmethod
    def reserve(kind: str) -> str:
        """The name of a file that somebody will make, perhaps more than once; kind: a key of TYPES."""
        assert kind in TYPES
        return f"{secrets.token_urlsafe(30)}.{kind}"

    async def fill(self, name: str, path: Path) -> None:
        """Stores the file of a reserved name; what was there is replaced."""
        await self._files.put(_public(name), path)

    async def discard(self, name: str) -> None:
        await self._files.delete(_public(name))

    async def open(self, name: str) -> Stored:
        """name: as the client sent it. NotFound when there is no such file, or when it has expired."""
        with suppress(NotFound):
            path = _public(name)
            stored = await self._files.info(path)
            if stored.age < self._ttl[path.partition("/")[0]]:
                return stored
        raise NotFound("no such file, or it has expired", code="file_not_found")

    async def exists(self, name: str) -> bool:
        try:
            await self.open(name)
        except NotFound:
            return False
        return True

    def stream(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a file that `open` found; `start` and `end` as for Files.stream."""
        return self._files.stream(_public(name), start, end)

    async def sweep(self) -> int:
        """Deletes the expired files; how many. A little late, so that what was just opened can still be read."""
        expired = [
            stored
            for folder, ttl in self._ttl.items()
            for stored in await self._files.entries(folder)
            if stored.age >= ttl + SWEEP_DELAY
        ]
        for stored in expired:
            await self._files.delete(stored.name)
        await self._files.discard_unfinished()
        return len(expired)


# Private


def _checked(name: str) -> str:
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise ValueError(f"not the name of an object: {name[:200]!r}")
    return name


def _public(name: str) -> str:
    found = _PUBLIC.fullmatch(name)
    if not found or found[2] not in TYPES:
        raise NotFound("no file has such a name", code="file_not_found")
    return f"{'files' if len(found[1]) == 32 else 'kept'}/{name}"


def _range(start: int, end: int | None) -> "GetOptions | None":
    if end is not None:
        return {"range": (start, end)}
    return {"range": {"offset": start}} if start else None


def _stored(meta: "ObjectMeta") -> Stored:
    return Stored(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])


@contextmanager
def _translated(name: str, missing: type[GatewayError] = NotFound) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise missing(f"storage has no {name}") from exc
    except (obstore.exceptions.BaseError, OSError) as exc:
        raise StorageFailed(f"storage failed on {name}") from exc


def _discard_unfinished(root: Path, older_than: float) -> None:
    for path in root.rglob("*#*"):
        with suppress(FileNotFoundError):  # its writer finished meanwhile
            if _UNFINISHED.fullmatch(path.name) and time.time() - path.stat().st_mtime >= older_than:
                path.unlink()
