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
    def sample_rate(self) -> int:
        """Hz, of every answer; known once loaded."""
        ...

    @property
    def speakers(self) -> tuple[str, ...]:
        """Known once loaded."""
        ...

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        """Mono s16le PCM, piece by piece; each piece is made when it is asked for.

        Raises job.Refused before it returns, never from the generator. Ends early, soon after `stopped` says so.
        """
        ...


def _embedded() -> Backend:
    from engines.tts.backends.embedded import Embedded

    return Embedded()


REGISTRY: dict[str, Callable[[], Backend]] = {"embedded": _embedded}
"""By the name that --backend takes. A factory imports its backend when it is called: not every machine has them all."""
