"""Arithmetic in words and figures: read by a parser of its own, never run as code; exact, and bounded.

sum     = product {("plus" | "minus") product}
product = value {("times" | "divided by") value}
value   = ["minus"] (number | "(" sum ")")
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

MOST_TOKENS, MOST_DIGITS = 60, 15


class NoSum(ValueError):
    """The text is no arithmetic."""


_Token = Fraction | str
"""A number, or one of + - * / ( )."""
_OPERATORS = ("+", "-", "*", "/")


@dataclass(frozen=True, slots=True)
class Language:
    tokens: Callable[[str], list[_Token]]
    """Raises NoSum."""
    signs: Mapping[str, str]
    """How + - * / are said."""
    number: Callable[[Fraction], str]
    equals: str
    by_zero: str
    stop: str

    def told(self, text: str) -> str:
        """A sentence: the sum and its result. Raises NoSum, ZeroDivisionError."""
        tokens = self.tokens(text)
        if len(tokens) > MOST_TOKENS or not any(token in _OPERATORS for token in tokens[1:]):
            raise NoSum
        result = _Parser(tokens).all()
        said = "".join(self.number(one) if isinstance(one, Fraction) else self.signs.get(one, one) for one in tokens)
        said = re.sub(r"(?<=\() | (?=\))", "", " ".join(said.split()))
        return f"{said[:1].upper()}{said[1:]}{self.equals}{self.number(result)}{self.stop}"


class _Parser:
    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens, self._at = tokens, 0

    def all(self) -> Fraction:
        found = self._sum()
        if self._at < len(self._tokens):
            raise NoSum
        if abs(found) >= 10**MOST_DIGITS:
            raise NoSum
        return found

    def _sum(self) -> Fraction:
        found = self._product()
        while (sign := self._next("+", "-")) is not None:
            other = self._product()
            found = found + other if sign == "+" else found - other
        return found

    def _product(self) -> Fraction:
        found = self._value()
        while (sign := self._next("*", "/")) is not None:
            other = self._value()
            found = found * other if sign == "*" else found / other
        return found

    def _value(self) -> Fraction:
        if self._next("-"):
            return -self._value()
        if self._next("("):
            found = self._sum()
            if not self._next(")"):
                raise NoSum
            return found
        if self._at < len(self._tokens) and isinstance(number := self._tokens[self._at], Fraction):
            self._at += 1
            return number
        raise NoSum

    def _next(self, *wanted: str) -> str | None:
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        if not isinstance(token, str) or token not in wanted:
            return None
        self._at += 1
        return token


# English

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_WORDS = {word: value for value, word in enumerate(_ONES)} | {word: 10 * at for at, word in enumerate(_TENS, 2)}
_ALIKE = {"to": "two", "too": "two", "for": "four", "ate": "eight", "won": "one", "oh": "zero", "a": "one"}
"""What recognisers write for numbers that sound the same."""
_SIGNS = {
    "plus": "+",
    "add": "+",
    "minus": "-",
    "less": "-",
    "times": "*",
    "multiplied by": "*",
    "x": "*",
    "×": "*",
    "divided by": "/",
    "over": "/",
    "÷": "/",
}
_ENGLISH = re.compile(
    rf"\s*(?:(?P<figures>\d[\d,]*(?:\.\d+)?)|(?P<sign>[-+*/()]|{'|'.join(map(re.escape, _SIGNS))})(?![a-z])"
    r"|(?P<word>[a-z]+))\s*"
)


def _english(text: str) -> list[_Token]:
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text)  # twenty-one
    found: list[_Token] = []
    words: list[str] = []
    at = 0
    while at < len(text):
        part = _ENGLISH.match(text, at)
        if part is None:
            raise NoSum
        at = part.end()
        if part["word"]:
            words.append(_ALIKE.get(part["word"], part["word"]))
            continue
        found += _said(words)
        words = []
        found.append(_figures(part["figures"]) if part["figures"] else _SIGNS.get(part["sign"], part["sign"]))
    return found + _said(words)


def _said(words: Sequence[str]) -> list[_Token]:
    """The number that these words are: two hundred and five point one."""
    if not words:
        return []
    words, _, decimals = (list(part) for part in _split(words, "point"))
    whole = part = 0
    for word in words:
        if word in _WORDS and _fits(part, _WORDS[word]):
            part += _WORDS[word]
        elif word == "hundred" and 0 < part < 100:
            part *= 100
        elif word in _SCALES and 0 < part < 1000:
            whole, part = whole + part * _SCALES[word], 0
        elif word != "and" or not whole + part:
            raise NoSum
    if any(_WORDS.get(word, 10) > 9 for word in decimals) or len(decimals) > MOST_DIGITS:
        raise NoSum
    fraction = "".join(str(_WORDS[word]) for word in decimals) or "0"
    return [Fraction(f"{whole + part}.{fraction}")]


def _split(words: Sequence[str], at: str) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    place = list(words).index(at) if at in words else len(words)
    return words[:place], words[place : place + 1], words[place + 1 :]


def _fits(part: int, value: int) -> bool:
    """Whether a word of that value may follow: twenty one, but not two three."""
    rest = part % 100
    return rest == 0 or (value < 10 and rest >= 20 and rest % 10 == 0 and value > 0)


def _figures(text: str) -> Fraction:
    text = text.replace(",", "")
    if len(text) > MOST_DIGITS:
        raise NoSum
    return Fraction(text)


def in_english(number: Fraction) -> str:
    """In words, as far as there are words for it."""
    if number < 0:
        return f"minus {in_english(-number)}"
    if number.denominator != 1:
        whole, _, rest = f"{float(round(number, 4)):.4f}".rstrip("0").partition(".")
        about = "" if Fraction(f"{whole}.{rest or 0}") == number else "about "
        return f"{about}{in_english(Fraction(whole))} point {' '.join(_ONES[int(one)] for one in rest or '0')}"
    return _words(int(number)) if number < 10**12 else str(int(number))


def _words(number: int) -> str:
    for word, size in reversed(_SCALES.items()):
        if number >= size:
            rest = f" {_words(number % size)}" if number % size else ""
            return f"{_words(number // size)} {word}{rest}"
    if number >= 100:
        rest = f" and {_words(number % 100)}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    if number >= 20:
        return _TENS[number // 10 - 2] + (f" {_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


# Chinese

_DIGITS_ZH = {word: value for value, word in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_UNITS_ZH = {"十": 10, "百": 100, "千": 1000}
_SIGNS_ZH = {"加上": "+", "加": "+", "减去": "-", "减": "-", "乘以": "*", "乘": "*", "除以": "/"}
_CHINESE = re.compile(
    rf"\s*(?:(?P<figures>\d[\d,]*(?:\.\d+)?)|(?P<sign>[-+*/()]|{'|'.join(_SIGNS_ZH)})|(?P<word>[{''.join(_DIGITS_ZH)}"
    r"十百千万]+))\s*"
)


def _chinese(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        part = _CHINESE.match(text, at)
        if part is None:
            raise NoSum
        at = part.end()
        if part["word"]:
            found.append(Fraction(_said_zh(part["word"])))
        else:
            found.append(_figures(part["figures"]) if part["figures"] else _SIGNS_ZH.get(part["sign"], part["sign"]))
    return found


def _said_zh(word: str) -> int:
    """两百零五"""
    if len(word) > 2 * MOST_DIGITS:
        raise NoSum
    high, myriad, low = word.rpartition("万")
    if myriad:
        return _said_zh(high) * 10_000 + (_said_zh(low) if low else 0)
    total = digit = 0
    for letter in word:
        if letter in _UNITS_ZH:
            total, digit = total + (digit or 1) * _UNITS_ZH[letter], 0
        else:
            digit = _DIGITS_ZH[letter]
    return total + digit


def in_chinese(number: Fraction) -> str:
    if number < 0:
        return f"负{in_chinese(-number)}"
    if number.denominator != 1:
        return f"{float(round(number, 4)):.4f}".rstrip("0")
    if number >= 100:
        return str(int(number))
    tens, ones = divmod(int(number), 10)
    digits = "零一二三四五六七八九"
    return ("" if tens < 2 else digits[tens]) + "十" * (tens > 0) + (digits[ones] if ones or not tens else "")


ENGLISH = Language(
    _english,
    {"+": " plus ", "-": " minus ", "*": " times ", "/": " divided by ", "(": " ( ", ")": " ) "},
    in_english,
    " is ",
    "Nothing can be divided by zero.",
    ".",
)
CHINESE = Language(
    _chinese,
    {"+": "加", "-": "减", "*": "乘以", "/": "除以"},
    in_chinese,
    "等于",
    "零不能做除数。",
    "。",
)
