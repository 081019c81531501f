"""Fun-Audio-Chat: hears what is said, writes its reply and says it at the same time. Upstream's network, our server.

It speaks, or it calls tools: the second only in writing. Where tools are there and the reply is to be spoken, the model
is asked in writing first, and as soon as it does not begin with a call, it is asked again to speak.
"""

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from threading import Lock

import numpy as np

from engines.s2s.backends import RATE, Asked, Call, Codes, Refused, Said, Thinker, Thought, Words
from engines.s2s.backends import fun_audio_chat_prompt as prompts
from engines.s2s.backends.fun_audio_chat_calls import Calls, may_call
from engines.s2s.backends.fun_audio_chat_files import Unusable, find, upstream
from engines.s2s.backends.fun_audio_chat_memory import guarded
from engines.s2s.backends.fun_audio_chat_model import Model
from engines.s2s.backends.fun_audio_chat_streamer import Step
from engines.settings import Engines

log = logging.getLogger(__name__)

_WARM_UP = 16
"""Steps; the first codes come with the third or so."""


class FunAudioChat:
    def __init__(self, settings: Engines, device: str) -> None:
        """device: "cpu" or "cuda:0", and the only one that torch sees."""
        self.device = device
        self._settings = settings
        self.model = Path(settings.s2s_model_id).name
        self._alone = Lock()

    def load(self) -> None:
        if self.device != "cpu":
            self.device = _gpu(self.device)
        self._told = prompts.sentences(upstream())
        self._model = Model(find(self._settings.s2s_model_id, self._settings.models_dir), self.device.split()[0])
        noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.01
        if not any(step.codes for step in self._steps(Asked(Said(noise)), lambda: False, most=_WARM_UP)):
            raise Unusable("the model does not speak")

    def think(self, asked: Asked, stopped: Callable[[], bool]) -> Generator[Thought, None, None]:
        said = asked.said
        if not (len(said.audio) or said.text.strip() or said.results):
            raise Refused("there is nothing to reply to")
        # Two replies at once would write into each other's state.
        if not self._alone.acquire(blocking=False):
            raise RuntimeError("one turn at a time")
        try:
            with guarded():
                if asked.tools and (yield from self._called(asked, stopped)):
                    return
                if not stopped():
                    yield from self._replied(asked, stopped)
        finally:
            self._alone.release()

    # Private

    def _steps(
        self, asked: Asked, stopped: Callable[[], bool], *, calling: bool = False, most: int = 0
    ) -> Generator[Step, None, None]:
        prompt = prompts.conversation(asked, self._told, self._model.longest, calling=calling)
        return self._model.steps(prompt, speech=asked.speech and not calling, stopped=stopped, most=most)

    def _replied(self, asked: Asked, stopped: Callable[[], bool]) -> Generator[Thought, None, None]:
        text = self._model.text()
        with closing(self._steps(asked, stopped)) as steps:
            for step in steps:
                if step.token is not None and (words := text.add(step.token)):
                    yield Words(words)
                if step.codes:
                    yield Codes(step.codes)

    def _called(self, asked: Asked, stopped: Callable[[], bool]) -> Generator[Thought, None, bool]:
        """The reply, as far as it is to be had in writing; returns whether that was all of it."""
        names = [str(tool.get("function", {}).get("name", "")) for tool in asked.tools]
        calls, begun = Calls(names), ""
        with closing(self._written(asked, stopped)) as pieces:
            for piece in pieces:
                if asked.speech and not calls.found:
                    begun += piece
                    if not may_call(begun):
                        return False
                    if not begun.strip():
                        continue
                yield from map(_thought, calls.feed(piece))
        if stopped():
            return True
        if asked.speech and not calls.found:
            return False
        yield from map(_thought, calls.end())
        return True

    def _written(self, asked: Asked, stopped: Callable[[], bool]) -> Generator[str, None, None]:
        text = self._model.text()
        with closing(self._steps(asked, stopped, calling=True)) as steps:
            yield from filter(None, (text.add(step.token) for step in steps if step.token is not None))


def _thought(piece: str | Call) -> Thought:
    return piece if isinstance(piece, Call) else Words(piece)


def _gpu(device: str) -> str:
    """The device and what it is called. Raises Unusable."""
    import torch

    if not torch.cuda.is_available():
        raise Unusable(f"{device} was asked for, and torch sees no GPU")
    return f"{device} ({torch.cuda.get_device_name(0)})"


_: type[Thinker] = FunAudioChat
