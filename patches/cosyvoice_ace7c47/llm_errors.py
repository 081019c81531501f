"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/model.py::CosyVoiceModel.llm_job
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       the language model runs in a thread whose exceptions nobody sees: with stream=True the request then waits
              for its end for ever, without it the tokens made so far are spoken as if they were all
Sent:         not sent, because it has only been tried on tiny models
Remove when:  an exception of the language model's thread reaches the caller of tts
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.cli.model",)
READ_AGAINST = {
    "CosyVoiceModel.llm_job": "af363e4d2933c0fa1f38d04712af7c4f3fd30297c3db6867eecb52a1e0b34973",
    "CosyVoiceModel.tts": "3a934f2a759634e37219ed2c16338876b54a1746a679929bd83a7b52a45f0076",
    "CosyVoice2Model.tts": "3228c247d8e09e81e04a2aac10cdf2ff539fa6fd49a2d0d2342b8f6aa7cf00bb",
}


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    module.CosyVoiceModel.llm_job = _told(module.CosyVoiceModel.llm_job)


def _told(llm_job: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(llm_job)
    def told(self: Any, text: Any, prompt_text: Any, prompt_token: Any, embedding: Any, uuid: str) -> None:
        try:
            llm_job(self, text, prompt_text, prompt_token, embedding, uuid)
        except BaseException as exc:
            with self.lock:  # under which the consumer replaces the tokens by those that are left
                self.tts_speech_token_dict[uuid] = _Failed(exc)
                self.llm_end_dict[uuid] = True

    return told


class _Failed:
    """Stands where the tokens would: whoever reads them meets the exception."""

    def __init__(self, exc: BaseException) -> None:
        self._exc = exc

    def __len__(self) -> int:
        raise self._exc

    def __getitem__(self, at: object) -> Any:
        raise self._exc
