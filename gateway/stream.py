"""The last step: a session's audio on its way to the client, or to a file."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gateway.encoding import Encoder
from gateway.errors import ClientGone, EngineBroke
from gateway.events import Audio
from gateway.exchange import Exchange, Headers
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


class Encoded:
    """A session's audio in another format: `async with Encoded(…) as pieces: async for data in pieces`.

    A piece comes with each of the engine's, and one with the end; it is empty where the codec holds all of it back.
    """

    def __init__(
        self, events: AsyncIterator[Audio], begin: Callable[[int], Encoder], expected: int | None = None
    ) -> None:
        """begin: opens the encoder for the engine's sample rate in Hz. expected: that rate, if it is as it was before;
        then the encoder is ready by the time that the engine has made its first sound."""
        self._events, self._begin, self._expected = events, begin, expected
        self._encoder: Encoder | None = None
        self._heard = self._ended = False

    @property
    def encoder(self) -> Encoder:
        """What is true of the stream; to be asked from the first piece on."""
        assert self._encoder is not None
        return self._encoder

    async def __aenter__(self) -> "Encoded":
        if self._expected is not None:
            self._encoder = self._begin(self._expected)
            try:
                await self._encoder.ready()
            except BaseException:  # such as a client that hangs up now: nobody calls __aexit__
                await self._encoder.close()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._encoder is not None:
            await self._encoder.close()

    def __aiter__(self) -> "Encoded":
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        piece = await anext(self._events, None)
        if piece is not None:
            encoder = await self._for(piece.sample_rate)
            return await encoder.feed(_same_rate(piece, encoder.source_rate))
        self._ended = True
        if self._encoder is None or not self._heard:
            raise EngineBroke("the engine gave no audio for this text")
        return await self._encoder.end()

    # Private

    async def _for(self, rate: int) -> Encoder:
        if self._encoder is not None and not self._heard and self._encoder.source_rate != rate:
            await self._encoder.close()
            self._encoder = None
        self._heard = True
        self._encoder = self._encoder or self._begin(rate)
        return self._encoder


class Reader:
    """The client of an answer, who has to take what is sent: ClientGone leaves the block once it has read nothing for
    `idle` seconds, for it holds a place at the engine meanwhile. The engine's silence is its adapter's to end."""

    def __init__(self, http: Exchange, idle: float) -> None:
        self._http, self._idle = http, idle
        self._watch = asyncio.timeout(None)

    async def __aenter__(self) -> "Reader":
        self._now = asyncio.get_running_loop().time
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._watch.__aexit__(kind, exc, trace)
        except TimeoutError:
            raise ClientGone(f"the client has read nothing for {self._idle:g} s") from None

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        await self._sent(self._http.start(status, content_type, headers))

    async def write(self, data: bytes) -> None:
        await self._sent(self._http.write(data))

    async def end(self) -> None:
        await self._sent(self._http.end())

    async def _sent(self, sending: Awaitable[None]) -> None:
        """Waits until what was sent before has gone, as every write does."""
        self._watch.reschedule(self._now() + self._idle)
        await sending
        self._watch.reschedule(None)


async def answer(http: Exchange, pieces: Encoded, *, idle: float, headers: Headers = ()) -> None:
    """Streams what was encoded; its first bytes leave with the engine's first piece.

    idle: longest time, in seconds, that the client may read nothing.
    """
    async with Reader(http, idle) as reader:
        async for data in pieces:
            if not http.started:
                encoder = pieces.encoder
                rate = (b"x-sample-rate", b"%d" % encoder.sample_rate)
                await reader.start(200, encoder.content_type, [rate, *headers])
            if data:
                await reader.write(data)
        await reader.end()


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
