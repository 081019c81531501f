"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/llm/llm.py::TransformerLM.sampling_ids
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       while a text is too young to end, sampling rules out the id speech_token_size. That is the end of sequence
              in CosyVoice 1 and 2; in CosyVoice3 it is the start, the end is the next one, and each of the 200 ids from
              there on ends a text. So an utterance may end at its first token, for which the vocoder raises "Kernel
              size can't be greater than actual input size", and where the text comes as a generator the same token
              raises "should not get token"
Sent:         not sent, because it has only been tried on tiny models
Remove when:  CosyVoice3LM rules out its own eos_token
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.llm.llm",)
READ_AGAINST = {
    "TransformerLM.sampling_ids": "29fc8cef8e28a7c2adadf9b3abc0a83ddd9373db4e8cbe03692683f0ca25b952",
    "CosyVoice3LM.__init__": "64c3b3b27f0d762b3e730a702e485a1129fa46150f4fae43f3dbac986e9e3745",
    "Qwen2LM.inference_wrapper": "f5bb4b11f60176f627119a33fc8566f94e34cb2a6405cef149eda2a98882bee2",
    "Qwen2LM.inference_bistream": "787afe6acbe008cc7c01e7eb6e4b5fe374986a7731bfc8a038f9aca0357c4df4",
}


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    module.CosyVoice3LM.sampling_ids = _ruling_out_every_end(module.TransformerLM.sampling_ids)


def _ruling_out_every_end(sampling_ids: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(sampling_ids)
    def ruling_out(
        self: Any, weighted_scores: Any, decoded_tokens: list[int], sampling: int, ignore_eos: bool = True
    ) -> int:
        if ignore_eos:
            # A text that comes in pieces asks for the next one by the fill token, which must stay possible.
            fill = weighted_scores[self.fill_token].clone()
            weighted_scores[self.speech_token_size :] = -float("inf")
            weighted_scores[self.fill_token] = fill
        return sampling_ids(self, weighted_scores, decoded_tokens, sampling, ignore_eos)

    return ruling_out
