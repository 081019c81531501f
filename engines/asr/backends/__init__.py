"""What can stand behind the server: one Protocol, and a registry of those who keep it.

A backend lives in a worker process, one per worker, and its libraries are loaded in `load` and nowhere earlier.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.asr.recording import Recording

Check = Callable[[], None]
"""Raises Stopped once nobody wants the text any more; called often, it decides how soon a worker is free again."""


class Stopped(Exception):
    """Whoever wanted the text has left."""


@dataclass(frozen=True, slots=True)
class Asked:
    language: str = ""
    """ISO 639 code, one of the backend's; empty where the caller leaves it open."""
    hotwords: tuple[str, ...] = ()
    itn: bool = True
    """Whether numbers and dates are written in figures, where the model can."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word, or a character of a script without spaces."""

    text: str
    start: float
    end: float
    """Seconds from the start of the recording."""


@dataclass(frozen=True, slots=True)
class Heard:
    text: str
    """Empty where nothing was said."""
    language: str = ""
    """ISO 639 code, where the model itself tells."""
    words: tuple[Spoken, ...] = ()
    """In order, where the model knows when each was said."""


class Backend(Protocol):
    """Everything here blocks; one call at a time."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639 codes; the first is what it assumes where the caller names none."""
        ...

    @property
    def timestamps(self) -> bool:
        """Whether Heard has words."""
        ...

    @property
    def together(self) -> int:
        """How many recordings are heard faster together than one after the other; 1 where none are."""
        ...

    def load(self) -> None:
        """Raises whatever says why it cannot be. What the properties say holds afterwards."""
        ...

    def transcribe(self, recording: Recording, asked: Asked, check: Check) -> Heard:
        """Lets Stopped through from `check`, and works again after it.

        An exception with a `status`, as of HTTP, is the caller's to read.
        """
        ...

    def transcribe_together(self, recordings: Sequence[Recording], asked: Asked, check: Check) -> Iterator[Heard]:
        """Of each of at most `together` short recordings, in their order. Raises as `transcribe` does."""
        ...


def _embedded(device: str) -> Backend:
    from engines.asr.backends.embedded import Embedded

    return Embedded()


def _funasr(device: str) -> Backend:
    from engines.asr.backends.funasr import FunAsr
    from engines.settings import load

    return FunAsr(load(), device)


REGISTRY: dict[str, Callable[[str], Backend]] = {"embedded": _embedded, "funasr": _funasr}
"""By the name that --backend takes, given a device: "cpu" or "cuda:0". A factory imports its backend when it is
called: not every machine has them all."""
