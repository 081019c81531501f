"""Lists of hotwords that clients name by an id: text files of the operator's, a word or phrase on each line."""

import asyncio
import re
from pathlib import Path

from gateway.errors import BadRequest

MOST_BYTES, MOST_WORDS = 64 * 1024, 1000
"""Of a list; what is beyond is passed over."""
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


async def hotwords(folder: Path | None, vocabulary: str) -> tuple[str, ...]:
    """The words of `<folder>/<vocabulary>.txt`. Raises BadRequest, code unknown_vocabulary, where there is none."""
    if folder is not None and _ID.fullmatch(vocabulary):
        try:
            text = await asyncio.to_thread(_read, folder / f"{vocabulary}.txt")
        except (OSError, UnicodeDecodeError):
            pass
        else:
            words = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
            return tuple(words)[:MOST_WORDS]
    raise BadRequest(f"vocabulary_id {vocabulary[:64]!r} names no list of this gateway", code="unknown_vocabulary")


# Private


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MOST_BYTES).decode()
