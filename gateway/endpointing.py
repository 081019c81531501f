"""Where somebody begins to speak, and where they have ended: silero-vad's network on onnxruntime.

Rule 1: the same audio gives the same answers, whatever the pieces it comes in.
Rule 2: the network runs in threads of its own, one hop for each feed; the event loop never waits for it.
Rule 3: one network for the whole process. A stream is a few kilobytes, and nothing has to be closed.
"""

import asyncio
import importlib.util
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from gateway.settings import Settings

RATE = 16_000
"""Hz; what the network hears."""
FRAME, CONTEXT = 512, 64
"""Samples that it judges at a time, and those before them that it wants to see again."""
SHORTEST = 3
"""Frames of speech, 96 ms, that begin an utterance; what is shorter is a click."""
HYSTERESIS = 0.15
"""Speech goes on until its probability is that much below the threshold."""
_THREADS = 2
"""A frame takes 0.12 ms: two of them hear some five hundred streams."""

_Samples = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Started:
    at: float
    """Seconds from the first sample, with the padding before the speech."""


@dataclass(frozen=True, slots=True)
class Stopped:
    at: float
    """Seconds from the first sample: where the speech ended, not when that was certain."""


class Endpointer:
    """One stream's. Started and Stopped take turns, and their times only grow."""

    def __init__(
        self,
        settings: Settings,
        sample_rate: int,
        *,
        silence: float | None = None,
        threshold: float | None = None,
        padding: float | None = None,
    ) -> None:
        """sample_rate: Hz of what will be fed. The others in place of the settings' endpoint_*: seconds of silence
        that end an utterance, probability of speech, seconds kept before it."""
        self._segments = _Segments(
            settings.endpoint_threshold if threshold is None else threshold,
            settings.endpoint_silence if silence is None else silence,
            settings.endpoint_padding if padding is None else padding,
        )
        self._ears = _Ears(sample_rate)
        self._pending = bytearray()
        self._found: list[Started | Stopped] = []
        self._lock = threading.Lock()
        """Of all that the threads change: a feed that was cancelled may still run in one."""

    def __repr__(self) -> str:
        return f"<{'speech' if self.speaking else 'silence'} after {self._segments.now:.1f} s>"

    @property
    def speaking(self) -> bool:
        return self._segments.speaking

    def change(self, *, silence: float, threshold: float) -> None:
        """From now on; as at the start."""
        with self._lock:
            self._segments.change(threshold, silence)

    async def feed(self, pcm: bytes) -> list[Started | Stopped]:
        """What these bytes, mono s16le, make certain. A cancelled feed is heard all the same."""
        self._pending += pcm
        if len(self._pending) >= self._ears.block:
            await asyncio.get_running_loop().run_in_executor(_threads(), self._hear)
        found, self._found = self._found, []
        return found

    def hear(self, pcm: bytes) -> list[Started | Stopped]:
        """`feed` in the caller's own thread, for recordings: what is live has the threads here to itself."""
        self._pending += pcm
        self._hear()
        found, self._found = self._found, []
        return found

    def end(self) -> list[Stopped]:
        """The input is over, or a new one begins: ends the utterance that runs, where there is one."""
        with self._lock:
            return self._segments.end(self._ears.seconds)

    # Private

    def _hear(self) -> None:
        """In a thread."""
        with self._lock:
            whole = len(self._pending) // self._ears.block * self._ears.block
            pcm = bytes(self._pending[:whole])
            del self._pending[:whole]
            for probability in self._ears.hear(pcm):
                self._found += self._segments.heard(probability)


class _Ears:
    """PCM in, the probability of speech in each frame out."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._soxr = None if sample_rate == RATE else soxr.ResampleStream(sample_rate, RATE, 1, dtype="float32")
        self.block = 2 * -(-FRAME * sample_rate // RATE)
        """Bytes taken at a time: pieces of one size make what the resampler gives independent of the caller's."""
        self._fed = 0
        self._rest: _Samples = np.zeros(0, np.float32)
        self._context: _Samples = np.zeros(CONTEXT, np.float32)
        self._state = np.zeros((2, 1, 128), np.float32)

    @property
    def seconds(self) -> float:
        """Length of what was heard."""
        return self._fed / 2 / self._rate

    def hear(self, pcm: bytes) -> list[float]:
        """pcm: whole blocks."""
        self._fed += len(pcm)
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        if self._soxr is not None:
            size = self.block // 2
            blocks = [samples[at : at + size] for at in range(0, len(samples), size)]
            samples = np.concatenate([self._soxr.resample_chunk(block) for block in blocks])
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME * FRAME
        self._rest = samples[whole:].copy()
        return [self._judge(samples[at : at + FRAME]) for at in range(0, whole, FRAME)]

    def _judge(self, frame: _Samples) -> float:
        seen = np.concatenate([self._context, frame])
        given = {"input": seen[np.newaxis], "state": self._state, "sr": np.array(RATE, np.int64)}
        probability, self._state = _network().run(None, given)
        self._context = seen[-CONTEXT:]
        return float(probability[0, 0])


class _Segments:
    """Probabilities in, beginnings and ends out."""

    def __init__(self, threshold: float, silence: float, padding: float) -> None:
        self.change(threshold, silence)
        self._padding = padding
        self.speaking = False
        self._frames = 0
        self._voiced = 0
        """Frames of speech since it may have begun."""
        self._edge: int | None = None
        """In silence, the frame with which speech may have begun; in speech, the one with which it may have ended."""
        self._stopped = 0.0

    def change(self, threshold: float, silence: float) -> None:
        self._begins, self._ends = threshold, threshold - min(HYSTERESIS, threshold / 2)
        self._silence = silence

    @property
    def now(self) -> float:
        return self._frames * FRAME / RATE

    def heard(self, probability: float) -> list[Started | Stopped]:
        """Takes the next frame."""
        frame, self._frames = self._frames, self._frames + 1
        return self._while_speaking(probability, frame) if self.speaking else self._while_silent(probability, frame)

    def end(self, latest: float) -> list[Stopped]:
        """latest: seconds of audio that there are."""
        stopped = latest if self._edge is None else self._edge * FRAME / RATE
        was_speaking, self.speaking, self._edge = self.speaking, False, None
        if not was_speaking:
            return []
        self._stopped = max(stopped, self._stopped)
        return [Stopped(self._stopped)]

    def _while_silent(self, probability: float, frame: int) -> list[Started | Stopped]:
        if probability >= self._begins:
            if self._edge is None:
                self._edge, self._voiced = frame, 0
            self._voiced += 1
        elif probability < self._ends:
            self._edge = None
        if self._edge is None or self._voiced < SHORTEST:
            return []
        begun = self._edge * FRAME / RATE
        self.speaking, self._edge = True, None
        return [Started(max(self._stopped, begun - self._padding))]

    def _while_speaking(self, probability: float, frame: int) -> list[Started | Stopped]:
        if probability >= self._begins:
            self._edge = None
        elif probability < self._ends:
            self._edge = frame if self._edge is None else self._edge
            if (self._frames - self._edge) * FRAME / RATE >= self._silence:
                return [*self.end(self.now)]
        return []


_loading = threading.Lock()


def _network() -> Any:
    with _loading:
        return _loaded()


@cache
def _loaded() -> Any:
    os.putenv("ORT_DISABLE_TELEMETRY", "1")  # else it tells its maker about every process, and keeps an id on disk
    import onnxruntime  # slow

    found = importlib.util.find_spec("silero_vad")  # the package itself would import torch
    assert found is not None and found.origin is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = Path(found.origin).with_name("data") / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "endpointing")
