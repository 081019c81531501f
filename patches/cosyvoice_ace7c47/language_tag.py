"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/frontend.py::CosyVoiceFrontEnd.text_normalize
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       a text for CosyVoice 1 begins with its language, as <|en|>. The tokenizers of CosyVoice 2 and 3 know no
              such token, so that they read it out; and anything in <| |> switches off the normalisation of the text and
              its splitting into sentences
Sent:         not sent, because upstream asks its callers to know which version they speak to
Remove when:  a caller can send the same text to every version
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.cli.frontend",)
READ_AGAINST = {"CosyVoiceFrontEnd.text_normalize": "681629ed608466fe1a46e62bc799dbf28d5088b85c27634084a7d213a9715955"}
_OF_2_AND_3 = ("CosyVoice2Tokenizer", "CosyVoice3Tokenizer")
_TAG = re.compile(r"\s*<\|(zh|en|ja|jp|yue|ko)\|>")


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    module.CosyVoiceFrontEnd.text_normalize = _without_tag(module.CosyVoiceFrontEnd.text_normalize)


def _without_tag(text_normalize: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(text_normalize)
    def without_tag(self: Any, text: Any, *more: Any, **named: Any) -> Any:
        if isinstance(text, str) and type(self.tokenizer).__name__ in _OF_2_AND_3:
            tag = _TAG.match(text)
            text = text[tag.end() :] if tag else text
        return text_normalize(self, text, *more, **named)

    return without_tag
