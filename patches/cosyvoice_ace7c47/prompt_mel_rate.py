"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/frontend.py::CosyVoiceFrontEnd._extract_speech_feat
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       since 622a3a1 the prompt's mel frames are made of 24 kHz audio for every model, but CosyVoice 1 makes them
              for 22050 Hz: they are 9 % too many and each band is 9 % too low, so that the voice is heard as a slower
              and deeper one
Sent:         not sent, because it has only been tried on tiny models
Remove when:  _extract_speech_feat asks for the rate of its extractor
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.cli.frontend",)
READ_AGAINST = {
    "CosyVoiceFrontEnd._extract_speech_feat": "8160029f8878be432b94c8b5fae0c1666fc0fab065117cbb28cae6216c79a0bf"
}
_UPSTREAMS = 24_000
"""Hz."""


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    frontend = module.CosyVoiceFrontEnd
    frontend._extract_speech_feat = _at_own_rate(frontend._extract_speech_feat, module)


def _at_own_rate(extract: Callable[..., Any], module: ModuleType) -> Callable[..., Any]:
    @functools.wraps(extract)
    def at_own_rate(self: Any, prompt_wav: Any) -> Any:
        # The configuration binds the extractor's arguments, its rate among them.
        rate = getattr(self.feat_extractor, "keywords", {}).get("sampling_rate", _UPSTREAMS)
        if rate == _UPSTREAMS:
            return extract(self, prompt_wav)
        frames = self.feat_extractor(module.load_wav(prompt_wav, rate)).mT.to(self.device)  # [1, frames, bands]
        return frames, frames.new_tensor([frames.shape[1]]).int()

    return at_own_rate
