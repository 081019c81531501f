"""What a token is, for answers that count them: engines do not tell what theirs are; these anybody can count.

Of text: a word, a character of a script without blanks, or a mark of punctuation. Of sound: 100 ms where it is heard,
50 ms where it is spoken, as OpenAI has it.
"""

import math
import re

_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+|[^\w\s]"
)
_HEARD, _SPOKEN = 10, 20
"""In a second."""


def of_text(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))


def of_heard(seconds: float) -> int:
    return math.ceil(round(seconds * _HEARD, 6))


def of_spoken(seconds: float) -> int:
    return math.ceil(round(seconds * _SPOKEN, 6))
