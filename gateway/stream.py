"""The last step: a session's audio on its way to the client, or to a file."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ClientGone, EngineBroke
from gateway.events import Audio
from gateway.exchange import Exchange
from gateway.wire import wav

_WRITE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Spoken:
    """A finished WAV file, mono s16le."""

    path: Path
    sample_rate: int
    """Hz."""
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


async def wav_answer(http: Exchange, events: AsyncIterator[Audio], *, idle: float) -> None:
    """Streams a WAV of unknown length; its first bytes leave with the engine's first piece.

    idle: longest time, in seconds, that a client may read nothing; it holds a place at the engine meanwhile. The
    engine's silence is its adapter's to end.
    """
    rate = 0
    try:
        async with asyncio.timeout(None) as watch:
            loop = asyncio.get_running_loop()
            async for piece in events:
                watch.reschedule(loop.time() + idle)
                if not rate:
                    rate = piece.sample_rate
                    await http.start(200, b"audio/wav", [(b"x-sample-rate", b"%d" % rate)])
                    await http.write(wav.header(rate) + piece.pcm)
                else:
                    await http.write(_same_rate(piece, rate))
                watch.reschedule(None)
            watch.reschedule(loop.time() + idle)
            await http.end()  # waits, like every write, until what was sent before has gone
    except TimeoutError:
        raise ClientGone(f"the client has read nothing for {idle:g} s") from None


async def wav_file(events: AsyncIterator[Audio], path: Path) -> Spoken:
    """Writes the audio to `path` as it arrives, never holding more than a piece of it; the header comes last."""
    rate = frames = pending = 0
    chunks: list[bytes] = []
    with await asyncio.to_thread(path.open, "wb") as file:
        file.write(bytes(wav.HEADER_BYTES))
        async for piece in events:
            rate = rate or piece.sample_rate
            chunks.append(_same_rate(piece, rate))
            frames += len(piece.pcm) // 2
            if frames > wav.MOST_FRAMES:
                raise EngineBroke("the engine's audio has no end")
            pending += len(piece.pcm)
            if pending >= _WRITE_BYTES:
                await asyncio.to_thread(file.writelines, chunks)
                chunks, pending = [], 0
        await asyncio.to_thread(file.writelines, chunks)
        if not frames:
            raise EngineBroke("the engine gave no audio for this text")
        file.seek(0)
        file.write(wav.header(rate, frames))
        await asyncio.to_thread(file.flush)
    return Spoken(path, rate, frames)


def _same_rate(piece: Audio, rate: int) -> bytes:
    if piece.sample_rate != rate:
        raise EngineBroke(f"the engine changed its sample rate from {rate} to {piece.sample_rate} Hz")
    return piece.pcm
