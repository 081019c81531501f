"""What each family of FunASR's recognisers wants to be asked, and how it answers.

A clip is one utterance: float32 samples at 16 kHz, of at most half a minute.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.asr.backends import Asked, Heard, Spoken
from engines.asr.backends.funasr_models import Network, Result
from gateway.wire import funasr_http as wire

Clip = NDArray[np.float32]

NANO_LANGUAGES = ("zh", "en", "ja")
MLT_LANGUAGES = (
    *("zh", "en", "yue", "ja", "ko", "vi", "id", "th", "ms", "tl", "ar", "hi", "bg", "hr", "cs", "da", "nl", "et"),
    *("fi", "el", "hu", "ga", "lv", "lt", "mt", "pl", "pt", "ro", "sk", "sl", "sv"),
)
_SENSEVOICE_LANGUAGES = ("zh", "en", "yue", "ja", "ko")


class Family(Protocol):
    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def timestamps(self) -> bool: ...
    @property
    def punctuates(self) -> bool:
        """Whether it writes punctuation, and numbers as they are asked for."""
        ...

    @property
    def batches(self) -> bool:
        """Whether it hears several clips at once, rather than one after the other."""
        ...

    def hear(self, clips: Sequence[Clip], asked: Asked) -> list[Heard]:
        """One for each clip; times from the start of the clip. Raises OutOfMemory."""
        ...


class Nano:
    """Fun-ASR-Nano and MLT-Nano: an encoder in front of a language model, which is told in words what to do."""

    punctuates = True

    def __init__(self, network: Network, many: bool) -> None:
        """many: the one of many languages; both are of one class, and of one shape."""
        self._network = network
        self.languages = MLT_LANGUAGES if many else NANO_LANGUAGES
        self.timestamps = _aligns(network.network)
        self.batches = not self.timestamps
        if not self.timestamps:
            network.network.ctc_decoder = None  # it would look for torchaudio, at every clip

    def hear(self, clips: Sequence[Clip], asked: Asked) -> list[Heard]:
        import torch

        options: dict[str, Any] = {"itn": asked.itn, "hotwords": _harmless(asked.hotwords), "batch_size": len(clips)}
        if asked.language:
            options["language"] = wire.name_of(asked.language)
        found = self._network.generate([torch.from_numpy(clip) for clip in clips], options)
        return [
            Heard(result["text"].strip(), "", tuple(_nano_words(result.get("timestamps", ()))))
            for result in _whole(found, len(clips))
        ]


class SenseVoice:
    languages = _SENSEVOICE_LANGUAGES
    timestamps = False
    punctuates = True
    batches = True

    def __init__(self, network: Network) -> None:
        self._network = network

    def hear(self, clips: Sequence[Clip], asked: Asked) -> list[Heard]:
        options = {"language": asked.language or "auto", "use_itn": asked.itn, "batch_size": len(clips)}
        return [_tagged(result["text"]) for result in _whole(self._network.generate(list(clips), options), len(clips))]


class Paraformer:
    """With or without what its checkpoint adds: hotwords (Seaco), times (Seaco, BiCif)."""

    punctuates = False
    batches = True

    def __init__(self, network: Network, language: str) -> None:
        self._network = network
        self.languages = (language,)
        self.timestamps = network.family in ("SeacoParaformer", "BiCifParaformer")

    def hear(self, clips: Sequence[Clip], asked: Asked) -> list[Heard]:
        options: dict[str, Any] = {"batch_size": len(clips)}
        if asked.hotwords and self._network.family == "SeacoParaformer":
            # FunASR would read what ends in .txt from a file, and fetch what starts with http; blanks keep it from that
            options["hotword"] = f" {' '.join(_harmless(asked.hotwords))} "
        return [_timed(result) for result in _whole(self._network.generate(list(clips), options), len(clips))]


FAMILIES: dict[str, Callable[[Network, str], Family]] = {
    "FunASRNano": lambda network, model_id: Nano(network, "mlt" in model_id.lower()),
    "SenseVoiceSmall": lambda network, _: SenseVoice(network),
    **dict.fromkeys(
        ("Paraformer", "BiCifParaformer", "SeacoParaformer"),
        lambda network, model_id: Paraformer(network, "en" if "-en-" in model_id.lower() else "zh"),
    ),
}
"""By FunASR's name for the class; the second argument is the model's id, where the class alone does not tell."""


def joined(texts: Sequence[str]) -> str:
    """The texts one after the other, apart where their script wants it."""
    whole = ""
    for text in texts:
        whole += (" " if whole and text and not (_solid(whole[-1]) or _solid(text[0])) else "") + text
    return whole


def later(heard: Heard, seconds: float) -> Heard:
    """The same, heard in a clip that starts `seconds` later."""
    words = (Spoken(word.text, round(word.start + seconds, 3), round(word.end + seconds, 3)) for word in heard.words)
    return replace(heard, words=tuple(words))


# Private

_TAG = re.compile(r"<\|([^|>]*)\|>")


def _whole(found: list[Result], count: int) -> list[Result]:
    """One result for each clip: where it hears nothing in any, FunASR returns fewer."""
    return found if len(found) == count else [{"text": ""}] * count


def _tagged(text: str) -> Heard:
    """SenseVoice writes <|zh|><|NEUTRAL|><|Speech|><|withitn|> in front of the words."""
    tags = _TAG.findall(text)
    return Heard(_TAG.sub("", text).strip(), next((tag for tag in tags if tag in _SENSEVOICE_LANGUAGES), ""))


def _timed(result: Result) -> Heard:
    """Paraformer writes blanks between all words, or between none; its times are in milliseconds, one for each word."""
    words, times = result["text"].split(), result.get("timestamp") or ()
    if len(words) != len(times):
        words = list("".join(words))
    if len(words) != len(times):
        words = []
    spoken = (Spoken(word, start / 1000, end / 1000) for word, (start, end) in zip(words, times, strict=False))
    return Heard(joined(result["text"].split()), "", tuple(spoken))


def _nano_words(times: Sequence[dict[str, Any]]) -> list[Spoken]:
    return [Spoken(time["token"], float(time["start_time"]), float(time["end_time"])) for time in times]


def _harmless(hotwords: Sequence[str]) -> list[str]:
    """Nano's prompt takes <|startofspeech|>!PATH<|endofspeech|> for a file, or an address, to listen to."""
    words = (" ".join(re.sub(r"<\||\|>", " ", word).split()) for word in hotwords)
    return [word for word in words if word]


def _aligns(network: Any) -> bool:
    """Whether a Nano checkpoint has a head for times, and torchaudio the function that FunASR aligns with."""
    if network.ctc_decoder is None:
        return False
    try:
        import torch
        import torchaudio

        scores = torch.zeros(1, 3, 2).log_softmax(-1)
        torchaudio.functional.forced_align(scores, torch.tensor([[1]]), blank=0)
    except Exception:  # without its compiled part it fails in several ways
        return False
    return True


def _solid(character: str) -> bool:
    """Of a script without spaces between words: Han, kana, and their punctuation."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"
