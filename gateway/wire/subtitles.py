"""Subtitles: SubRip (srt) and WebVTT.

Rule 1: a cue has two lines of COLUMNS at most, where a wide character (Chinese, Japanese, Korean) takes two of them,
and stays LONGEST seconds at most. What is longer becomes several, parted behind a mark or at a pause where there is
one.
Rule 2: cues do not overlap, and each ends after it begins.
Rule 3: nothing in a text can end a cue, or be taken for markup.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

COLUMNS = 42
LONGEST = 7.0
"""Seconds."""
SHORTEST = 0.8
"""Seconds that a cue is shown, where the next one leaves it that long."""
VTT_HEAD = "WEBVTT\n\n"
_PAUSE = 0.25
"""Seconds between two words that are a good place to part them."""
_AHEAD = 8 * COLUMNS
"""Columns that are looked at to part them evenly."""
_MARKS = frozenset(",，、;；:：.。!！?？…—")


@dataclass(frozen=True, slots=True)
class Word:
    shown: str
    """With its punctuation, and the blank behind it where its script has them."""
    start: float
    end: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Cue:
    lines: tuple[str, ...]
    start: float
    end: float


def cues(segments: Iterable[Sequence[Word]], until: float) -> list[Cue]:
    """until: seconds at which the next text may begin."""
    parts = [part for words in segments for part in _parts([short for word in words for short in _short(word)])]
    found: list[Cue] = []
    for at, part in enumerate(parts):
        start = max(part[0].start, found[-1].end if found else 0.0)
        latest = parts[at + 1][0].start if at + 1 < len(parts) else until
        end = max(part[-1].end, min(start + SHORTEST, latest), start + 0.001)
        found.append(Cue(tuple(_lines(part) or [_text(part)]), start, end))
    return found


def srt(number: int, cue: Cue) -> str:
    """number: counted from 1."""
    lines = "\n".join(line.replace("-->", "→") for line in cue.lines)
    return f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{lines}\n\n"


def vtt(cue: Cue) -> str:
    lines = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{lines}\n\n"


def width(text: str) -> int:
    """Columns."""
    return sum(_columns(character) for character in text)


# Private


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _time(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"


def _text(words: Sequence[Word]) -> str:
    return "".join(word.shown for word in words).strip()


def _short(word: Word) -> Iterator[Word]:
    """A word that fits into a line, or the parts of it that do."""
    text, size = word.shown.rstrip(), width(word.shown.rstrip())
    if size <= COLUMNS:
        yield word
        return
    start, done, line = word.start, 0, ""
    for character in text:
        if width(line + character) > COLUMNS:
            done += width(line)
            end = word.start + (word.end - word.start) * done / size
            yield Word(line, start, end)
            start, line = end, ""
        line += character
    yield Word(line + word.shown[len(text) :], start, word.end)


def _parts(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Each fit for a cue."""
    while words:
        most = next((count for count in range(_room(words, 2 * COLUMNS + 1), 1, -1) if _fits(words[:count])), 1)
        count = most if most == len(words) else _best(words, most)
        yield words[:count]
        words = words[count:]


def _room(words: Sequence[Word], columns: int) -> int:
    """How many of the words have no more columns than that."""
    count = 0
    while count < len(words) and columns >= 0:
        columns -= width(words[count].shown)
        count += 1
    return count if columns >= 0 else count - 1


def _fits(words: Sequence[Word]) -> bool:
    return words[-1].end - words[0].start <= LONGEST and _lines(words) is not None


def _best(words: Sequence[Word], most: int) -> int:
    """How many of at most `most` words the next cue has: about as many as each of the cues that are needed at least,
    to a mark or a pause near there."""
    size = width(_text(words[: _room(words, _AHEAD)]))
    fair = size / -(-size // max(1, width(_text(words[:most]))))

    def worth(count: int) -> tuple[bool, float]:
        so_far = width(_text(words[:count]))
        marked = words[count - 1].shown.rstrip()[-1:] in _MARKS
        paused = words[count].start - words[count - 1].end >= _PAUSE
        return (marked or paused) and so_far >= fair / 2, -abs(so_far - fair)

    return max(range(1, most + 1), key=worth)


def _lines(words: Sequence[Word]) -> list[str] | None:
    """One line, or two that are about as long; None where more are needed."""
    if width(_text(words)) <= COLUMNS:
        return [_text(words)]
    both = [(_text(words[:at]), _text(words[at:])) for at in range(1, len(words))]
    fit = [(one, other) for one, other in both if max(width(one), width(other)) <= COLUMNS]
    return [*min(fit, key=lambda pair: abs(width(pair[0]) - width(pair[1])))] if fit else None
