"""pocketsphinx with the English model that it brings along: a small recogniser for any CPU.

Each utterance is normalised by its own cepstral mean, as full_utt=True does it, yet decoded in 20 ms chunks, so that
it can be stopped. The mean comes from a second decoder, which looks for one phrase only and costs next to nothing:
a decoder that was ever fed chunks computes no more means of whole utterances.
"""

import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from engines.asr.backends import Asked, Check, Heard, Spoken, vocabulary
from engines.asr.recording import RATE, Recording

_CHUNK = 640
"""Bytes."""
_BEAMS = {"beam": 1e-64, "pbeam": 1e-64, "wbeam": 1e-40}
"""Wider than the defaults (1e-48, 1e-48, 7e-29). On 75 recordings, most of them synthetic, word errors fell from 8.4
to 6.9 %, for 1.7 times the work."""
_FRAMES = 100
"""In a second, of those that the decoder counts in."""
_NO_WORDS = ("<", "[", "+")
"""What its names for silence and noises begin with."""


class Embedded:
    model = f"pocketsphinx {version('pocketsphinx')} en-us"
    device = "cpu"
    languages = ("en",)
    timestamps = True
    together = 1

    def __init__(self) -> None:
        self._taught: tuple[Any, tuple[str, ...]] | None = None
        """A decoder at rest, and the hotwords that it knows."""

    def load(self) -> None:
        import pocketsphinx

        from engines.asr.backends import spans

        self._new, self._find = pocketsphinx.Decoder, spans.find
        self._means = self._new(lm=None, keyphrase="hello", loglevel="FATAL")
        self._taught = self._teach(()), ()

    def transcribe(self, recording: Recording, asked: Asked, check: Check) -> Heard:
        decoder = self._taken(asked.hotwords)
        words: list[Spoken] = []
        for span in self._find(recording, check):
            pcm = recording.read(span.first, span.end - span.first)
            for word, first, end in self._heard(decoder, pcm, check):
                start = span.first / RATE
                text = vocabulary.written([word], asked.hotwords)
                words.append(Spoken(text, round(start + first / _FRAMES, 3), round(start + end / _FRAMES, 3)))
        self._taught = decoder, asked.hotwords
        return Heard(" ".join(word.text for word in words), words=tuple(words))

    def transcribe_together(self, recordings: Sequence[Recording], asked: Asked, check: Check) -> Iterator[Heard]:
        return (self.transcribe(recording, asked, check) for recording in recordings)

    # Private

    def _taken(self, hotwords: tuple[str, ...]) -> Any:
        """A decoder for one recording. Another one may come while `check` is asked, and takes one of its own; one that
        is left in the middle is not used again."""
        taught, self._taught = self._taught, None
        if taught is not None and taught[1] == hotwords:
            return taught[0]
        del taught  # before the new one: each holds 90 MB
        return self._teach(hotwords)

    def _teach(self, hotwords: tuple[str, ...]) -> Any:
        decoder = self._new(loglevel="FATAL", **_BEAMS)
        vocabulary.add(decoder, hotwords)
        return decoder

    def _heard(self, decoder: Any, pcm: bytes, check: Check) -> Iterator[tuple[str, int, int]]:
        """Words, and the frames that each begins with and ends before."""
        check()
        mean = self._mean(pcm)
        if "nan" in mean:  # nothing but zeros
            return
        _forget(decoder)
        decoder.set_cmn(mean)
        decoder.start_utt()
        for at in range(0, len(pcm), _CHUNK):
            check()
            decoder.process_raw(pcm[at : at + _CHUNK])
        decoder.end_utt()
        for part in (decoder.seg() or ()) if decoder.hyp() else ():
            if not part.word.startswith(_NO_WORDS):
                word = part.word.partition("(")[0]  # "read(2)" is a second way to say "read"
                yield word, part.start_frame, part.end_frame + 1

    def _mean(self, pcm: bytes) -> str:
        _forget(self._means)
        self._means.start_utt()
        self._means.process_raw(pcm, no_search=True, full_utt=True)
        self._means.end_utt()
        return str(self._means.get_cmn())


def _forget(decoder: Any) -> None:
    """Noise statistics would carry over from what was decoded before: of 40 sentences two changed with their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "unnecessary", it says
        decoder.start_stream()
