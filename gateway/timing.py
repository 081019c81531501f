"""When each word of a recognised text was said, and which words make a sentence.

Rule 1: where the engine says when words were said, its times are kept. Its words may be written otherwise than its text
(without punctuation, numbers in words); then letters that both have in common tell, and what is between lies between.
Rule 2: where it does not, the time of the speech is shared out among the letters, each script's by its usual length; no
word reaches over a silence. Such times are estimates, and marked.
Rule 3: times never run backwards, and none lies outside the piece that was recognised.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, groupby, pairwise

from gateway.deltas import Appended, has_blanks
from gateway.events import Transcript, Word
from gateway.passages import Passage
from gateway.pieces import Piece, Span
from gateway.sentences import ABBREVIATIONS

PAUSE = 0.6
"""Seconds between two words that part sentences, as their ends do."""
_MOST_LETTERS = 4000
"""Of texts that are compared letter by letter; a longer one's engine is mad."""
_LETTER, _CHARACTER, _DIGIT = 1.0, 3.5, 4.0
"""How long each takes to say: a letter of an alphabet, a character of a script without blanks, a digit."""
_ENDS = frozenset("。！？；!?…｡।؟۔")


@dataclass(frozen=True, slots=True)
class Said:
    """A word, or a character of a script without blanks, in its place in the text."""

    shown: str
    """With its punctuation, and the blank behind it."""
    word: str
    """Without."""
    start: float
    end: float
    """Seconds from the start of the recording."""
    last: bool
    """Whether a sentence ends with it."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Or what is said of it before a pause."""

    words: tuple[Said, ...]
    measured: bool
    """Whether the times are the engine's."""

    @property
    def text(self) -> str:
        return "".join(word.shown for word in self.words).strip()

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end


def sentences(passage: Passage) -> list[Sentence]:
    """What was said in a passage, sentence by sentence. Some milliseconds of work."""
    found: list[Sentence] = []
    reached = passage.piece.start
    for said in _together(passage.said):
        units = _units(said.text)
        times = _aligned(units, said.words) if said.words else _shared(units, _speech(said, passage.piece))
        words = []
        for unit, (start, end) in zip(units, times, strict=True):
            reached = min(max(start, reached), passage.piece.end)
            until = min(max(end, reached), passage.piece.end)
            words.append(Said(unit.shown, unit.word, round(reached, 3), round(until, 3), unit.last))
        found += [Sentence(tuple(part), bool(said.words)) for part in _parts(words, bool(said.words))]
    return found


# Private


def _together(said: Sequence[Transcript]) -> Sequence[Transcript]:
    """Where it is not known when any of them was said, they share the time."""
    if len(said) < 2 or any(one.words or one.start is not None or one.end is not None for one in said):
        return said
    page = Appended()
    return [Transcript("".join(page.final(one.text.strip()) for one in said), said[0].language)]


_Times = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Unit:
    shown: str
    """With the blank behind it."""
    letters: str

    @property
    def word(self) -> str:
        """From its first to its last letter."""
        places = [at for at, character in enumerate(self.shown) if _is_letter(character)]
        return self.shown[places[0] : places[-1] + 1] if places else self.shown.strip()

    @property
    def last(self) -> bool:
        """Whether a sentence ends with it."""
        marks = self.shown.rpartition(self.word)[2]
        full_stop = "." in marks and self.word.lower() not in ABBREVIATIONS and len(self.word) > 1
        return full_stop or not _ENDS.isdisjoint(marks)

    @property
    def weight(self) -> float:
        return sum(map(_weight, self.letters)) or _LETTER


def _units(text: str) -> list[_Unit]:
    pieces: list[str] = []
    for token in text.split():
        begun = len(pieces)
        for character in token:
            if len(pieces) == begun or _parts_from(pieces[-1], character):
                pieces.append("")
            pieces[-1] += character
        pieces[-1] += " "
    found: list[_Unit] = []
    before = ""
    for piece in pieces:
        letters = "".join(character.lower()[:1] for character in piece if _is_letter(character))
        if letters:
            found.append(_Unit(before + piece, letters))
            before = ""
        elif found:  # marks alone go with the word before them
            found[-1] = _Unit(found[-1].shown + piece, found[-1].letters)
        else:
            before += piece
    return found or [_Unit(before, "")]


