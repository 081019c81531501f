"""Which language each stretch of a sentence is read in.

Rule 1: a script decides the language, unless the language asked for is written in that script.
Rule 2: Han is read as Mandarin in every other language too: espeak-ng's Japanese voice spells kanji out as the words
"Chinese letter", and its Mandarin at least says a reading of them.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

ENGLISH = "en-us"
_LATIN = "LATIN"

_READ_AS = {
    "CJK": "cmn", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CYRILLIC": "ru", "ARABIC": "ar",
    "DEVANAGARI": "hi", "THAI": "th", "GREEK": "el", "HEBREW": "he", "BENGALI": "bn", "GURMUKHI": "pa",
    "GUJARATI": "gu", "ORIYA": "or", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn", "MALAYALAM": "ml",
    "SINHALA": "si", "GEORGIAN": "ka", "ARMENIAN": "hy", "ETHIOPIC": "am", "MYANMAR": "my",
}  # fmt: skip
"""Script, as the first word of a Unicode character name, to the language it is read in by default."""

_WRITTEN_IN = {
    **{language: script for script, language in _READ_AS.items()},
    **dict.fromkeys(("yue", "hak"), "CJK"),
    **dict.fromkeys(("uk", "be", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "cv", "nog", "ru-lv", "ru-cl"), "CYRILLIC"),
    **dict.fromkeys(("fa", "ur", "sd", "ug"), "ARABIC"),
    **dict.fromkeys(("mr", "ne", "kok"), "DEVANAGARI"),
    **dict.fromkeys(("as", "bpy"), "BENGALI"),
    **dict.fromkeys(("hyw",), "ARMENIAN"),
    **dict.fromkeys(("ti",), "ETHIOPIC"),
    **dict.fromkeys(("grc",), "GREEK"),
    **dict.fromkeys(("shn",), "MYANMAR"),
}
"""Language to its script, where that is not Latin."""


def runs(sentence: str, asked_for: str) -> Iterator[tuple[str, str]]:
    """(language, text) of each stretch of `sentence`; figures and marks go with the letters before them."""
    language, start = "", 0
    for at, character in enumerate(sentence):
        found = _language(character, asked_for)
        if found and found != language:
            if language:
                yield language, sentence[start:at]
                start = at
            language = found
    yield language or asked_for, sentence[start:]


def _language(character: str, asked_for: str) -> str:
    """What `character` is read in; empty where that depends on its neighbours."""
    script = _script(character)
    if not script:
        return ""
    return asked_for if script == _WRITTEN_IN.get(asked_for, _LATIN) else _READ_AS.get(script, ENGLISH)


@lru_cache(4096)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    # The long vowel mark is "KATAKANA-HIRAGANA ...", the iteration mark of kanji "IDEOGRAPHIC ...".
    word = unicodedata.name(character, "").replace("-", " ").partition(" ")[0]
    return "CJK" if word == "IDEOGRAPHIC" else word
