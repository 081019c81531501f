"""Large files that clients bring and fetch: uploads on their way to an engine, videos on their way back.

They stay in a folder, outside files.py: an engine has to read them there, and a file of gigabytes is moved, not copied.

Rule 1: a name is the only key to a file, so it is ours and cannot be guessed; what looks otherwise is not there.
Rule 2: a file is whole or absent, and gone when its time or the shelf's room is over, the oldest first.
"""

import asyncio
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import NotFound

_NAME = re.compile(r"[A-Za-z0-9_-]{32}\.[a-z0-9]{1,5}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_UNFINISHED_AGE = 3600.0


@dataclass(frozen=True, slots=True)
class Lying:
    """A file that is there."""

    path: Path
    name: str
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""


class Shelf:
    """One folder of them. Its methods leave the event loop."""

    def __init__(self, folder: Path, *, ttl: float, most_bytes: int) -> None:
        """ttl: seconds that a file stays; most_bytes: of all files together, beyond which the oldest go."""
        self._folder, self._ttl, self._most_bytes = folder.absolute(), ttl, most_bytes

    async def put(self, source: Path, suffix: str) -> str:
        """Moves a file here; gives its name. suffix: as a client wrote it, or not; what is none becomes `.bin`."""
        suffix = suffix.lower()
        name = new_name(suffix if _SUFFIX.fullmatch(suffix) else ".bin")
        await self.put_as(source, name)
        return name

    async def put_as(self, source: Path, name: str) -> None:
        """The same by a name that new_name gave; what was there is replaced."""
        await asyncio.to_thread(self._put, source, self._folder / checked(name))

    async def find(self, name: str) -> Lying:
        """name: as the client sent it. Raises NotFound."""
        if _NAME.fullmatch(name) and (found := await asyncio.to_thread(self._find, name)) is not None:
            return found
        raise NotFound("no such file, or it has expired", code="file_not_found")

    async def delete(self, name: str) -> None:
        """Deleting what is not there is no error."""
        await asyncio.to_thread((self._folder / checked(name)).unlink, missing_ok=True)

    async def sweep(self, needed: Collection[str] = ()) -> int:
        """Removes what is too old or too much, but for those whose names are needed; how many."""
        return await asyncio.to_thread(self._sweep, needed)

    # Private, and in a thread

    def _put(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}#part")
        try:
            source.replace(part)
        except OSError:  # another file system
            shutil.copyfile(source, part)
        os.utime(part)  # it begins to age now
        part.replace(target)

    def _find(self, name: str) -> Lying | None:
        path = self._folder / name
        try:
            found = path.stat()
        except OSError:
            return None
        if time.time() - found.st_mtime >= self._ttl:
            return None
        return Lying(path, name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _sweep(self, needed: Collection[str]) -> int:
        lying, removed, total, now = [], 0, 0, time.time()
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            with suppress(OSError):
                found = path.stat()
                if path.name.endswith("#part") and now - found.st_mtime > _UNFINISHED_AGE:
                    path.unlink()
                elif _NAME.fullmatch(path.name):
                    lying.append((found.st_mtime, found.st_size, path))
                    total += found.st_size
        for modified, size, path in sorted(lying):
            if path.name not in needed and (now - modified >= self._ttl or total > self._most_bytes):
                with suppress(OSError):
                    path.unlink()
                    removed, total = removed + 1, total - size
        return removed


def new_name(suffix: str) -> str:
    """One that nobody can guess. suffix: with its dot."""
    return checked(secrets.token_urlsafe(24) + suffix)


def checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a file here: {name[:100]!r}")
    return name
