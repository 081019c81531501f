"""A text of any length, spoken into a file, with the times of its sentences."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from gateway.delivery import Packed, Wanted, deliver
from gateway.encoding import Encoders
from gateway.errors import EngineBroke
from gateway.events import Audio
from gateway.narration import SentenceEnd, narrate
from gateway.verbs import Speak, Verb
from gateway.wire import wav

_WRITE_BYTES = 256 * 1024


async def write(
    sentences: AsyncIterator[str],
    speak: Verb[Speak, Audio],
    wish: Speak,
    encoders: Encoders,
    wanted: Wanted,
    path: Path,
) -> list[SentenceEnd]:
    """Writes `path` as the audio arrives, never holding more than a piece of it; a WAV file says its length.

    wish: how the sentences are spoken, whatever its text. Raises what synthesis raises, and EngineBroke without audio.
    """
    is_wav = wanted.format == "wav"
    ends, size, pending = [], 0, 0
    pieces: list[bytes] = []
    async with (
        narrate(sentences, speak, wish) as narrated,
        deliver(narrated, encoders, replace(wanted, format="pcm") if is_wav else wanted) as events,
    ):
        with await asyncio.to_thread(path.open, "wb") as file:
            file.write(bytes(wav.HEADER_BYTES) if is_wav else b"")
            async for event in events:
                if isinstance(event, SentenceEnd):
                    ends.append(event)
                elif isinstance(event, Packed):
                    pieces.append(event.data)
                    size += len(event.data)
                    pending += len(event.data)
                if size > 2 * wav.MOST_FRAMES:
                    raise EngineBroke("the engine's audio has no end")
                if pending >= _WRITE_BYTES:
                    await asyncio.to_thread(file.writelines, pieces)
                    pieces, pending = [], 0
            await asyncio.to_thread(file.writelines, pieces)
            if not size:
                raise EngineBroke("the engine gave no audio for this text")
            if is_wav:
                file.seek(0)
                file.write(wav.header(wanted.sample_rate, size // 2))
            await asyncio.to_thread(file.flush)
    return ends
