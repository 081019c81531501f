"""Loudspeaker, microphone and files. PCM is mono s16le."""

import asyncio
import queue
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr

from gateway.cli import Stopped
from gateway.errors import GatewayError
from gateway.settings import Settings

_TICK = 0.05
_NO_DEVICE = "no sound device can be used ({}); give a FILE to talk with, and -o to write what is said"


def device() -> Any:
    """The library for it. Raises Stopped where there is none, or no sound device."""
    try:
        import sounddevice
    except (ImportError, OSError) as exc:  # OSError: PortAudio is not installed
        raise Stopped(_NO_DEVICE.format(exc)) from None
    return sounddevice


def read(path: str, sample_rate: int) -> bytes:
    """A recording of any format, decoded as the gateway would. Raises Stopped."""
    from gateway.normalise import Decoder

    if not Path(path).is_file():
        raise Stopped(f"{path}: no such file")
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "audio.wav"
        try:
            asyncio.run(Decoder(Settings()).to_wav(Path(path), into, max_seconds=4 * 3600))
        except GatewayError as exc:
            raise Stopped(f"{path}: {exc}") from None
        with wave.open(str(into)) as file:
            rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), rate, sample_rate)
    return bytes(samples.astype("<i2").tobytes())


class Output:
    """Where audio goes: a WAV file, or the loudspeaker."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: wave.Wave_write | None = None
        self._opened: BinaryIO | None = None
        self._stream: Any = None
        self._waiting = bytearray()

    def write(self, pcm: bytes, sample_rate: int) -> None:
        """Blocks for no longer than a file takes. Raises Stopped."""
        if self._path:
            self._into_file(pcm, sample_rate)
        else:
            if self._stream is None:
                self._open(sample_rate)
            self._waiting += pcm

    def drop(self) -> None:
        """What has not sounded yet never will."""
        self._waiting.clear()

    def finish(self) -> None:
        """Blocks until everything has sounded."""
        while self._waiting:
            time.sleep(_TICK)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._opened is not None:
            self._opened.close()
        if self._stream is not None:
            self._stream.stop()
            self._stream.close()

    def _into_file(self, pcm: bytes, sample_rate: int) -> None:
        if self._file is None:
            try:
                self._opened = Path(self._path).open("wb")  # noqa: SIM115  (close does it)
            except OSError as exc:
                raise Stopped(f"{self._path}: {exc.strerror}") from None
            self._file = wave.open(self._opened)  # noqa: SIM115  (close does it)
            self._file.setnchannels(1)
            self._file.setsampwidth(2)
            self._file.setframerate(sample_rate)
        self._file.writeframes(pcm)

    def _open(self, sample_rate: int) -> None:
        sounds = device()

        def fill(out: Any, _frames: int, _time: object, _status: object) -> None:
            ready = bytes(self._waiting[: len(out)])
            del self._waiting[: len(ready)]
            out[:] = ready.ljust(len(out), b"\0")

        try:
            self._stream = sounds.RawOutputStream(sample_rate, channels=1, dtype="int16", callback=fill)
            self._stream.start()
        except sounds.PortAudioError as exc:
            raise Stopped(_NO_DEVICE.format(exc)) from None


@contextmanager
def microphone(sample_rate: int, block: int) -> Iterator[Callable[[], bytes | None]]:
    """Yields a function that gives the next `block` samples, None where there are not so many yet. Raises Stopped."""
    sounds = device()
    heard: queue.Queue[bytes] = queue.Queue(maxsize=250)

    def keep(data: Any, _frames: int, _time: object, _status: object) -> None:
        if not heard.full():  # who is seconds behind has other troubles than a gap
            heard.put_nowait(bytes(data))

    def take() -> bytes | None:
        try:
            return heard.get_nowait()
        except queue.Empty:
            return None

    try:
        with sounds.RawInputStream(sample_rate, block, channels=1, dtype="int16", callback=keep):
            yield take
    except sounds.PortAudioError as exc:
        raise Stopped(_NO_DEVICE.format(exc)) from None
