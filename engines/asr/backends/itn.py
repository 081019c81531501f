"""Numbers and dates in figures, for recognisers that write them as they are said. Mandarin only.

wetext brings its grammars along. FunSpeech uses the same ones.
"""

import re
from functools import cache
from typing import Any

_BEFORE_A_TIME = re.compile(r"(?<=[日号])(?=[上下中]午|早上|晚上|凌晨|[零一二两三四五六七八九十]+[点时])")
"""Between a day and a time; the grammars would write them as one: 2026/11/203:45p.m."""


def written(text: str) -> str:
    return " ".join(_normaliser().normalize(part) for part in _BEFORE_A_TIME.split(text))


@cache
def _normaliser() -> Any:
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="itn")
