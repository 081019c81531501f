"""What a user says between START and PAUSE, from Ogg Opus to the rate of the models: the latest minutes of it."""

from collections import deque

import numpy as np
import soxr

from engines.s2s.backends import RATE
from engines.s2s.memory import BYTES
from gateway.wire import opus


class Recording:
    def __init__(self, seconds: float) -> None:
        """seconds: what is longer loses its beginning."""
        self._most = int(seconds * BYTES)
        self._pages = opus.Pages()
        self._unpacker: opus.Unpacker | None = None
        """From the first page on: an idle connection costs little."""
        self.start()

    def __repr__(self) -> str:
        return f"<{'recording' if self.on else 'paused'}, {self._size / BYTES:.1f} s>"

    def start(self) -> None:
        """What was said before is forgotten."""
        self.on = True
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._resampler: soxr.ResampleStream | None = None

    def add(self, data: bytes) -> None:
        """A part of the stream, cut anywhere; it is followed while paused too. Raises opus.NotOpus; what comes after
        that begins with a new page."""
        for page in self._pages.feed(data):
            if self.on or opus.is_header(page):
                self._unpacker = self._unpacker or opus.Unpacker()
                self._keep(self._unpacker.feed(page))

    def finish(self) -> bytes:
        """All of it, mono s16le at RATE. Nothing more is recorded until the next start."""
        if self._resampler is not None:
            self._keep(b"", last=True)
        pcm = b"".join(self._pieces)
        self.start()
        self.on = False
        return pcm[-self._most :]

    # Private

    def _keep(self, pcm: bytes, *, last: bool = False) -> None:
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(opus.RATE, RATE, 1, dtype="int16")
        samples = np.frombuffer(pcm, "<i2")
        piece = np.asarray(self._resampler.resample_chunk(samples, last=last), "<i2").tobytes()
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= self._most:
            self._size -= len(self._pieces.popleft())
