"""What a conversation needs of the models, wherever they run."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from engines.asr.live.events import Event
from engines.asr.live.tape import Samples
from gateway.wire.funasr_2pass import Config


class ModelFailed(Exception):
    """The models could not go on with a stream; the text is for the client."""


class NoModel(Exception):
    """There is none now that could take a stream; the text is for the client."""


class NotKnown(Exception):
    """The models cannot do what a stream asks for; the text is for the client."""


class Stream(Protocol):
    async def feed(self, samples: Samples, *, last: bool) -> Sequence[Event]:
        """What the next samples, at 16 kHz, brought about. Raises ModelFailed."""
        ...


class Models(Protocol):
    def stream(self, asked: Config) -> AbstractAsyncContextManager[Stream]:
        """The scope of one stream of audio. Raises NoModel, NotKnown and ModelFailed."""
        ...

    @property
    def second_pass(self) -> bool:
        """Whether they can `recognise`; where they cannot, an utterance is what the deltas made of it."""
        ...

    async def recognise(self, samples: Samples, asked: Config) -> str:
        """The second pass: an utterance, whole, as text. Raises ModelFailed."""
        ...

    def refusal(self) -> str:
        """Why no stream can be taken now; empty where one can."""
        ...
