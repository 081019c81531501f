"""What can stand behind the server: two Protocols, and registries of those who keep them.

A thinker makes words and speech codes, a vocoder makes codes audible. Each lives in a worker process of its own, so
that neither waits for the other, and so that they may have different devices. Their libraries are loaded in `load` and
nowhere earlier. Everything in both blocks; one call at a time.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Hz, of what a thinker hears."""
VOCODER_RATE = 24_000
"""Hz, of what a vocoder says."""
Samples = NDArray[np.float32]
"""Mono, -1 to 1."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    id: str
    """Of the Call that it answers."""
    output: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Said:
    """What a user's turn consists of: audio, or text, or the results of the tools that the last reply called."""

    audio: Samples = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)
    """At RATE; empty where the turn is written."""
    text: str = field(default="", repr=False)
    results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """The next piece of the reply's text: whole characters, white space and all; pieces put together are the reply."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Codes:
    """The next codes of the reply's speech, such as the vocoder of the same name understands; only those that can be
    heard."""

    codes: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """The reply wants a tool called. What of its text says so is no Words."""

    id: str
    name: str
    arguments: str = field(repr=False)
    """JSON."""


Thought = Words | Codes | Call


@dataclass(frozen=True, slots=True)
class Past:
    """A turn that is over."""

    said: Said
    reply: str = field(repr=False)
    """All its Words put together, as far as they went where the user interrupted it."""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn."""

    said: Said
    history: tuple[Past, ...] = ()
    """Oldest first; bounded by the server, in turns and in seconds of audio."""
    persona: str = field(default="", repr=False)
    """Who the model is to be; empty for the backend's own."""
    language: str = ""
    """BCP 47 tag of the reply; empty to leave it to the model."""
    speech: bool = True
    """Whether the reply is spoken. Where not, there are no Codes, and Words need not wait for them."""
    tools: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """As OpenAI writes them: {"type": "function", "function": {"name", "description", "parameters"}}."""


class Refused(Exception):
    """A turn that cannot be as it was asked for; the text is for the client."""

    status = 400


class Failed(Exception):
    """The model could not go on with a turn; the text is for the client. It can take the next one."""

    status = 500


class Thinker(Protocol):
    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...

    def load(self) -> None:
        """Warms up too: some steps of a reply. Raises whatever says why it cannot be."""
        ...

    def think(self, asked: Asked, stopped: Callable[[], bool]) -> Generator[Thought, None, None]:
        """A turn's reply, each thought as soon as it is there.

        Asks `stopped` at every step and ends soon after it says so; `close()` ends it as well. Whatever the model
        raises ends the reply: Refused and Failed with their text, of any other the client learns the type. `stopped`
        may be asked from any thread.
        """
        ...


class Vocoder(Protocol):
    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def voices(self) -> tuple[str, ...]:
        """Names; the first is the one where nobody asks for another. Known once loaded."""
        ...

    def load(self) -> None:
        """Warms up too. Raises whatever says why it cannot be."""
        ...

    def open(self, stream: int, voice: str) -> None:
        """A reply begins. stream: names it from now on; several may be open. voice: one of `voices`."""
        ...

    def feed(self, stream: int, codes: Sequence[int], last: bool) -> Samples:
        """What can be said by now, at VOCODER_RATE; none where more codes have to come first. The last call, with or
        without codes, says all that is left. Raises Failed."""
        ...

    def close(self, stream: int) -> None:
        """Forgets a stream, whether it is open or not."""
        ...


def _scripted_thinker(device: str, options: Sequence[str]) -> Thinker:
    from engines.s2s.backends.scripted import Scripted

    return Scripted(options)


def _scripted_vocoder(device: str, options: Sequence[str]) -> Vocoder:
    from engines.s2s.backends.scripted import Tones

    return Tones(options)


def _fun_audio_chat(device: str, options: Sequence[str]) -> Thinker:
    from engines.s2s.backends.fun_audio_chat import FunAudioChat
    from engines.settings import load

    return FunAudioChat(load(), device)


def _fun_audio_chat_vocoder(device: str, options: Sequence[str]) -> Vocoder:
    from engines.s2s.backends.fun_audio_chat_vocoder import CosyVoiceVocoder
    from engines.settings import load

    return CosyVoiceVocoder(load(), device)


THINKERS: dict[str, Callable[[str, Sequence[str]], Thinker]] = {
    "scripted": _scripted_thinker,
    "fun_audio_chat": _fun_audio_chat,
}
"""By the name that --backend takes, given a device, "cpu" or "cuda:0", and what else the command line says to the
backend. A factory imports its backend when it is called: not every machine has them all."""
VOCODERS: dict[str, Callable[[str, Sequence[str]], Vocoder]] = {
    "scripted": _scripted_vocoder,
    "fun_audio_chat": _fun_audio_chat_vocoder,
}
"""The same for the other half."""
