"""Words that a caller expects, as words of their own in the decoder's dictionary.

A hotword becomes one token with the pronunciations of its words on end. The language model gives a token that it has
never seen the probability of one word in its vocabulary, whatever was said before; for a phrase, or for a word that
is improbable in its place, that is far more than it had. A hotword with a word that the dictionary does not know
cannot be pronounced and has no effect.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

_TOKEN = re.compile(r"@(\d+)")


def add(decoder: Any, hotwords: Sequence[str]) -> None:
    """Teaches a new decoder; a word cannot be taken back from it."""
    known = [(f"@{at}", phones) for at, hotword in enumerate(hotwords) if (phones := _pronounced(decoder, hotword))]
    for token, phones in known[:-1]:
        decoder.add_word(token, phones, False)
    for token, phones in known[-1:]:
        decoder.add_word(token, phones, True)  # with the last one the search is built anew, once


def written(words: Iterable[str], hotwords: Sequence[str]) -> str:
    """The decoder's words as a text, hotwords as their caller wrote them."""
    return " ".join(_TOKEN.sub(lambda found: hotwords[int(found[1])], word) for word in words)


def _pronounced(decoder: Any, hotword: str) -> str:
    """Its phones; empty where a word of it is unknown."""
    words = hotword.lower().replace("-", " ").split()
    phones = [decoder.lookup_word(word) for word in words if not word.startswith(("<", "["))]
    return " ".join(phones) if all(phones) and len(phones) == len(words) else ""
