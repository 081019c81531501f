"""What can stand behind the server: one Protocol, and a registry of those who keep it.

A backend lives in a worker process, one per worker, and its libraries are loaded in `load` and nowhere earlier.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from engines.asr.recording import Recording

Check = Callable[[], None]
"""Raises Stopped once nobody wants the text any more; called often, it decides how soon a worker is free again."""


class Stopped(Exception):
    """Whoever wanted the text has left."""


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

    def load(self) -> None:
        """Raises whatever says why it cannot be. What the properties say holds afterwards."""
        ...

    def transcribe(self, recording: Recording, language: str, hotwords: Sequence[str], check: Check) -> str:
        """The words heard, empty where there are none. Lets Stopped through from `check`, and works again after it."""
        ...


def _embedded() -> Backend:
    from engines.asr.backends.embedded import Embedded

    return Embedded()


REGISTRY: dict[str, Callable[[], Backend]] = {"embedded": _embedded}
"""By the name that --backend takes. A factory imports its backend when it is called: not every machine has them all."""
