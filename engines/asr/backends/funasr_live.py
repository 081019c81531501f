"""Live recognition with FunASR: FSMN-VAD finds utterances, streaming Paraformer writes them down as they are said.

One AutoModel of each, shared by the streams of this process by turns; all state of a stream is in caches of its own.
Audio outside utterances is never given to Paraformer: it would cost as much as speech, and now and then say a word.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from engines.asr.backends.funasr_models import Missing, Network, family_of, folder_of
from engines.asr.live.backend import Asked, LiveBackend
from engines.asr.live.events import Began, Delta, Ended, Event
from engines.asr.live.tape import Samples, Tape, at, milliseconds
from engines.asr.live.utterances import Utterances
from engines.settings import Engines

END_SILENCE = 800
"""Milliseconds of silence that end an utterance. Said with every call: what the VAD's own schedule asks is 2 s."""
_VAD_LEAST, _VAD_MOST = at(60), at(600)
"""Samples in one call of the VAD; less than 30 ms raise."""
_STRIDE = 960
"""Samples of one unit of chunk_size."""
_REACH = at(2000)
"""How far back an utterance may begin when the VAD notices it: about half a second, with its own look-back."""
_FRESH, _REPLAY = at(20_000), at(1000)
"""In silence the VAD keeps all audio since the last utterance, and copies it with each call. So after this long it
starts afresh, a little earlier than now, so that a word that just begins is not lost."""
_STREAMING, _PUNCTUATION = "ParaformerStreaming", "CTTransformerStreaming"


class FunAsrLive:
    def __init__(self, settings: Engines, device: str) -> None:
        """device: of the streaming recogniser; the VAD is faster on the CPU, wherever that is."""
        self.model, self.device, self._settings = settings.asr_realtime_model_id, device, settings
        self._streams: dict[int, _Stream] = {}

    def load(self) -> None:
        settings = self._settings
        self._vad = Network(folder_of(settings.models_dir, settings.vad_model_id), "cpu")
        self._paraformer = Network(folder_of(settings.models_dir, settings.asr_realtime_model_id), self.device)
        if self._paraformer.family != _STREAMING:
            raise Missing(
                f"ASR_REALTIME_MODEL_ID: {settings.asr_realtime_model_id} is a {self._paraformer.family}, which "
                f"recognises no live audio; take a {_STREAMING}"
            )
        self._punctuation = self._realtime_punctuation() if settings.asr_enable_realtime_punc else None

    def open(self, number: int, asked: Asked) -> None:
        self._streams[number] = _Stream(self, asked)

    def feed(self, number: int, samples: Samples, last: bool) -> list[Event]:
        return list(self._streams[number].feed(samples, last))

    def close(self, number: int) -> None:
        self._streams.pop(number, None)

    # For the streams

    def voices(self, cache: dict[str, Any], samples: Samples, last: bool) -> list[list[int]]:
        """The VAD's value for the next samples."""
        # With one millisecond more than there is, the last block is one block, and not a whole and an empty one.
        options = {"chunk_size": milliseconds(len(samples)) + last, "max_end_silence_time": END_SILENCE}
        found = self._vad.generate(samples, {"cache": cache, "is_final": last, **options})
        value: list[list[int]] = found[0]["value"] if found else []
        return value

    def words(self, cache: dict[str, Any], samples: Samples, last: bool, asked: Asked) -> str:
        """What the streaming recogniser adds."""
        options = {
            "chunk_size": list(asked.chunk),
            "encoder_chunk_look_back": asked.encoder_look_back,
            "decoder_chunk_look_back": asked.decoder_look_back,
        }
        found = self._paraformer.generate(samples, {"cache": cache, "is_final": last, **options})
        return str(found[0]["text"]) if found else ""

    def marks(self, cache: dict[str, Any], text: str) -> str:
        """The same words, and the marks before them that they make certain."""
        if self._punctuation is None or not text.strip():
            return text
        # a blank in front, so that it is never taken for the name of a file or an address
        found = self._punctuation.generate(f" {text}", {"cache": cache})
        return str(found[0]["text"]) if found else text

    # Private

    def _realtime_punctuation(self) -> Network:
        model = self._settings.punc_realtime_model_id
        folder = folder_of(self._settings.models_dir, model)
        if (family := family_of(folder)) != _PUNCTUATION:
            raise Missing(
                f"PUNC_REALTIME_MODEL_ID: {model} is a {family}, which cannot punctuate partial results; "
                f"take a {_PUNCTUATION}, or set ASR_ENABLE_REALTIME_PUNC=false"
            )
        return Network(folder, "cpu")


