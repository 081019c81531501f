"""What one request asks for, and the ways of turning it down."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Refused(Exception):
    """The caller asked for something that cannot be done; the text says what, and never repeats what is to be said."""

    status = 400


class TooLarge(Refused):
    status = 413


class Malformed(Refused):
    status = 422


class TooSlow(Refused):
    status = 408


class NotReady(Refused):
    status = 503


@dataclass(frozen=True)
class Prompt:
    """Reference audio, checked and decoded."""

    wav: bytes
    samples: Samples
    """Mono, -1..1."""
    sample_rate: int

    @cached_property
    def digest(self) -> str:
        """Names the recording."""
        return sha256(self.wav).hexdigest()


@dataclass(frozen=True, slots=True)
class Job:
    mode: str
    """The route, as gateway.wire.cosyvoice names it."""
    text: str
    speaker: str = ""
    prompt: Prompt | None = None
    prompt_text: str = ""
    instruction: str = ""
    speed: float = 1.0
    registered: str = ""
    """A registered speaker, in the place of `prompt`."""
    stream: bool = True
    """Whether audio comes while a sentence is still being made, where the backend can."""
    seed: int | None = None
