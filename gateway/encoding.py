"""PCM → MP3, Opus, AAC, FLAC, WAV or PCM of another sample rate, piece by piece, with FFmpeg's libraries.

Rule 1: what is stated about a stream is true of it: a rate that its format cannot carry is resampled to the next one
that it can.
Rule 2: whatever takes work is done in a few threads of its own, never on the event loop and never behind the disk.
Rule 3: of several streams the one is worked on first whose listener would first have nothing left to hear.
Rule 4: nothing is held back but what the codec itself needs, and nothing is lost: `end` gives the rest of the sound.
Rule 5: an encoder is closed by whoever opened it. FFmpeg's memory is freed then, and by nobody else.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import av
import numpy as np

from gateway.resample import Resampler
from gateway.tasks import shielded
from gateway.tempo import Tempo
from gateway.urgency import Threads
from gateway.wire import wav

T = TypeVar("T")

_MPEG = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_FLUSHED = {"flush_packets": "1"}


@dataclass(frozen=True, slots=True)
class Format:
    """What can be asked for, and what it can carry."""

    content_type: bytes
    rates: tuple[int, ...] = ()
    """Hz, ascending; empty where any will do."""
    container: str = ""
    """FFmpeg's names; empty for what needs no codec."""
    codec: str = ""
    options: dict[str, str] = field(default_factory=dict)
    """Of the container."""
    quality: dict[str, str] = field(default_factory=dict)
    """Of the codec."""
    bit_rates: tuple[int, int, int] | None = None
    """Bits per second up to 12 kHz, up to 24 kHz, and above."""

    def rate(self, wanted: int) -> int:
        """The lowest rate in Hz that carries all of `wanted`, or the highest there is."""
        return next((rate for rate in self.rates if rate >= wanted), self.rates[-1]) if self.rates else wanted


FORMATS = {
    "mp3": Format(
        b"audio/mpeg",
        _MPEG,
        "mp3",
        "libmp3lame",
        {"write_xing": "0", "id3v2_version": "0"},
        {"compression_level": "7"},  # half the work of FFmpeg's own choice, and no less true to the sound
        (32000, 64000, 96000),
    ),
    "opus": Format(
        b"audio/ogg",
        (8000, 12000, 16000, 24000, 48000),
        "ogg",
        "libopus",
        {"page_duration": "20000"},
        bit_rates=(24000, 40000, 64000),
    ),
    "aac": Format(
        b"audio/aac",
        (*_MPEG, 64000, 88200, 96000),
        "adts",
        "aac",
        quality={"aac_coder": "fast"},
        bit_rates=(32000, 64000, 96000),
    ),
    "m4a": Format(
        b"audio/mp4",
        (*_MPEG, 64000, 88200, 96000),
        "ipod",
        "aac",
        {"movflags": "empty_moov+default_base_moof+frag_every_frame"},  # as it is made: nothing is written at its end
        {"aac_coder": "fast"},
        bit_rates=(32000, 64000, 96000),
    ),
    "flac": Format(b"audio/flac", (), "flac", "flac", {"metadata_header_padding": "0"}),
    "wav": Format(b"audio/wav"),
    "pcm": Format(b"audio/pcm"),
}
"""By the names that clients give them. Measured, the delay of what comes out of a decoder: mp3 1105 samples, aac and
m4a 1024, which these streams cannot tell it to skip; opus and flac none."""


class Encoders:
    """One per process: the threads that all its encoders share."""

    def __init__(self, threads: int) -> None:
        self._threads = Threads(threads, "encode")
        self.usual_rate: int | None = None
        """Hz, of the source that was opened last: the next one's, most likely."""

    def open(self, name: str, source_rate: int, target_rate: int | None = None, speed: float = 1.0) -> "Encoder":
        """name: a key of FORMATS. source_rate, target_rate: Hz; None is the source's. speed: from 0.5 to 2, how much
        faster it is to sound than it comes, at the same pitch."""
        self.usual_rate = source_rate
        return Encoder(name, source_rate, target_rate, speed, self._threads)

    def close(self) -> None:
        """Its threads end once no work is left."""
        self._threads.close()


