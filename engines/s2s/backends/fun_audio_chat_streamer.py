"""What Fun-Audio-Chat generates, step by step: tokens of text beside codes of speech; and text out of tokens."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

CODES = 6561
"""Codes that can be heard; those from here on begin, end and fill a sequence."""


@dataclass(frozen=True, slots=True)
class Step:
    """200 ms of speech with the token of text that goes with them; either may be missing."""

    token: int | None = field(repr=False)
    codes: tuple[int, ...] = field(default=(), repr=False)


class Streamer:
    """Handed to upstream's generate(), which puts the prompt first, then the token of each step, [1], and behind it,
    where the step speaks, a group of codes, [1, codes]."""

    def __init__(self, give: Callable[[Step], None], end_of_speech: int) -> None:
        self._give, self._end_of_speech = give, end_of_speech
        self._prompted = False
        self._token: int | None = None

    def put(self, value: Any) -> None:
        if not self._prompted:  # the prompt has two dimensions, as codes have
            self._prompted = True
            return
        numbers = [int(number) for number in value.flatten().tolist()]
        if value.dim() == 1:
            self._flush()
            self._token = numbers[0]
            return
        token, self._token = self._token, None
        # One that ends the speech is silent as a whole, and upstream writes the end over the token that came with it.
        if self._end_of_speech not in numbers:
            self._give(Step(token, tuple(code for code in numbers if 0 <= code < CODES)))

    def end(self) -> None:
        self._flush()

    # Private

    def _flush(self) -> None:
        """The token of a step that did not speak."""
        if self._token is not None:
            token, self._token = self._token, None
            self._give(Step(token))


class Text:
    """Whole characters out of tokens, of which one may hold a part of a character. Nothing is trimmed."""

    def __init__(self, decode: Callable[[list[int]], str], silent: Collection[int]) -> None:
        """decode: tokens -> text, with U+FFFD for a part of a character. silent: tokens that are no text."""
        self._decode, self._silent = decode, silent
        self._held: list[int] = []
        """Since the last whole character at the end of a token."""
        self._given = 0
        """Characters of these that are out already."""

    def add(self, token: int) -> str:
        """What can be read by now; may be empty."""
        if token in self._silent:
            return ""
        self._held.append(token)
        text = self._decode(self._held)
        whole = len(text) - text.endswith("�")
        found = text[self._given : whole]
        self._given = whole
        if whole == len(text):
            self._held, self._given = [], 0
        return found