class _Stream:
    def __init__(self, models: FunAsrLive, asked: Asked) -> None:
        self._models, self._asked = models, asked
        self._tape, self._utterances = Tape(), Utterances()
        self._seen = self._began = 0
        """Places: what the VAD has been given up to, and since when."""
        self._vad: dict[str, Any] = {}
        self._begin(0)

    def feed(self, samples: Samples, last: bool) -> Iterator[Event]:
        self._tape.add(samples)
        while self._tape.end - self._seen >= (_VAD_LEAST if not last else _VAD_MOST):
            size = min(self._tape.end - self._seen, _VAD_MOST) // _VAD_LEAST * _VAD_LEAST
            yield from self._step(self._tape.cut(self._seen, self._seen + size), last=False)
        if last:
            rest = self._tape.cut(self._seen, self._tape.end)
            yield from self._step(np.pad(rest, (0, max(0, _VAD_LEAST - len(rest)))), last=True)

    # Private

    def _step(self, block: Samples, last: bool) -> Iterator[Event]:
        offset = milliseconds(self._began)
        value = [
            [time if time < 0 else time + offset for time in pair]
            for pair in self._models.voices(self._vad, block, last)
        ]
        self._seen = min(self._seen + len(block), self._tape.end)
        now = milliseconds(self._seen)
        for event in self._utterances.heard(value, now):
            yield from self._follow(event)
        if last:
            for event in self._utterances.finish(now):
                yield from self._follow(event)
        elif self._utterances.start is not None:
            yield from self._written(self._seen)
        else:
            self._rest()

    def _follow(self, event: Began | Ended) -> Iterator[Event]:
        if isinstance(event, Began):
            self._begin(at(event.start))
        else:
            yield from self._written(at(event.end))
            if self._asked.deltas and self._asked.last_words:
                yield from self._delta(self._tape.cut(self._heard, at(event.end)), last=True)
        yield event

    def _begin(self, place: int) -> None:
        self._heard, self._before = place, ""
        """What of the utterance the recogniser has been given, and what it said last."""
        self._recogniser: dict[str, Any] = {}
        self._marker: dict[str, Any] = {}

    def _written(self, until: int) -> Iterator[Delta]:
        """Gives the recogniser whole chunks."""
        size = self._asked.chunk[1] * _STRIDE
        while self._asked.deltas and until - self._heard >= size:
            yield from self._delta(self._tape.cut(self._heard, self._heard + size), last=False)
            self._heard += size
        self._tape.forget(min(self._heard, self._seen - _REACH))

    def _delta(self, samples: Samples, last: bool) -> Iterator[Delta]:
        text = self._models.words(self._recogniser, samples, last, self._asked)
        if text:
            text = self._models.marks(self._marker, text)
            blank = " " if _needs_blank(self._before, text) else ""
            self._before = text
            yield Delta(blank + text)

    def _rest(self) -> None:
        """Nobody speaks."""
        if self._seen - max(self._began, at(self._utterances.end)) > _FRESH:
            self._vad, self._began = {}, self._seen - _REPLAY
            self._seen = self._began
        self._tape.forget(self._seen - _REACH)


def _needs_blank(before: str, text: str) -> bool:
    """Whether two deltas would run two words together: scripts with blanks write them between tokens, and the
    recogniser knows nothing of the tokens before."""
    return all(part.isascii() and part.isalnum() for part in (before[-1:], text[:1]))


_: type[LiveBackend] = FunAsrLive
