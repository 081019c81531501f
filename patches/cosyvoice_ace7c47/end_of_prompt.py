"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/frontend.py::CosyVoiceFrontEnd.frontend_*
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       CosyVoice3 refuses a request without <|endofprompt|>, and upstream's servers and clients send none. A
              caller who writes it into a cross-lingual text switches off its normalisation and its splitting into
              sentences. Since 56d9876 the marker that ends an instruction is left to the caller as well: without it
              CosyVoice 1 and 2 read the instruction out
Sent:         not sent, because it has only been tried on tiny models
Remove when:  the frontend puts the marker where the model needs it
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.cli.frontend",)
READ_AGAINST = {
    "CosyVoiceFrontEnd.frontend_sft": "47872c8d3516c35e91f9aeb8c7f74d3a71f1bac183fe04e8c8371eaf62685cdf",
    "CosyVoiceFrontEnd.frontend_zero_shot": "1dd8f9ffc3e2dce312d9054638de841f048f93baa4f2c5bc76d71bb9ed45faa5",
    "CosyVoiceFrontEnd.frontend_cross_lingual": "897534b5e4927e51c79b7a4a37f4a1a547641e884200cb9954c8ef281932e95f",
    "CosyVoiceFrontEnd.frontend_instruct": "030b171c3cf1c34ee3736d3322e04658b958b3d4903528a7adb5e70784e90773",
    "CosyVoiceFrontEnd.frontend_instruct2": "76485d267353e9f3eaf0c00253596993e51fa807ce4af6f0fc722fb95e863aa4",
    "CosyVoiceFrontEnd.text_normalize": "681629ed608466fe1a46e62bc799dbf28d5088b85c27634084a7d213a9715955",
}
_MARKER = "<|endofprompt|>"
_SYSTEM = "You are a helpful assistant."
"""What CosyVoice3 was trained to read before the marker."""


def apply(module: ModuleType) -> None:
    """The functions that are given each sentence by itself, once it is normalised."""
    check(module, READ_AGAINST, __file__)
    frontend = module.CosyVoiceFrontEnd
    sft, zero_shot, cross_lingual = frontend.frontend_sft, frontend.frontend_zero_shot, frontend.frontend_cross_lingual
    instruct, instruct2 = frontend.frontend_instruct, frontend.frontend_instruct2

    @functools.wraps(sft)
    def marked_sft(self: Any, tts_text: Any, spk_id: str) -> Any:
        return sft(self, _marked_text(self, tts_text), spk_id)

    @functools.wraps(zero_shot)
    def marked_zero_shot(self: Any, tts_text: Any, prompt_text: str, *more: Any) -> Any:
        # upstream registers speakers by this function as well, and calls it for the two modes below
        if _is_third(self) and _MARKER not in prompt_text and not _has_marker(tts_text):
            prompt_text = _SYSTEM + _MARKER + prompt_text
        return zero_shot(self, tts_text, prompt_text, *more)

    @functools.wraps(cross_lingual)
    def marked_cross_lingual(self: Any, tts_text: Any, *more: Any) -> Any:
        return cross_lingual(self, _marked_text(self, tts_text), *more)

    @functools.wraps(instruct)
    def marked_instruct(self: Any, tts_text: Any, spk_id: str, instruct_text: str) -> Any:
        return instruct(self, tts_text, spk_id, _ended(instruct_text))

    @functools.wraps(instruct2)
    def marked_instruct2(self: Any, tts_text: Any, instruct_text: str, *more: Any) -> Any:
        if _is_third(self) and _MARKER not in instruct_text and not instruct_text.startswith(_SYSTEM):
            instruct_text = f"{_SYSTEM} {instruct_text}"
        return instruct2(self, tts_text, _ended(instruct_text), *more)

    frontend.frontend_sft = marked_sft
    frontend.frontend_zero_shot = marked_zero_shot
    frontend.frontend_cross_lingual = marked_cross_lingual
    frontend.frontend_instruct = marked_instruct
    frontend.frontend_instruct2 = marked_instruct2


def _is_third(frontend: Any) -> bool:
    return type(frontend.tokenizer).__name__ == "CosyVoice3Tokenizer"


def _has_marker(text: Any) -> bool:
    """`text` may be a generator, which nobody can look into."""
    return isinstance(text, str) and _MARKER in text


def _marked_text(frontend: Any, text: Any) -> Any:
    if not _is_third(frontend) or not isinstance(text, str) or _has_marker(text):
        return text
    return _SYSTEM + _MARKER + text


def _ended(instruction: str) -> str:
    return instruction if _MARKER in instruction else instruction + _MARKER
