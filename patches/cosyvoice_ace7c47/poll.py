"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/model.py::CosyVoiceModel.tts, CosyVoice2Model.tts
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       a streamed request looks for new tokens every 100 ms, which adds up to that to each piece of audio
Sent:         not sent, because it has only been tried on tiny models
Remove when:  tts waits for tokens instead of sleeping
"""

from __future__ import annotations

import time
from types import ModuleType, SimpleNamespace

from patches.guard import check

TARGETS = ("cosyvoice.cli.model",)
READ_AGAINST = {
    "CosyVoiceModel.tts": "3a934f2a759634e37219ed2c16338876b54a1746a679929bd83a7b52a45f0076",
    "CosyVoice2Model.tts": "3228c247d8e09e81e04a2aac10cdf2ff539fa6fd49a2d0d2342b8f6aa7cf00bb",
}
_LONGEST = 0.01
"""Seconds; a token takes about as long on a fast GPU."""


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    module.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, _LONGEST)))  # type: ignore[attr-defined]
