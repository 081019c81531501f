"""What can stand behind live recognition: one Protocol, kept in a worker process and serving many streams by turns."""

from dataclasses import dataclass
from typing import Protocol

from engines.asr.live.events import Event
from engines.asr.live.tape import Samples


@dataclass(frozen=True, slots=True)
class Asked:
    """How a stream is to be heard; see the wire's Config."""

    deltas: bool = True
    """Whether the streaming recogniser is wanted at all, or utterances only."""
    last_words: bool = False
    """Whether what it still holds when an utterance ends is wanted: not where a second pass replaces it."""
    chunk: tuple[int, int, int] = (5, 10, 5)
    encoder_look_back: int = 4
    decoder_look_back: int = 1


class LiveBackend(Protocol):
    """Everything here blocks; one call at a time."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...

    def load(self) -> None:
        """Raises whatever says why it cannot be."""
        ...

    def open(self, number: int, asked: Asked) -> None:
        """number: names the stream from now on."""
        ...

    def feed(self, number: int, samples: Samples, last: bool) -> list[Event]:
        """What the next samples, at 16 kHz, brought about. The last ones end the running utterance."""
        ...

    def close(self, number: int) -> None:
        """Forgets the stream, known or not."""
        ...
