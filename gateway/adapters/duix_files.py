"""The folder that the gateway shares with a Duix engine: what goes in, what comes out, what is left behind.

Rule 1: every name in it that is ours is made of a job's code, which is ours too.
Rule 2: what the engine names as its result is believed only where it is a whole file inside the folder.

All of it blocks.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_CODE = re.compile(r"vg-[0-9a-f]{32}")
_LEFT_SECONDS = 24 * 3600.0
"""Age at which a file of ours is nobody's: an engine that could not be stopped has written it after the discard."""
_INSIDE = "/code/data/"
"""Where upstream's containers have the folder."""
_MOST_BOXES = 10_000


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._temp = self._root / "temp"

    def place(self, code: str, audio: Path, video: Path) -> tuple[str, str]:
        """Copies the inputs, or links them where the file system can; gives their names in the folder temp."""
        self._temp.mkdir(parents=True, exist_ok=True)
        self._tidy()
        names = f"{checked(code)}.wav", f"{code}.mp4"
        for source, name in zip((audio, video), names, strict=True):
            _copy(source, self._temp / name)
        return names

    def made(self, code: str, result: str = "") -> Path | None:
        """The job's video, once it is there and whole. result: what the engine calls it."""
        for path in self._candidates(checked(code), result):
            if path.is_file() and path.resolve().is_relative_to(self._root.resolve()) and whole(path):
                return path
        return None

    def discard(self, code: str) -> None:
        """Everything whose name begins with the job's."""
        for path in self._temp.glob(f"{checked(code)}*"):
            _remove(path)

    # Private

    def _tidy(self) -> None:
        for path in self._temp.glob("vg-*"):
            with suppress(OSError):
                if _CODE.match(path.name) and time.time() - path.lstat().st_mtime > _LEFT_SECONDS:
                    _remove(path)

    def _candidates(self, code: str, result: str) -> Iterator[Path]:
        """Builds of upstream differ in where they put it and what they say of it."""
        yield self._temp / f"{code}-r.mp4"
        if result and "\0" not in result:
            inside = PurePosixPath(result.removeprefix(_INSIDE).lstrip("/"))
            yield self._root / inside
            yield self._temp / inside
            yield self._temp / code / inside.name


def checked(code: str) -> str:
    if not _CODE.fullmatch(code):
        raise ValueError(f"not the code of a job: {code[:64]!r}")
    return code


def whole(path: Path) -> bool:
    """Whether an MP4, or an AVI, is written to its end: its boxes fill the file, and its index is among them."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"RIFF" and len(head) == 12:
            return int.from_bytes(head[4:8], "little") + 8 <= size
        at, kinds = 0, set()
        for _ in range(_MOST_BOXES):
            if at == size:
                return b"moov" in kinds
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return False
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # the length stands behind the kind
                length = int.from_bytes(head[8:16], "big")
            elif length == 0:  # up to the end of the file
                length = size - at
            if length < 8 or at + length > size:
                return False
            kinds.add(head[4:8])
            at += length
    return False


# Private


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    part.chmod(0o644)  # the engine may run as another user
    part.replace(target)
