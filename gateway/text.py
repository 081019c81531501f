"""The text of a synthesis, checked before any engine hears of it."""

from gateway.errors import BadRequest, TooLarge


def speakable(text: str, limit: int) -> str:
    """`text` without surrounding blanks and control characters; blanks of other kinds have become simple ones.

    limit: characters. Raises TooLarge above it, BadRequest where no letter or digit of any script is in it.
    """
    if len(text) > limit:
        raise TooLarge(f"the text has {len(text)} characters; the limit is {limit}", code="text_too_long")
    if not text.isprintable():
        text = "".join(map(_shown, text))
    clean = text.strip()
    if not any(letter.isalnum() for letter in clean):
        raise BadRequest("there is nothing to say in this text", code="text_empty")
    return clean


def _shown(letter: str) -> str:
    if letter in "\n\t" or letter.isprintable():
        return letter
    return " " if letter.isspace() else ""
