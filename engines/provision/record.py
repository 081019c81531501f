"""What a model's folder says of itself: `.voxgate.json`, written last, so that it is the mark of a whole model.

{"version": 1, "hub", "id", "revision", "files": {path: {"size", "sha256", "mtime_ns"}}}
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.provision.download import digest_of
from engines.provision.lock import Pin

NAME = ".voxgate.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A file as it was when it was found right."""

    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Record:
    hub: str
    id: str
    revision: str
    files: Mapping[str, Kept]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(kept.size for kept in self.files.values())


def read(folder: Path) -> Record | None:
    """None where there is none that can be believed: then nothing in the folder can."""
    try:
        found = json.loads((folder / NAME).read_bytes())
        if found["version"] != _VERSION:
            return None
        files = {name: Kept(**kept) for name, kept in found["files"].items()}
        return Record(found["hub"], found["id"], found["revision"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(folder: Path, record: Record) -> None:
    files = {
        name: {"size": kept.size, "sha256": kept.sha256, "mtime_ns": kept.mtime_ns}
        for name, kept in sorted(record.files.items())
    }
    body = {"version": _VERSION, "hub": record.hub, "id": record.id, "revision": record.revision, "files": files}
    staged = folder / f"{NAME}.{secrets.token_hex(4)}.part"
    with staged.open("w") as file:
        json.dump(body, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(folder / NAME)


def remember(path: Path, sha256: str) -> Kept:
    """Of a file that has just been found right."""
    found = path.stat()
    return Kept(found.st_size, sha256, found.st_mtime_ns)


def holds(path: Path, kept: Kept, *, thorough: bool, at: Callable[[int], None]) -> bool:
    """Whether the file is as it was. It is read through when its time has changed, and when `thorough`."""
    try:
        found = path.stat()
        if found.st_size != kept.size:
            return False
        if found.st_mtime_ns == kept.mtime_ns and not thorough:
            return True
        return digest_of(path, Pin(), at).sha256 == kept.sha256
    except OSError:
        return False
