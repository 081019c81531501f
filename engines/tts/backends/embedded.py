"""Speech from the CPU, with no download: espeak-ng for every language, flite for English where the machine has it.

Nobody's voice is cloned here. Of reference audio this backend carries what it can measure: how high and how fast.
"""

import logging
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from threading import Lock

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from engines.tts import languages, sentences
from engines.tts.backends import Backend
from engines.tts.backends.english_voices import EnglishVoices
from engines.tts.backends.espeak import Espeak
from engines.tts.backends.espeak_voices import EspeakVoices
from engines.tts.backends.manner import PRESETS, Manner, instructed, like
from engines.tts.job import Job, Prompt, Refused
from engines.tts.prosody import Prosody, measure
from gateway.wire import cosyvoice

log = logging.getLogger(__name__)

_REMEMBERED = 64
_BETWEEN_SENTENCES = 0.25
"""Seconds of silence after a sentence of espeak's, which end with their last sound; flite's end with a rest."""
_TAGS = {"zh": "cmn", "en": languages.ENGLISH, "jp": "ja", "kr": "ko"}
_PREAMBLE = "<|endofprompt|>"
_EFFECTS = re.compile(
    r"<\|[^|<>]*\|>|</?(?:strong|laughter)>"
    r"|\[(?:laughter|breath|quick_breath|sigh|cough|noise|mn|lipsmack|hissing|clucking|accent|vocalized-noise)\]"
)


class Embedded:
    device = "cpu"
    parallel = 2
    """One per library: each of them has a lock of its own."""
    sample_rate = 22_050
    speakers = cosyvoice.PRESETS

    def __init__(self, flite: bool = True) -> None:
        """flite: whether to look for it."""
        self.model = "espeak-ng"
        self._flite = flite
        self._english: EnglishVoices | None = None
        self._known: OrderedDict[str, Prosody] = OrderedDict()
        self._known_lock = Lock()

    registered = ()

    def rate(self, job: Job) -> int:
        return self.sample_rate

    def register(self, name: str, job: Job) -> None:
        raise Refused("this engine keeps no voices: send prompt_wav with each request")

    def load(self) -> None:
        espeak = Espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))
        if espeak.sample_rate != self.sample_rate:
            raise RuntimeError(f"espeak-ng speaks at {espeak.sample_rate} Hz, not {self.sample_rate}")
        self._voices, self._languages = EspeakVoices(espeak), espeak.languages
        if self._flite:
            self._find_flite()

    def _find_flite(self) -> None:
        try:
            self._english = EnglishVoices(self.sample_rate)
            self.model = "espeak-ng + flite"
        except OSError as exc:
            log.warning("English is read by espeak-ng, since flite is not here: %s", exc)

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        tag, text = cosyvoice.split_tag(job.text.rpartition(_PREAMBLE)[2].lstrip())
        text = unicodedata.normalize("NFKC", _EFFECTS.sub(" ", text))
        if not sentences.speakable(text):
            raise Refused("there is nothing in tts_text that can be spoken")
        manner = instructed(like(self._prosody(job.prompt)) if job.prompt else PRESETS[job.speaker], job.instruction)
        manner = replace(manner, speed=manner.speed * job.speed)
        if tag:
            manner = replace(manner, language=self._language(tag))
        return self._speech(text, manner, stopped)

    def _language(self, tag: str) -> str:
        language = _TAGS.get(tag, tag)
        if language not in self._languages:
            raise Refused(f"no voice speaks the language of the tag {tag[:40]!r}")
        return language

    def _prosody(self, prompt: Prompt) -> Prosody:
        """What there is to carry of reference audio, measured once for as long as it is remembered."""
        with self._known_lock:
            if prompt.digest in self._known:
                self._known.move_to_end(prompt.digest)
                return self._known[prompt.digest]
        found = measure(prompt.samples, prompt.sample_rate)
        with self._known_lock:
            self._known[prompt.digest] = found
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _speech(self, text: str, manner: Manner, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        for sentence in sentences.split(text):
            samples = self._sentence(sentence, manner, stopped)
            if stopped():
                return
            yield samples.tobytes()

    def _sentence(self, sentence: str, manner: Manner, stopped: Callable[[], bool]) -> NDArray[np.int16]:
        runs = list(languages.runs(sentence, manner.language))
        # English words inside a sentence of another language stay in that sentence's voice.
        if self._english and [language for language, _ in runs] == [languages.ENGLISH]:
            return self._english.say(sentence, manner, stopped)
        rest = np.zeros(int(_BETWEEN_SENTENCES * self.sample_rate), np.int16)
        return np.concatenate([*(self._voices.say(text, lang, manner, stopped) for lang, text in runs), rest])


_: type[Backend] = Embedded
