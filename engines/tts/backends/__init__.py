"""What can stand behind the server: one Protocol, and a registry of those who keep it.

A backend's libraries are loaded in `load` and nowhere earlier, so that the server answers /health meanwhile.
"""

from collections.abc import Callable, Generator
from typing import Protocol

from engines.tts.job import Job


class Backend(Protocol):
    """One per process. Everything here blocks: the server calls it from worker threads."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def parallel(self) -> int:
        """How many threads may be in `speak` or in its generators at once."""
        ...

    def load(self) -> None:
        """Raises whatever says why it cannot be."""
        ...

    @property
    def speakers(self) -> tuple[str, ...]:
        """Built in; known once loaded."""
        ...

    def rate(self, job: Job) -> int:
        """Hz, of the answer to `job`; known once loaded."""
        ...

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        """Mono s16le PCM, piece by piece; each piece is made when it is asked for.

        Raises job.Refused before it returns, never from the generator. Ends early, soon after `stopped` says so.
        """
        ...

    def register(self, name: str, job: Job) -> None:
        """Makes the voice of `job.prompt`, which says `job.prompt_text`, known as `name` to every worker of this
        model, now and after a restart. Raises job.Refused."""
        ...

    @property
    def registered(self) -> tuple[str, ...]:
        """The names."""
        ...


def _embedded(device: str) -> Backend:
    from engines.tts.backends.embedded import Embedded

    return Embedded()


def _cosyvoice(device: str) -> Backend:
    from engines.settings import load
    from engines.tts.backends.cosyvoice import CosyVoice

    return CosyVoice(load(), device)


REGISTRY: dict[str, Callable[[str], Backend]] = {"embedded": _embedded, "cosyvoice": _cosyvoice}
"""By the name that --backend takes, given a device: "cpu" or "cuda:0". A factory imports its backend when it is
called: not every machine has them all."""
