"""The text of a synthesis, checked before any engine hears of it."""

import re

from gateway.errors import BadRequest, TooLarge

_TAG = re.compile(r"<!--.{0,1000}?-->|</?[A-Za-z][A-Za-z0-9:_-]{0,40}(?:\s[^<>]{0,1000})?/?>", re.DOTALL)


def speakable(text: str, limit: int) -> str:
    """`text` without surrounding blanks and control characters; blanks of other kinds have become simple ones.

    limit: characters. Raises TooLarge above it, BadRequest where no letter or digit of any script is in it.
    """
    if len(text) > limit:
        raise TooLarge(f"the text has {len(text)} characters; the limit is {limit}", code="text_too_long")
    clean = printable(text).strip()
    if not sayable(clean):
        raise BadRequest("there is nothing to say in this text", code="text_empty")
    return clean


def printable(text: str) -> str:
    """`text` without control characters and halves of characters; blanks of other kinds have become simple ones."""
    return text if text.isprintable() else "".join(map(_shown, text))


def sayable(text: str) -> bool:
    """Whether a letter or digit of any script is in it."""
    return any(letter.isalnum() for letter in text)


def untagged(text: str) -> str:
    """`text` without tags (`<strong>`, `</p>`, `<break time="1s"/>`, comments); what stands between them stays, and so
    does everything else, `a < b > c` and `[laughter]` among it."""
    return _TAG.sub("", text) if "<" in text else text


# Private


def _shown(letter: str) -> str:
    if letter in "\n\t" or letter.isprintable():
        return letter
    return " " if letter.isspace() else ""
