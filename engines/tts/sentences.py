"""Text cut into the pieces that are spoken one after the other.

Rule 1: pieces come lazily, so that the first one costs the same however long the text is.
Rule 2: no piece is longer than LONGEST characters, so that none keeps a synthesiser for long.
Rule 3: a piece has something in it that can be said.
"""

import re
from collections.abc import Iterator

LONGEST = 200

_ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "vs", "Jr", "Sr", "No")
_NOT_AFTER = "".join(rf"(?<!\b{word})" for word in _ABBREVIATIONS) + r"(?<!\b[A-Z])"
_CLOSING = r"[\"'”’»)\]」』】]*"
# A full stop ends a sentence only before a space or the end: not in 3.14, and not in example.com.
_END = re.compile(rf"(?:[。!?;।॥؟۔。！？；]+|{_NOT_AFTER}\.+(?=[\"'”’»)\]」』】]*(?:\s|$))){_CLOSING}|\n+")
_PAUSES = ",，、:：،—"


def speakable(text: str) -> bool:
    return any(map(str.isalnum, text))


def split(text: str) -> Iterator[str]:
    """The pieces of `text`, in order."""
    start = 0
    for end in _END.finditer(text):
        yield from _cut(text[start : end.end()])
        start = end.end()
    yield from _cut(text[start:])


def _cut(sentence: str) -> Iterator[str]:
    """A sentence, in more than one piece where it is too long: at a pause, else at a space, else anywhere."""
    while len(sentence) > LONGEST:
        head = sentence[:LONGEST]
        at = 1 + max(map(head.rfind, _PAUSES))
        at = at or 1 + head.rfind(" ") or LONGEST
        yield from _kept(sentence[:at])
        sentence = sentence[at:]
    yield from _kept(sentence)


def _kept(piece: str) -> Iterator[str]:
    if speakable(piece):
        yield piece.strip()
