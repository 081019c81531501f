"""Text that is still arriving, cut into what can be spoken already.

Rule 1: a sentence is out as soon as it is known to have ended, so that speech can begin with the first one.
Rule 2: no piece is longer than LONGEST characters; the first, which somebody waits for, is cut at a pause within FIRST,
else at a word within FIRST_LONGEST.
Rule 3: a piece has something in it that can be said; marks of layout are no part of it.
"""

import re

LONGEST, FIRST, FIRST_LONGEST = 200, 80, 120
"""Characters."""

_WIDE = "。！？；｡।॥؟۔"
"""End a sentence wherever they stand."""
_CLOSING = "\"'”’»)]」』】）"
_END = re.compile(rf"[{_WIDE}]+[{re.escape(_CLOSING)}]*|[.!?…]+[{re.escape(_CLOSING)}]*(?=\s)|\n")
_BEFORE = re.compile(r"\S*\Z")
ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "prof", "st", "vs", "jr", "sr", "fig", "e.g", "i.e", "a.m", "p.m"))
_PAUSES = ",，、;:：—"
_LAYOUT = re.compile(r"[*#`|]+|^\s*[-•>]\s+")


class Sentences:
    def __init__(self) -> None:
        self._text = ""
        self._first = True

    @property
    def held(self) -> int:
        """Characters that are in no piece yet."""
        return len(self._text)

    def feed(self, text: str) -> list[str]:
        """The pieces that are whole now, in order."""
        self._text += text
        found: list[str] = []
        while (at := self._cut()) is not None:
            self._take(at, found)
        return found

    def end(self) -> list[str]:
        """What is left, after the last of the text."""
        found = self.feed("")
        self._take(len(self._text), found)
        return found

    # Private

    def _take(self, at: int, found: list[str]) -> None:
        piece, self._text = self._text[:at], self._text[at:].lstrip()
        piece = _LAYOUT.sub("", piece.lstrip(_CLOSING + _WIDE + " ")).strip()
        if any(map(str.isalnum, piece)):
            found.append(piece)
            self._first = False

    def _cut(self) -> int | None:
        """Where the next piece ends; None where more has to come first."""
        limit = FIRST_LONGEST if self._first else LONGEST
        end = self._end(limit)
        if self._first and len(self._text) > FIRST and (end is None or end > FIRST):
            end = _pause(self._text[:FIRST]) or end
        if end is not None or len(self._text) <= limit:
            return end
        head = self._text[:limit]
        return _pause(head) or 1 + head.rfind(" ") or limit

    def _end(self, limit: int) -> int | None:
        """Of the first sentence, if it has one within `limit`."""
        for end in _END.finditer(self._text, 0, limit + 2):  # no further: a row of dots would take the square of it
            if end.end() <= limit and not self._abbreviated(end):
                return end.end()
        return None

    def _abbreviated(self, end: re.Match[str]) -> bool:
        """Whether the full stop belongs to the word before it: an abbreviation, an initial, a number in a list."""
        if end[0] != ".":
            return False
        before = _BEFORE.search(self._text[: end.start()])
        word = before[0].lstrip("(\"'“‘") if before else ""
        if word.isdigit():
            return before is not None and not self._text[: before.start()].strip()
        return word.lower() in ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "I")


def _pause(head: str) -> int:
    """Behind the last pause that is not inside a number; 0 without one."""
    for at in range(len(head) - 1, 19, -1):
        if head[at] in _PAUSES and not head[at + 1 : at + 2].isdigit():
            return at + 1
    return 0
