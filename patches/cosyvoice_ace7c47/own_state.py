"""Upstream:     FunAudioLLM/CosyVoice cosyvoice/cli/model.py::CosyVoiceModel.tts, CosyVoice2Model.tts
Pinned:       ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       requests share the model's state. Since f26cde5 each streamed one doubles token_hop_len, up to 100, for
              all that follow and for those beside it, so that soon the first audio needs four seconds of tokens. A
              request whose consumer leaves keeps its entries in every dictionary, and its language model runs on
Sent:         not sent, because upstream's pull request 1849 is open for the first half; the rest has only been tried on
              tiny models
Remove when:  tts keeps what belongs to a request in local variables and ends its thread in a finally
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator
from threading import Event
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("cosyvoice.cli.model",)
READ_AGAINST = {
    "CosyVoiceModel.tts": "3a934f2a759634e37219ed2c16338876b54a1746a679929bd83a7b52a45f0076",
    "CosyVoice2Model.tts": "3228c247d8e09e81e04a2aac10cdf2ff539fa6fd49a2d0d2342b8f6aa7cf00bb",
    "CosyVoiceModel.llm_job": "af363e4d2933c0fa1f38d04712af7c4f3fd30297c3db6867eecb52a1e0b34973",
}
_OF_A_REQUEST = (
    "tts_speech_token_dict", "llm_end_dict", "mel_overlap_dict", "flow_cache_dict", "hift_cache_dict",
)  # fmt: skip
_PATIENCE = 5.0
"""Seconds that the end of a request waits for the end of its language model, which takes as long as one token. Only a
text that is still being written can hold it up for longer."""


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    for model in (module.CosyVoiceModel, module.CosyVoice2Model):
        model.tts = _with_own_state(model.tts)


def _with_own_state(tts: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(tts)
    def own(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        request = copy.copy(self)
        for name in _OF_A_REQUEST:
            setattr(request, name, {})
        request.llm_job = request.silent_tokens = job = _Job(request)
        try:
            yield from tts(request, *args, **kwargs)
        finally:
            job.stop()
            del request.llm_job  # it holds the request, which holds it

    return own


class _Job:
    """The language model's work for one request: it can be ended, and its end waited for.

    Upstream looks every token up in silent_tokens, so this stands there as well: it sees each token go by."""

    def __init__(self, request: Any) -> None:
        self._work, self._silent, self._llm = request.llm_job, request.silent_tokens, request.llm
        self._begun, self._ended, self._unwanted = Event(), Event(), Event()

    def __call__(self, text: Any, prompt_text: Any, prompt_token: Any, embedding: Any, uuid: str) -> None:
        self._begun.set()
        try:
            self._work(text, prompt_text, prompt_token, embedding, uuid)
        except _Unwanted:
            pass
        finally:
            if self._unwanted.is_set():
                _forget(self._llm, uuid)
            self._ended.set()

    def __contains__(self, token: int) -> bool:
        if self._unwanted.is_set():
            raise _Unwanted
        return token in self._silent

    def stop(self) -> None:
        self._unwanted.set()
        # Conversion has no language model: its job never begins. One that has begun has given its first token, or has
        # failed, before anything can end the request.
        if self._begun.is_set() and not self._ended.wait(_PATIENCE):
            logging.getLogger(__name__).warning("the language model of an ended request still runs")


class _Unwanted(Exception):
    """Nobody waits for more tokens."""


def _forget(llm: Any, uuid: str) -> None:
    """vLLM goes on with a request that nobody reads until it is told."""
    if hasattr(llm, "vllm"):
        with llm.lock:
            llm.vllm.abort_request([uuid])
            llm.vllm_output_queue.pop(uuid, None)
