"""When each word was said, as FunASR's WebSocket protocol writes it.

    "timestamp": "[[100,200],[200,500]]"                 a string; milliseconds of each token
    "stamp_sents": [{"text_seg": "正 是 因 为", "punc": ",", "start": 430, "end": 1130, "ts_list": [[430, 670], …]}]

Tokens are words, or the characters of scripts without blanks. Upstream's Python server writes `timestamp` as a list.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

Stamp = tuple[str, int, int]
"""A token, and where it begins and ends in milliseconds."""

_MOST = 100_000
"""Tokens of one answer that are read."""


def timestamp(words: Sequence[Stamp]) -> str:
    return json.dumps([[start, end] for _, start, end in words], separators=(",", ":"))


def sentences(text: str, words: Sequence[Stamp]) -> list[dict[str, Any]]:
    """stamp_sents of an utterance: a new one after each mark of punctuation that `text` has between two of `words`."""
    found: list[dict[str, Any]] = []
    run: list[Stamp] = []
    for word, mark in zip(words, _marks(text, words), strict=True):
        run.append(word)
        if mark:
            found.append(_sentence(run, mark))
            run = []
    return [*found, _sentence(run, "")] if run else found


def read(found: object, text: str) -> tuple[Stamp, ...]:
    """The words of `text` with what `timestamp` says of them; empty where the two do not belong together."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return ()
    if not isinstance(found, list) or not 0 < len(found) <= _MOST:
        return ()
    words, last = list(_tokens(text)), 0
    if len(words) != len(found):
        return ()
    stamps = []
    for word, span in zip(words, found, strict=True):
        if not _is_span(span) or span[0] < last:
            return ()
        last = span[0]
        stamps.append((word, span[0], span[1]))
    return tuple(stamps)


# Private


def _sentence(run: Sequence[Stamp], mark: str) -> dict[str, Any]:
    return {
        "text_seg": " ".join(word for word, _, _ in run),
        "punc": mark,
        "start": run[0][1],
        "end": run[-1][2],
        "ts_list": [[start, end] for _, start, end in run],
    }


def _marks(text: str, words: Sequence[Stamp]) -> Iterator[str]:
    """The mark of punctuation that follows each of `words` in `text`; empty without one, and for words that are not in
    it as they were said."""
    at = 0
    for word, _, _ in words:
        place = text.lower().find(word.lower(), at)
        if place < 0:
            yield ""
            continue
        at = place + len(word)
        yield text[at] if at < len(text) and _is_mark(text[at]) else ""


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Po" and character not in "'’"


def _tokens(text: str) -> Iterator[str]:
    word = ""
    for character in f"{text} ":
        if (
            unicodedata.category(character)[0] in "LMN"
            and not _is_ideograph(character)
            or (word and character in "'’-")
        ):
            word += character
            continue
        if word:
            yield word
            word = ""
        if _is_ideograph(character):
            yield character


def _is_ideograph(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or "\u3041" <= character <= "\u30ff"


def _is_span(span: object) -> bool:
    return (
        isinstance(span, list)
        and len(span) == 2
        and all(isinstance(at, int) and not isinstance(at, bool) and 0 <= at < 2**53 for at in span)
        and span[0] <= span[1]
    )
