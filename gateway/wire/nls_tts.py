"""Synthesis in the NLS family: what a client may wish for, and the subtitles it is given.

Rule 1: a wish that is out of its range is moved into it, as FunSpeech does on its sockets; one that has no meaning
(a rate or format that cannot be given) is refused.
Rule 2: speed is 1 + speech_rate / 500, from 0.5 to 2, as FunSpeech has it; pitch is 2 ** (pitch_rate / 500), so that
500 is an octave and 41.67 a semitone; gain is volume / 50.
Rule 3: times are whole milliseconds from the first sample of a task; indexes count characters within a sentence.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.wire import nls

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)
"""Hz."""
RATE = 22050
"""Where FunSpeech's clients name none."""
WRITTEN = {name: name for name in ("pcm", "wav", "mp3", "opus", "aac", "m4a", "flac")} | {"ogg": "opus"}
"""Formats by their names here, and what they are encoded as: Ogg is a file of Opus."""
UNWRITTEN = ("speex", "amr")
"""Formats that FunSpeech names and does not write either."""
LONGEST_VOICE, LONGEST_PROMPT = 200, 500
"""Characters."""
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LETTER = rf"[^\W_{_ALONE}]"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTER}+(?:['’.,]{_LETTER}+)*")
"""A character of a script without spaces, or a word, or a number."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a text is to be spoken."""

    voice: str = ""
    """Empty is the default voice."""
    format: str = "pcm"
    """A key of WRITTEN."""
    sample_rate: int = RATE
    """Hz."""
    volume: float = 50
    speech_rate: float = 0
    pitch_rate: float = 0
    prompt: str = field(default="", repr=False)
    subtitle: bool = False

    @property
    def speed(self) -> float:
        return min(max(1 + self.speech_rate / 500, 0.5), 2.0)

    @property
    def pitch(self) -> float:
        return float(2 ** (self.pitch_rate / 500))

    @property
    def gain(self) -> float:
        return self.volume / 50


def read_manner(payload: Mapping[str, Any], sample_rate: int) -> Manner:
    """Of a StartSynthesis. sample_rate: where it names none. Raises Unusable."""
    rate = nls.number(payload, "sample_rate", sample_rate)
    if rate not in RATES:
        raise nls.Unusable(f"sample_rate is not one of {', '.join(map(str, RATES))}")
    return Manner(
        voice=_short(payload, "voice", LONGEST_VOICE).strip(),
        format=written(nls.text(payload, "format") or "pcm"),
        sample_rate=int(rate),
        volume=_within(payload, "volume", 0, 100, nls.number(payload, "volumn", 50)),
        speech_rate=_within(payload, "speech_rate", -500, 500),
        pitch_rate=_within(payload, "pitch_rate", -500, 500),
        prompt=_short(payload, "prompt", LONGEST_PROMPT),
        subtitle=nls.flag(payload, "enable_subtitle", False),
    )


def written(name: str) -> str:
    """A format by its name, in capitals or not. Raises Unusable."""
    known = name.strip().lower()
    if known in WRITTEN:
        return known
    why = "cannot be written" if known in UNWRITTEN else "is unknown"
    raise nls.Unusable(f"this format {why}; there are {', '.join(WRITTEN)}")


def session(session_id: str, index: int = 1) -> dict[str, Any]:
    return {"session_id": session_id, "index": index}


def subtitles(text: str, begin: float, end: float, *, words: bool) -> dict[str, Any]:
    """begin, end: of the sentence, in seconds. words: whether those of its words follow; their times are made from
    their lengths."""
    first, last = round(begin * 1000), round(end * 1000)
    whole = _subtitle(text, first, last, 0, len(text), sentence=True)
    return {"subtitles": [whole, *(_words(text, first, last) if words else ())]}


# Private


def _short(payload: Mapping[str, Any], name: str, most: int) -> str:
    found = nls.text(payload, name)
    if len(found) > most:
        raise nls.Unusable(f"{name} has more than {most} characters")
    return found


def _within(payload: Mapping[str, Any], name: str, least: float, most: float, default: float = 0) -> float:
    return min(max(nls.number(payload, name, default), least), most)


def _words(text: str, begin: int, end: int) -> Iterator[dict[str, Any]]:
    found = list(_WORD.finditer(text))
    whole = sum(map(_weight, found))
    before = 0
    for word in found:
        after = before + _weight(word)
        first, last = (begin + round((end - begin) * part / whole) for part in (before, after))
        yield _subtitle(word[0], first, last, *word.span(), sentence=False)
        before = after


def _weight(word: re.Match[str]) -> int:
    """A Chinese character takes about as long as two letters."""
    return 2 if word[0][0] >= "\u3040" else len(word[0]) + 1


def _subtitle(text: str, begin: int, end: int, first: int, last: int, *, sentence: bool) -> dict[str, Any]:
    return {
        "text": text,
        "begin_time": begin,
        "end_time": end,
        "begin_index": first,
        "end_index": last,
        "sentence": sentence,
        "phoneme_list": [],
    }
