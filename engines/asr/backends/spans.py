"""Where in a recording somebody speaks: what pocketsphinx's endpointer finds, in pieces fit for a decoder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pocketsphinx

from engines.asr.backends import Check
from engines.asr.recording import RATE, Recording

LONGEST = 12 * RATE
"""Samples. The end of an utterance cannot be interrupted and costs in proportion to its length."""
_PAD = RATE // 5
"""Kept on both sides, for the soft sounds that words begin and end with."""
_PAUSE = RATE * 6 // 10
"""Utterances less apart than this are decoded as one: the language model needs the words before."""
_CUT_WITHIN = 3 * RATE
_STRICT = pocketsphinx.Vad.MEDIUM_STRICT
"""Hears every test sentence, and takes white noise for speech only when it is louder than -30 dBFS."""


@dataclass(frozen=True, slots=True)
class Span:
    first: int
    end: int


def find(recording: Recording, check: Check) -> Iterator[Span]:
    for span in _joined(_heard(recording, check), recording.samples):
        yield from _cut(span, recording)


# Private


def _heard(recording: Recording, check: Check) -> Iterator[Span]:
    ears = pocketsphinx.Endpointer(vad_mode=_STRICT)
    speaking = False
    for frame in _frames(recording, ears.frame_bytes, check):
        ears.process(frame)
        if speaking and not ears.in_speech:
            yield Span(int(ears.speech_start * RATE), int(ears.speech_end * RATE))
        speaking = ears.in_speech
    if speaking:
        yield Span(int(ears.speech_start * RATE), recording.samples)


def _frames(recording: Recording, size: int, check: Check) -> Iterator[bytes]:
    block = 128 * size
    for first in range(0, recording.samples, block // 2):
        check()
        pcm = recording.read(first, block // 2)
        for at in range(0, len(pcm), size):
            yield pcm[at : at + size].ljust(size, b"\0")


def _joined(heard: Iterable[Span], samples: int) -> Iterator[Span]:
    last: Span | None = None
    for span in heard:
        wide = Span(max(0, span.first - _PAD), min(samples, span.end + _PAD))
        if last is None:
            last = wide
        elif wide.first - last.end < _PAUSE and wide.end - last.first <= LONGEST:
            last = Span(last.first, wide.end)
        else:
            yield last
            last = Span(max(wide.first, last.end), wide.end)
    if last is not None:
        yield last


def _cut(span: Span, recording: Recording) -> Iterator[Span]:
    """Nobody pauses for us: a span that is too long is cut where its last seconds are quietest."""
    first = span.first
    while span.end - first > LONGEST:
        late = first + LONGEST - _CUT_WITHIN
        end = late + _quietest(recording.read(late, _CUT_WITHIN))
        yield Span(first, end)
        first = end
    yield Span(first, span.end)


def _quietest(pcm: bytes) -> int:
    """The middle of the quietest 30 ms, in samples."""
    window = RATE * 30 // 1000
    samples = np.frombuffer(pcm, "<i2").astype("f4")
    loudness = np.square(samples[: len(samples) // window * window].reshape(-1, window)).sum(axis=1)
    return int(loudness.argmin()) * window + window // 2
