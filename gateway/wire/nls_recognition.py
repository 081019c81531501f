"""The recognition half of the NLS protocol: what a Start asks for, and the payloads and bodies that answer.

Rule 1: times are whole milliseconds from the first sample of the task.
Rule 2: what is not known is not in a payload: no confidence of 1, no times of words that nobody measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.wire import nls
from gateway.wire.nls import Status, Unusable

FORMATS = ("pcm", "wav", "opus", "speex", "amr", "mp3", "aac", "m4a", "flac", "ogg")
"""Of uploads."""
SAMPLE_RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)
"""Hz. FunSpeech takes four of them, Alibaba's clients also send the others."""
SILENCE_MS = (200, 6000)
"""Least and most of max_sentence_silence."""
LONGEST_ID = 64
"""Characters of a model's or a vocabulary's id."""

Times = Sequence[tuple[str, float, float]]
"""(word, start, end), in seconds."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may be asked for at the start, and of a transcriber changed while it listens."""

    intermediate: bool = True
    punctuation: bool = True
    figures: bool = True
    fluent: bool = False
    words: bool = False
    silence: float = 0.8
    """Seconds that end a sentence."""
    noise: float = 0.0
    """speech_noise_threshold: −1 takes the most for speech, 1 the least."""


@dataclass(frozen=True, slots=True)
class Start:
    """Of a task."""

    form: str
    sample_rate: int
    """Hz."""
    wishes: Wishes
    model: str = ""
    vocabulary: str = field(default="", repr=False)
    ends_itself: bool = False
    """A recogniser's enable_voice_detection: it is complete when its speaker pauses."""
    start_silence: float = 10.0
    """Seconds after which one that ends itself is complete without a word."""


def read_start(payload: Mapping[str, Any], defaults: Wishes, forms: Sequence[str]) -> Start:
    """Raises Unusable, which names what is wrong.

    forms: what can be heard while it arrives.
    """
    form = (nls.text(payload, "format") or "pcm").strip().lower()
    if form not in forms:
        raise Unusable(f"format {form[:20]} cannot be heard while it arrives: send {', '.join(forms)}")
    rate = nls.number(payload, "sample_rate", 16000)
    if rate not in SAMPLE_RATES:
        raise Unusable(f"sample_rate {rate:g} is none of {', '.join(map(str, SAMPLE_RATES))}")
    detects = nls.flag(payload, "enable_voice_detection", False)
    if detects and payload.get("max_end_silence") is not None:
        payload = {**payload, "max_sentence_silence": payload["max_end_silence"]}
    return Start(
        form,
        int(rate),
        changed(defaults, payload),
        _id(payload, "customization_id"),
        _id(payload, "vocabulary_id"),
        detects,
        _within(payload, "max_start_silence", 10_000, 0, 60_000) / 1000,
    )


def changed(wishes: Wishes, payload: Mapping[str, Any]) -> Wishes:
    """`wishes` with those of a Start or of ControlTranscriber. Raises Unusable."""
    return Wishes(
        nls.flag(payload, "enable_intermediate_result", wishes.intermediate),
        nls.flag(payload, "enable_punctuation_prediction", wishes.punctuation),
        nls.flag(payload, "enable_inverse_text_normalization", wishes.figures),
        nls.flag(payload, "disfluency", wishes.fluent),
        nls.flag(payload, "enable_words", wishes.words),
        _within(payload, "max_sentence_silence", wishes.silence * 1000, *SILENCE_MS) / 1000,
        _within(payload, "speech_noise_threshold", wishes.noise, -1, 1),
    )


def begun(index: int, at: float) -> dict[str, Any]:
    """SentenceBegin. index: from 1; at: seconds, here and below."""
    return {"index": index, "time": _ms(at)}


def partial(index: int, at: float, text: str) -> dict[str, Any]:
    """TranscriptionResultChanged: all of the sentence so far."""
    return {"index": index, "time": _ms(at), "result": text}


def ended(index: int, begin: float, end: float, text: str, words: Times | None) -> dict[str, Any]:
    """SentenceEnd. words: None where they are not wanted or not known."""
    following = {"sentenceId": index + 1, "beginTime": _ms(end), "text": "", "currentTime": _ms(end)}
    payload = {"index": index, "time": _ms(end), "begin_time": _ms(begin), "result": text, "stash_result": following}
    return payload if words is None else payload | {"words": _words(words)}


def recognised(text: str, seconds: float, words: Times | None) -> dict[str, Any]:
    """RecognitionCompleted."""
    payload = {"result": text, "duration": _ms(seconds)}
    return payload if words is None else payload | {"words": _words(words)}


def answer(task_id: str, text: str, model: str, seconds: float, words: Times | None) -> bytes:
    """The body of POST /stream/v1/asr. model: what answered; seconds: of audio."""
    more: dict[str, Any] = {"model": model, "duration": _ms(seconds)}
    if words is not None:
        more["words"] = _words(words)
    return nls.result(task_id, Status.SUCCESS, "SUCCESS", text, more)


# Private


def _words(times: Times) -> list[dict[str, Any]]:
    return [{"text": text, "startTime": _ms(start), "endTime": _ms(end)} for text, start, end in times]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _id(payload: Mapping[str, Any], name: str) -> str:
    found = nls.text(payload, name).strip()
    if len(found) > LONGEST_ID:
        raise Unusable(f"{name} has more than {LONGEST_ID} characters")
    return found


def _within(payload: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    found = nls.number(payload, name, default)
    if not least <= found <= most:
        raise Unusable(f"{name} is not of {least:g} to {most:g}")
    return found
