"""own_state.py without upstream: what it does for vLLM, which these tests do not have."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from patches.cosyvoice_ace7c47.own_state import _with_own_state


class Model:
    """As upstream's, as far as the patch looks at it; its language model never ends by itself."""

    def __init__(self) -> None:
        self.aborted: list[str] = []
        vllm = SimpleNamespace(abort_request=self.aborted.extend)
        self.llm = SimpleNamespace(lock=threading.Lock(), vllm=vllm, vllm_output_queue={})
        self.silent_tokens: list[int] = []
        self.begun = threading.Event()

    def llm_job(self, text: str, prompt_text: str, prompt_token: object, embedding: object, uuid: str) -> None:
        self.llm.vllm_output_queue[uuid] = []
        while 1 not in self.silent_tokens:
            self.begun.set()

    @_with_own_state
    def tts(self, text: str) -> Iterator[Any]:
        threading.Thread(target=self.llm_job, args=(text, "", None, None, "this one")).start()
        self.begun.wait(5)
        yield text


def test_vllm_is_told_of_a_request_that_nobody_reads() -> None:
    model, before = Model(), threading.active_count()
    pieces = model.tts("Hello.")
    next(pieces)
    pieces.close()
    assert (model.aborted, model.llm.vllm_output_queue) == (["this one"], {})
    assert threading.active_count() == before


def test_a_request_leaves_the_model_as_it_was() -> None:
    model = Model()
    held = dict(vars(model))
    pieces = model.tts("Hello.")
    next(pieces)
    assert vars(model) == held
    pieces.close()
