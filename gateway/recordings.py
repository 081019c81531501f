"""The recordings that voices are made of: WAV objects named by a digest, and the ones used last in memory.

A recording is only trusted whole: one cut short (by a power cut, say) counts as absent, so that it is stored anew.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence

from gateway.errors import NotFound
from gateway.files import Files
from gateway.wire import wav

CACHE_BYTES = 32 * 1024 * 1024
"""About 33 recordings of 30 s."""

_FOLDER = "references"
_DIGEST = re.compile(r"[A-Za-z0-9_-]{8,128}")
_NAME = re.compile(rf"{_FOLDER}/({_DIGEST.pattern})\.wav")
Pcm = tuple[bytes, int]
"""Mono s16le, and its sample rate in Hz."""


class Recordings:
    """Writing and deleting the same digest at once is for the caller to prevent; reading may always happen."""

    def __init__(self, files: Files, cache_bytes: int = CACHE_BYTES) -> None:
        self._files = files
        self._room = cache_bytes
        self._cache: OrderedDict[str, Pcm] = OrderedDict()

    def __repr__(self) -> str:
        return f"<recordings: {len(self._cache)} cached, {self._room} bytes free>"

    async def get(self, digest: str) -> Pcm | None:
        """From memory where possible."""
        if digest in self._cache:
            self._cache.move_to_end(digest)
            return self._cache[digest]
        return await self.load(digest)

    async def load(self, digest: str) -> Pcm | None:
        """From storage, whatever memory says."""
        try:
            stored = await self._files.get(_name(digest))
        except NotFound:
            stored = b""
        self._forget(digest)
        found = _decode(stored)
        if found:
            self._keep(digest, found)
        return found

    async def put(self, digest: str, pcm: bytes, sample_rate: int) -> None:
        if not pcm or len(pcm) % 2:
            raise ValueError(f"{len(pcm)} bytes are not whole samples")
        await self._files.put(_name(digest), wav.header(sample_rate, len(pcm) // 2) + pcm)
        self._forget(digest)
        self._keep(digest, (pcm, sample_rate))

    async def delete(self, digest: str) -> None:
        await self._files.delete(_name(digest))
        self._forget(digest)

    async def older(self, seconds: float) -> Sequence[str]:
        """The digests of what was stored at least `seconds` ago."""
        names = [entry.name for entry in await self._files.entries(_FOLDER) if entry.age >= seconds]
        return [found[1] for found in map(_NAME.fullmatch, names) if found]

    # Private

    def _keep(self, digest: str, found: Pcm) -> None:
        self._cache[digest] = found
        self._room -= len(found[0])
        while self._room < 0:
            self._forget(next(iter(self._cache)))

    def _forget(self, digest: str) -> None:
        if digest in self._cache:
            self._room += len(self._cache.pop(digest)[0])


def _name(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"not a digest: {digest[:200]!r}")
    return f"{_FOLDER}/{digest}.wav"


def _decode(stored: bytes) -> Pcm | None:
    try:
        header = wav.read_header(stored[: wav.HEADER_BYTES], len(stored))
    except wav.NotWav:
        return None
    # Ours is exactly this header and what it promises; anything else has lost bytes.
    whole = stored[: header.start] == wav.header(header.sample_rate, (len(stored) - header.start) // 2)
    return (stored[header.start :], header.sample_rate) if whole and header.frames else None
