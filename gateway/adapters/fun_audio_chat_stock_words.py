"""The text of a reply as upstream's server sends it: in pieces, torn and repeated."""

import re

_FINAL = "\n[Final: "
"""Begins a text that repeats the whole reply; ends with a bracket."""


class Words:
    """A reply's text, of which the server may send torn characters and a repetition."""

    def __init__(self) -> None:
        self._shown = self._held = ""

    def piece(self, text: str) -> str:
        """What is to be shown of it. From a torn character on all is held: the repetition has it whole."""
        if text.startswith(_FINAL):
            whole = re.sub(r"<\|\w+\|>", "", text.removeprefix(_FINAL).removesuffix("]"))
            rest = _behind(self._shown, whole)
            self._shown, held = whole, self.end()
            return held if rest is None else rest.rstrip()
        if self._held or "\ufffd" in text:
            self._held += text
            return ""
        self._shown += text
        return text

    def end(self) -> str:
        """What no repetition came for."""
        held, self._held = self._held, ""
        return held.replace("\ufffd", "")


# Private


def _behind(shown: str, whole: str) -> str | None:
    """What comes in `whole` behind what was shown of it, white space aside; None where that was something else."""
    at = 0
    for character in shown:
        if character.isspace():
            continue
        while at < len(whole) and whole[at].isspace():
            at += 1
        if whole[at : at + 1] != character:
            return None
        at += 1
    return whole[at:].lstrip() if shown[-1:].isspace() else whole[at:]