class Encoder:
    """One stream; a task at a time may use it. Closed by the end of `async with`, or `close`."""

    def __init__(self, name: str, source_rate: int, target_rate: int | None, speed: float, threads: Threads) -> None:
        form = FORMATS[name]
        self.source_rate, self._speed = source_rate, speed
        self._samples = 0
        self.sample_rate = form.rate(target_rate or source_rate)
        """Hz, what the stream says of itself."""
        self.content_type = form.content_type
        self._head = wav.header(self.sample_rate) if name == "wav" else b""
        same = not form.codec and self.sample_rate == source_rate and speed == 1.0
        self._line = None if same else _Line(form, source_rate, self.sample_rate, speed)
        self._threads = threads
        self._began = time.monotonic()
        self._running: asyncio.Future[Any] | None = None

    @property
    def seconds(self) -> float:
        """How long what was fed so far sounds."""
        return self._samples / self.source_rate / self._speed

    async def __aenter__(self) -> "Encoder":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def feed(self, pcm: bytes) -> bytes:
        """What can be heard once `pcm`, whole samples of mono s16le, is there; it may be empty. Long pieces are worked
        on a second at a time, so that other streams have their turns."""
        head, self._head = self._head, b""
        if self._line is None:
            self._samples += len(pcm) // 2
            return head + pcm
        second = 2 * self.source_rate
        seconds = [pcm[at : at + second] for at in range(0, len(pcm), second)]
        return b"".join([head, *[await self._feed(self._line, one) for one in seconds]])

    async def ready(self) -> None:
        """Opens the codec, 2 ms of work, before there is anything to feed."""
        if self._line is not None:
            self._head += await self._run(partial(self._line.feed, b""))

    async def end(self) -> bytes:
        """The rest of the stream. Nothing may be fed after it."""
        head, self._head = self._head, b""
        rest = b"" if self._line is None else await self._run(self._line.end)
        self._line = None
        return head + rest

    async def close(self) -> None:
        """Frees it, whether its stream has ended or not, as soon as no thread is busy with it."""
        if self._line is not None:
            await shielded(self._close(self._line))
            self._line = None

    # Private

    async def _feed(self, line: "_Line", pcm: bytes) -> bytes:
        made = await self._run(partial(line.feed, pcm))
        self._samples += len(pcm) // 2
        return made

    async def _close(self, line: "_Line") -> None:
        if self._running is not None:
            with suppress(BaseException):
                await self._running
        await self._threads.submit(line.close, self._due)

    async def _run(self, work: Callable[[], bytes]) -> bytes:
        self._running = self._threads.submit(work, self._due)
        made: bytes = await asyncio.shield(self._running)
        self._running = None
        return made

    @property
    def _due(self) -> float:
        """When what was made so far has been heard, if all of it was heard as soon as it could be."""
        return self._began + self.seconds


# Private, and below here on a thread


class _Line:
    """Tempo, sample rate and codec of one stream, one after the other, made when the first sound comes."""

    def __init__(self, form: Format, source: int, target: int, speed: float) -> None:
        self._form, self._source, self._target, self._speed = form, source, target, speed
        self._steps: list[Callable[[bytes, bool], bytes]] = []
        self._coded: _Coded | None = None

    def feed(self, pcm: bytes, last: bool = False) -> bytes:
        if not self._steps:
            self._open()
        for step in self._steps:
            pcm = step(pcm, last)
        return pcm

    def end(self) -> bytes:
        rest = self.feed(b"", last=True)
        self.close()
        return rest

    def close(self) -> None:
        if self._coded is not None:
            self._coded.close()

    def _open(self) -> None:
        if self._speed != 1.0:
            self._steps.append(Tempo(self._source, self._speed).feed)
        self._steps.append(Resampler(self._source, self._target).feed)
        if self._form.codec:
            self._coded = _Coded(self._form, self._target)
            self._steps.append(self._coded.feed)


class _Coded:
    """FFmpeg's encoder and container, written into memory."""

    def __init__(self, form: Format, rate: int) -> None:
        self._form, self._rate = form, rate
        self._made: list[bytes] = []
        self._container: Any = None
        self._stream: Any = None
        self._samples = 0

    def write(self, data: bytes) -> int:
        """For FFmpeg."""
        self._made.append(bytes(data))
        return len(data)

    def feed(self, pcm: bytes, last: bool = False) -> bytes:
        if self._container is None:
            self._open()
        if pcm:
            frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None, :], format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._samples
            self._samples += frame.samples
            self._container.mux(self._stream.encode(frame))
        if last:
            if self._samples:
                self._container.mux(self._stream.encode(None))
            self.close()
        made, self._made = b"".join(self._made), []
        return made

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = self._stream = None

    def _open(self) -> None:
        self._container = av.open(self, "w", format=self._form.container, options=_FLUSHED | self._form.options)
        self._stream = self._container.add_stream(
            self._form.codec, rate=self._rate, layout="mono", options=self._form.quality
        )
        if self._form.bit_rates:
            self._stream.bit_rate = self._form.bit_rates[(self._rate > 12000) + (self._rate > 24000)]
        self._stream.codec_context.open()
