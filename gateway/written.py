"""Recognised text as its reader wants it: numbers in figures, or without punctuation, or without fillers.

Rule 1: a text is never worse for it. Whatever the grammars cannot take, or fail on, stays as it was said.
Rule 2: the grammars (wetext's, Mandarin and English) work in one thread of their own; the event loop never waits.
"""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog

log = structlog.get_logger(__name__)
_CLAUSE = 600
"""Characters that a grammar is given at once: its time grows faster than they do, 45 ms for as many."""

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA_HANGUL = "\u3040-\u30ff\uac00-\ud7af"
_BETWEEN = re.compile(r'([,;:/!?，。；：！？、…"“”«»()（）\[\]【】《》{}\\\n]+)')
"""What numbers never reach across. Quotes and backslashes among them, which the grammars would write as escapes."""
_BEFORE_A_TIME = re.compile(r"(?<=[日号])(?=(?:[上下中]午|早上|晚上|凌晨)?[零一二两三四五六七八九十]+[点时])")
"""Between a day and a time, which the Mandarin grammar writes as one: 2026/11/203:45p.m."""
_HAS_HAN = re.compile(f"[{_HAN}]")
_HAS_NUMBER = re.compile(
    r"\b(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thir|fif|twen|for|hundred|thousand"
    r"|million|billion|first|second|third|half|quarter|o'clock)|teen\b|ty\b|th\b",
    re.IGNORECASE,
)
"""English; the grammar puts blanks around what it does not know, so it is given nothing else."""

_MARKS = re.compile(r"[.,;:?!…。，、；：？！|\"“”„‘’'«»()（）\[\]【】《》〈〉「」『』—–~～¿¡،؟؛۔।॥]+")
_UNSPACED = re.compile(f"[{_HAN}{_KANA_HANGUL}]")

_FILLERS = re.compile(
    r"(?<![^\W\d_])(?:u+h+m*|u+m+|erm?|h+m+)(?![^\W\d_])[,.…]?|[嗯呃唔]+[，、。…,]?"
    r"|(?:^|(?<=[，、。！？…,]))[额啊哦]+[，、…,]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Style:
    """How a text is wanted."""

    figures: bool
    punctuation: bool
    fluent: bool

    async def final(self, text: str) -> str:
        return self._marked(await in_figures(self._smooth(text)) if self.figures else self._smooth(text))

    def partial(self, text: str) -> str:
        """Of a text that is still growing: its numbers may not be whole yet."""
        return self._marked(self._smooth(text))

    def _smooth(self, text: str) -> str:
        return fluent(text) if self.fluent else text

    def _marked(self, text: str) -> str:
        return text if self.punctuation else plain(text)


def prepare() -> None:
    """Loads the grammars, 0.2 s, in their thread, where that has not been done; waits for nothing."""
    _thread().submit(_in_figures, "二十 ten")


async def in_figures(text: str) -> str:
    """`text` with its numbers, dates, times and amounts in figures (inverse text normalisation)."""
    if not text:
        return text
    return await asyncio.get_running_loop().run_in_executor(_thread(), _in_figures, text)


def plain(text: str) -> str:
    """`text` without punctuation. What belongs to a number or a word stays: 3.5, 1,000, 5:30, don't, example.com."""
    return " ".join(_MARKS.sub(_gap, text).split())


def fluent(text: str) -> str:
    """`text` without the sounds of hesitation that are no words: 嗯, 呃, um, uh, er."""
    return " ".join(_FILLERS.sub("", text).split())


# Private


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "written")


@cache
def _grammar(language: str) -> Any:
    from wetext import Normalizer  # slow

    return Normalizer(lang=language, operator="itn")


def _in_figures(text: str) -> str:
    """In the thread."""
    try:
        return "".join(part if at % 2 else _clause(part) for at, part in enumerate(_BETWEEN.split(text)))
    except Exception as exc:  # whatever a library that is not ours raises: the text is good without it
        log.warning("numbers stay as words", error=type(exc).__name__)
        return text


def _clause(text: str) -> str:
    core = text.strip()
    if not core:
        return text
    found = " ".join(_number(part) for part in _BEFORE_A_TIME.split(core))
    start = text.index(core)
    return text[:start] + found + text[start + len(core) :]


def _number(core: str) -> str:
    language = "zh" if _HAS_HAN.search(core) else "en" if _HAS_NUMBER.search(core) else ""
    if not language:
        return core
    grammar = _grammar(language)
    return "".join(part[: len(part) - len(part.lstrip())] + grammar.normalize(part) for part in _short(core))


def _short(core: str) -> list[str]:
    """In pieces that a grammar takes at once, cut before blanks where there are some."""
    found = []
    while len(core) > _CLAUSE:
        cut = core.rfind(" ", 1, _CLAUSE)
        cut = cut if cut > 0 else _CLAUSE
        found.append(core[:cut])
        core = core[cut:]
    return [*found, core]


def _gap(mark: re.Match[str]) -> str:
    """What stays where punctuation was."""
    before, after = mark.string[: mark.start()][-1:], mark.string[mark.end() :][:1]
    if len(mark[0]) == 1 and before and after:
        if mark[0] in ".,:" and before.isdigit() and after.isdigit():
            return mark[0]
        if mark[0] in ".'’" and _spaced(before) and _spaced(after):
            return mark[0]
    return "" if _UNSPACED.match(before) and _UNSPACED.match(after) else " "


def _spaced(letter: str) -> bool:
    """Whether it is of a script that puts blanks between words."""
    return letter.isalnum() and not _UNSPACED.match(letter)
