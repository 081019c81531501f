"""A whole recording on disk, played: piece after piece, for those who hear audio as it comes."""

import asyncio
from collections.abc import AsyncGenerator

from gateway.verbs import Recording
from gateway.wire import wav

_HEAD_BYTES = 4096


async def played(recording: Recording, size: int) -> AsyncGenerator[bytes]:
    """Mono s16le at its rate, `size` bytes at a time."""
    with await asyncio.to_thread(recording.path.open, "rb") as file:
        head = wav.read_header(await asyncio.to_thread(file.read, _HEAD_BYTES), recording.path.stat().st_size)
        await asyncio.to_thread(file.seek, head.start)
        while pcm := await asyncio.to_thread(file.read, size):
            yield pcm
