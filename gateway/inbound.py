"""Live audio as clients send it (PCM, WAV, Opus) → PCM with its honest sample rate, piece by piece.

Rule 1: what the bytes say of themselves goes before what their sender says of them: a WAV header, an Ogg page.
Rule 2: a client may cut its stream anywhere, in the middle of a header or of a sample. Opus packets that have no
container are whole in each message: nothing else tells where they end.
"""

import asyncio
from typing import Protocol

import numpy as np

from gateway.errors import BadRequest
from gateway.events import Audio
from gateway.wire import opus, opus_packets, wav_stream
from gateway.wire.opus import NotOpus
from gateway.wire.wav import NotWav

FORMATS = ("pcm", "wav", "opus", "opu")
"""What can be heard while it arrives."""
_AT_ONCE = 300
"""Bytes of Opus, a packet or three, that are decoded on the event loop, 0.1 ms each."""


class Inbound(Protocol):
    async def feed(self, data: bytes) -> Audio | None:
        """What a message holds; None where it completes no sample. Raises BadRequest, code audio_undecodable; the
        stream is over then."""
        ...


def inbound(form: str, sample_rate: int) -> Inbound:
    """form: one of FORMATS; sample_rate: Hz, of PCM without a header."""
    return _Samples(sample_rate) if form in ("pcm", "wav") else _Opus()


# Private


class _Samples:
    """s16le, mono or as a WAV header says."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._head: bytearray | None = bytearray()
        """Until it is known whether there is a header."""
        self._wav: wav_stream.WavStream | None = None
        self._half = b""

    async def feed(self, data: bytes) -> Audio | None:
        if self._head is not None:
            self._head += data
            if wav_stream.may_be(bytes(self._head)):
                if len(self._head) < 12:
                    return None
                self._wav = wav_stream.WavStream()
            data, self._head = bytes(self._head), None
        pcm = self._plain(data) if self._wav is None else self._from_wav(self._wav, data)
        return Audio(pcm, self._rate) if pcm else None

    def _plain(self, data: bytes) -> bytes:
        data = self._half + data
        whole = len(data) & ~1
        self._half = data[whole:]
        return data[:whole]

    def _from_wav(self, file: wav_stream.WavStream, data: bytes) -> bytes:
        try:
            frames = file.feed(data)
        except NotWav as exc:
            raise _undecodable(f"the WAV cannot be used: {exc}") from None
        self._rate = file.sample_rate or self._rate
        if file.channels < 2:
            return frames
        mixed: bytes = np.frombuffer(frames, "<i2").reshape(-1, 2).mean(axis=1).round().astype("<i2").tobytes()
        return mixed


class _Opus:
    """In Ogg pages, cut anywhere, or in bare packets."""

    def __init__(self) -> None:
        self._unpacker = opus.Unpacker()
        self._pages = opus.Pages()
        self._head: bytearray | None = bytearray()
        self._wrapped: opus_packets.Wrapped | None = None

    async def feed(self, data: bytes) -> Audio | None:
        try:
            if len(data) <= _AT_ONCE:
                pcm = self._decode(data)
            else:
                pcm = await asyncio.to_thread(self._decode, data)
        except NotOpus as exc:
            raise _undecodable(f"the audio cannot be decoded: {exc}") from None
        return Audio(pcm, opus.RATE) if pcm else None

    def _decode(self, data: bytes) -> bytes:
        if self._head is not None:
            self._head += data
            if b"OggS".startswith(bytes(self._head[:4])) and len(self._head) < 4:
                return b""
            data, self._head = bytes(self._head), None
            if not data.startswith(b"OggS"):
                self._wrapped = opus_packets.Wrapped()
                for page in self._wrapped.begin():
                    self._unpacker.feed(page)
        if self._wrapped is None:
            pages = self._pages.feed(data)
        else:
            pages = [self._wrapped.page(packet) for packet in opus_packets.packets(data)]
        return b"".join(map(self._unpacker.feed, pages))


def _undecodable(text: str) -> BadRequest:
    return BadRequest(text, code="audio_undecodable")
