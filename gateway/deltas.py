"""Recognised text as pieces that are only ever appended, for clients that cannot take anything back.

A partial that goes on from what was appended is appended at once; one that does not is held back. A final is what the
whole should have been. What is appended then is, in this order:

1. what follows what was appended, where the final begins with it: all together is the final;
2. where it differs only in case, blanks and punctuation ("today is" → "Today, is it?"): what follows the same letters;
3. where words differ, what follows that beginning of the final which is most like what was appended, word by word.

Utterances are parted by a blank where the script has them.
"""

import unicodedata
from dataclasses import dataclass

NEAREST = 100
"""Words (characters of scripts without blanks) of an utterance's end that rule 3 looks at."""


class Appended:
    """What one client was given, as its own page shows it."""

    def __init__(self) -> None:
        self._shown = ""
        """Of this utterance."""
        self._held = ""
        """The latest partial, where it could not be appended."""
        self._last = ""
        """The last character of the utterances before."""

    def partial(self, text: str) -> str:
        """What to append for it; often nothing."""
        rest = _following(self._shown, text)
        self._held = text if rest is None else ""
        return self._append(rest or "")

    def final(self, text: str) -> str:
        """What to append; the next text is another utterance's."""
        rest = _following(self._shown, text)
        added = self._append(_nearest(self._shown, text) if rest is None else rest)
        self._last = (self._shown or self._last)[-1:]
        self._shown = self._held = ""
        return added

    def end(self) -> str:
        """What to append where no final will come for the utterance that runs."""
        return self.final(self._held or self._shown)

    # Private

    def _append(self, text: str) -> str:
        if self._shown:
            self._shown += text
            return text
        text = text.lstrip()
        self._shown = text
        return f" {text}" if text and has_blanks(self._last) and has_blanks(text[0]) else text


@dataclass(frozen=True, slots=True)
class _Unit:
    """A word, or a character of a script without blanks."""

    letters: str
    """In one case."""
    end: int
    """Its place in the text."""


def _following(shown: str, text: str) -> str | None:
    """What of `text` follows `shown`; None where it does not go on from it."""
    if text.startswith(shown):
        return text[len(shown) :]
    wanted, at, after = letters_of(shown), 0, 0
    for place, character in enumerate(text):
        if at == len(wanted):
            break
        letters = letters_of(character)
        if not wanted.startswith(letters, at):
            return None
        at += len(letters)
        after = place + 1
    return _beyond(shown, text[after:]) if at == len(wanted) else None


def _beyond(shown: str, rest: str) -> str:
    """`rest`, which follows the last letter of `shown`, without the punctuation that is there already."""
    there = shown[_marks(shown) :]
    if rest.startswith(there):
        return rest[len(there) :]
    words = rest[next((place for place, character in enumerate(rest) if letters_of(character)), len(rest)) :]
    parted = any(map(str.isspace, rest[: len(rest) - len(words)])) and not there[-1].isspace()
    return f" {words}" if words and parted else words


def _marks(text: str) -> int:
    """Where the blanks and the punctuation begin that `text` ends with."""
    place = len(text)
    while place and not letters_of(text[place - 1]):
        place -= 1
    return place


def _nearest(shown: str, text: str) -> str:
    """What follows that beginning of `text` which takes the fewest changes to become `shown`; the longest of them."""
    said, meant = _units(shown), _units(text)
    skipped = max(0, len(said) - NEAREST)
    said, meant = said[skipped:], meant[skipped : skipped + 2 * NEAREST]
    if not meant:
        return ""
    row = list(range(len(meant) + 1))
    for count, one in enumerate(said, 1):
        above, row = row, [count]
        for place, other in enumerate(meant):
            row.append(min(row[-1] + 1, above[place + 1] + 1, above[place] + (one.letters != other.letters)))
    best = max(range(len(row)), key=lambda place: (-row[place], place))
    if not best:
        return text if not skipped else ""
    return _beyond(shown, text[meant[best - 1].end :])


def _units(text: str) -> list[_Unit]:
    found: list[_Unit] = []
    word = ""
    for place, character in enumerate(text):
        letters = letters_of(character)
        if letters and has_blanks(character):
            word += letters
            if place + 1 == len(text) or not letters_of(text[place + 1]) or not has_blanks(text[place + 1]):
                found.append(_Unit(word, place + 1))
                word = ""
        elif letters:
            found.append(_Unit(letters, place + 1))
    return found


def letters_of(text: str) -> str:
    """Its letters and digits, in one case."""
    return "".join(character for character in text.casefold() if unicodedata.category(character)[0] in "LMN")


_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "THAI", "LAO", "KHMER", "MYANMAR")


def has_blanks(character: str) -> bool:
    """Whether its script parts words by blanks. False for none."""
    return bool(character) and not unicodedata.name(character, "").startswith(_UNSPACED)
