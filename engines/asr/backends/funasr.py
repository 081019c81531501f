"""FunASR for whole recordings: a VAD finds the utterances, a recogniser hears them in batches, a model punctuates.

Recordings are read as they are heard: four hours take no more memory than five minutes. What the VAD does not take
for speech is never shown to the recogniser, since language models invent words for silence.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from engines.asr.backends import Asked, Check, Heard, Spoken, funasr_vad, itn
from engines.asr.backends.funasr_families import FAMILIES, Clip, Family, joined, later
from engines.asr.backends.funasr_models import Missing, Network, OutOfMemory, family_of, folder_of
from engines.asr.backends.funasr_vad import Span
from engines.asr.recording import RATE, Recording
from engines.settings import Engines

WINDOW = {"cpu": 60 * RATE, "cuda": 300 * RATE}
"""Samples of speech that are held at a time, and punctuated together."""
BATCH = {"cpu": 20 * RATE, "cuda": 120 * RATE}
"""Samples recognised at once, those that fill up short clips among them. Nothing can be stopped in between."""
TOGETHER = 16
"""Short recordings heard at once."""
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """What the VAD took for speech, in one of the recordings."""

    recording: Recording
    span: Span

    def samples(self) -> Clip:
        return funasr_vad.read(self.recording, self.span.first, self.span.length)


class FunAsr:
    def __init__(self, settings: Engines, device: str) -> None:
        """device: "cpu" or "cuda:0"."""
        self._settings = settings
        self.model, self.device = settings.asr_model_id, device
        self.languages: tuple[str, ...] = ()
        self.timestamps = False
        self.together = 1

    def load(self) -> None:
        settings, kind = self._settings, self.device.partition(":")[0]
        folder = folder_of(settings.models_dir, settings.asr_model_id)
        family = family_of(folder)
        if family not in FAMILIES:
            raise Missing(f"{settings.asr_model_id} is a {family}, which is none of {', '.join(FAMILIES)}")
        vad = folder_of(settings.models_dir, settings.vad_model_id)
        _exists(self.device)
        threads = _threads(settings.asr_workers)
        self._vad = Network(vad, "cpu", funasr_vad.OPTIONS, threads)
        self._family: Family = FAMILIES[family](Network(folder, self.device, None, threads), settings.asr_model_id)
        self._punctuation: Network | None = None
        if not self._family.punctuates and settings.punc_model_id.lower() != "none":
            place = folder_of(settings.models_dir, settings.punc_model_id)
            self._punctuation = Network(place, self.device, None, threads)
        self._window, self._batch = WINDOW[kind], BATCH[kind]
        self.languages, self.timestamps = self._family.languages, self._family.timestamps
        self.together = TOGETHER if self._family.batches else 1

    def transcribe(self, recording: Recording, asked: Asked, check: Check) -> Heard:
        texts: list[str] = []
        languages: Counter[str] = Counter()
        words: list[Spoken] = []
        for spans in _windows(funasr_vad.find(recording, self._vad, check), self._window):
            heard = self._heard([Utterance(recording, span) for span in spans], asked, check)
            texts.append(self._written(joined([each.text for each in heard]), asked))
            for each in heard:
                languages[each.language] += len(each.text)
                words += each.words
        return Heard(joined(texts), _most(languages), tuple(words))

    def transcribe_together(self, recordings: Sequence[Recording], asked: Asked, check: Check) -> Iterator[Heard]:
        clips = [[Utterance(each, span) for span in funasr_vad.find(each, self._vad, check)] for each in recordings]
        heard = iter(self._heard([clip for each in clips for clip in each], asked, check))
        for each in clips:
            mine = list(islice(heard, len(each)))
            languages: Counter[str] = Counter()
            for one in mine:
                languages[one.language] += len(one.text)
            text = self._written(joined([one.text for one in mine]), asked)
            yield Heard(text, _most(languages), tuple(word for one in mine for word in one.words))

    # Private

    def _heard(self, clips: Sequence[Utterance], asked: Asked, check: Check) -> list[Heard]:
        """What was said in each clip, in their order."""
        found: dict[Utterance, Heard] = {}
        for batch in _batches(clips, self._batch if self._family.batches else 0):
            self._hear(batch, asked, check, found)
        return [found[clip] for clip in clips]

    def _hear(self, batch: Sequence[Utterance], asked: Asked, check: Check, found: dict[Utterance, Heard]) -> None:
        check()
        try:
            heard = self._family.hear([clip.samples() for clip in batch], asked)
        except OutOfMemory:
            if len(batch) == 1:
                raise
            heard = []
        if heard:
            found.update((clip, later(one, clip.span.first / RATE)) for clip, one in zip(batch, heard, strict=True))
            return
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            self._hear(half, asked, check, found)

    def _written(self, text: str, asked: Asked) -> str:
        if text and self._punctuation is not None:
            # a blank in front, so that it is never taken for the name of a file or an address
            (result,) = self._punctuation.generate([f" {text}"], {})
            text = result["text"].strip()
        return itn.written(text) if asked.itn and not self._family.punctuates and self.languages == ("zh",) else text


def _windows(spans: Iterator[Span], samples: int) -> Iterator[list[Span]]:
    """Spans in order, as many together as there is room for."""
    window: list[Span] = []
    for span in spans:
        if window and sum(each.length for each in window) + span.length > samples:
            yield window
            window = []
        window.append(span)
    if window:
        yield window


def _batches(clips: Sequence[Utterance], samples: int) -> Iterator[list[Utterance]]:
    """Clips of like length together, as many as fit once all are as long as the longest; at least one."""
    batch: list[Utterance] = []
    for clip in sorted(clips, key=lambda clip: (clip.span.length, clip.span.first)):
        if batch and clip.span.length * (len(batch) + 1) > samples:
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def _most(languages: Counter[str]) -> str:
    """The one that most was said in."""
    languages.pop("", None)
    most = languages.most_common(1)
    return most[0][0] if most else ""


def _threads(workers: int) -> int:
    """More than four do not help networks of this size, and the processors are shared with the other workers."""
    return max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // workers))


def _exists(device: str) -> None:
    """FunASR would quietly take the CPU instead. Raises Missing."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Missing(f"{device} cannot be used: torch {torch.__version__} finds no GPU here")
