"""What CosyVoice is given to read: a user's words in pieces that it reads well, and nothing in them that it obeys.

Where `<|endofprompt|>` goes is not decided here: patches/cosyvoice_ace7c47/end_of_prompt.py puts it where each model
needs it. Clients of upstream's own servers write it themselves, so that it is taken off what they send.
"""

from collections.abc import Iterator

from engines.tts import sentences
from gateway.wire import cosyvoice as wire

_MARKER = "<|endofprompt|>"
_BLOCK = 200
"""Characters that are normalised at once: the first audio waits for no more, and a sentence without an end is cut."""
_ENDS = "。！？!?；;.…\"'”’»)）」』】"

_SPELLINGS = {"jp": "ja", "kr": "ko"}
"""Of language tags, as clients write them, to the one that the tokenizer knows."""


def words(text: str) -> tuple[str, str]:
    """(language, text) of a tts_text: its language tag, empty without one, and its words with no control in them."""
    language, rest = wire.split_tag(text.rpartition(_MARKER)[2].lstrip())
    return _SPELLINGS.get(language, language), wire.without_control(rest)


def transcript(prompt_text: str) -> str:
    """What is said in the reference audio."""
    return _narrow(wire.without_control(prompt_text.rpartition(_MARKER)[2]))


def instruction(instruct_text: str) -> str:
    return _narrow(wire.without_control(instruct_text.partition(_MARKER)[0]))


def blocks(text: str) -> Iterator[str]:
    """Whole sentences of `text`, as many at a time as make a block; in order, lazily."""
    block = ""
    for sentence in map(_narrow, sentences.split(text)):
        if block and (len(block) + len(sentence) >= _BLOCK or block[-1] not in _ENDS):
            yield block
            block = ""
        # Upstream takes the blanks between Chinese characters out again.
        block = f"{block} {sentence}" if block else sentence
    if block:
        yield block


def _narrow(text: str) -> str:
    """`text` with one blank where it has any: the grammar of English fails on more."""
    return " ".join(text.split())