def _parts_from(piece: str, character: str) -> bool:
    """Whether a character begins a word of its own behind `piece`, although no blank parts them."""
    letters = [one for one in piece if _is_letter(one)]
    kind = unicodedata.category(character)
    if not letters or kind[0] == "M":
        return False
    return kind in ("Ps", "Pi") or (kind[0] in "LN" and not all(map(has_blanks, (letters[-1], piece[-1], character))))


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _weight(letter: str) -> float:
    return _DIGIT if letter.isdigit() else _LETTER if has_blanks(letter) else _CHARACTER


def _parts(words: Sequence[Said], measured: bool) -> Iterator[Sequence[Said]]:
    """measured: whether pauses between words are real."""
    first = 0
    for at in range(1, len(words)):
        if words[at - 1].last or (measured and words[at].start - words[at - 1].end >= PAUSE):
            yield words[first:at]
            first = at
    yield words[first:]


def _speech(said: Transcript, piece: Piece) -> list[Span]:
    """Where it was spoken."""
    start = piece.start if said.start is None else said.start
    end = piece.end if said.end is None else said.end
    inside = [Span(max(one.start, start), min(one.end, end)) for one in piece.speech]
    return [one for one in inside if one.end > one.start] or [Span(start, end)]


def _shared(units: Sequence[_Unit], speech: Sequence[Span]) -> _Times:
    """The time of the speech, shared out; each word keeps to that stretch in which the middle of it lies."""
    lengths = list(accumulate((one.end - one.start for one in speech), initial=0.0))
    weights = list(accumulate((unit.weight for unit in units), initial=0.0))
    scale = lengths[-1] / weights[-1]
    found = []
    for first, last in pairwise(weights):
        at = max(0, bisect_left(lengths, (first + last) / 2 * scale) - 1)
        begun, offset = speech[at].start, lengths[at]
        start, end = max(first * scale, offset), min(last * scale, lengths[at + 1])
        found.append((begun + start - offset, begun + end - offset))
    return found


def _aligned(units: Sequence[_Unit], words: Sequence[Word]) -> _Times:
    """The times of the engine's words, for the words of its text."""
    text = "".join(unit.letters for unit in units)
    spoken, times = _letter_times(words)
    if not text or not spoken or max(len(text), len(spoken)) > _MOST_LETTERS:
        return _shared(units, [Span(words[0].start, max(words[-1].end, words[0].start))])
    known: dict[int, tuple[float, float]] = {}
    for mine, theirs, size in _common(text, spoken):
        known.update((mine + at, times[theirs + at]) for at in range(size))
    letters = _filled(text, known, words[0].start, words[-1].end)
    ends = list(accumulate(len(unit.letters) for unit in units))
    return [(letters[end - len(unit.letters)][0], letters[end - 1][1]) for unit, end in zip(units, ends, strict=True)]


def _letter_times(words: Sequence[Word]) -> tuple[str, _Times]:
    spoken, times = "", []
    for word in words:
        letters = "".join(character.lower()[:1] for character in word.text if _is_letter(character))
        step = (word.end - word.start) / len(letters) if letters else 0.0
        times += [(word.start + at * step, word.start + (at + 1) * step) for at in range(len(letters))]
        spoken += letters
    return spoken, times


def _common(text: str, spoken: str) -> Iterable[tuple[int, int, int]]:
    """(place in the text, place in what was spoken, length) of what both have, in order."""
    if text == spoken:
        return [(0, 0, len(text))]
    return SequenceMatcher(None, text, spoken, autojunk=False).get_matching_blocks()


def _filled(text: str, known: dict[int, tuple[float, float]], first: float, last: float) -> _Times:
    """Times of every letter: those that are not known share the time between their neighbours."""
    found: _Times = []
    for is_known, run in groupby(range(len(text)), known.__contains__):
        places = list(run)
        if is_known:
            found += [known[at] for at in places]
            continue
        start = found[-1][1] if found else first
        end = max(start, known[places[-1] + 1][0] if places[-1] + 1 in known else last)
        weights = list(accumulate((_weight(text[at]) for at in places), initial=0.0))
        found += [
            (start + one / weights[-1] * (end - start), start + other / weights[-1] * (end - start))
            for one, other in pairwise(weights)
        ]
    return found
