"""What the frames of a client mean, one after the other.

    IDLE ──config, audio──▶ HEARING ──end──▶ IDLE …

A connection carries one stream after the other.
"""

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_2pass import Config, End


class State(Enum):
    IDLE = auto()
    """No stream: before the first, and between two."""
    HEARING = auto()


@dataclass(frozen=True, slots=True)
class Open:
    """A stream begins."""

    asked: Config


@dataclass(frozen=True, slots=True)
class Change:
    """A running stream gets other hotwords, or another way to write numbers."""

    asked: Config


@dataclass(frozen=True, slots=True)
class Audio:
    pcm: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """The stream, if there is one, has no more audio."""

    ack: bool


Command = Open | Change | Audio | Finish


class Unreadable(Exception):
    """A frame that cannot be; the text is for the client."""


class Frames:
    """Reads a client's frames."""

    def __init__(self, *, only_pcm: bool = False) -> None:
        """only_pcm: whether other forms of audio are refused."""
        self._only_pcm = only_pcm
        self.state = State.IDLE
        self.asked = Config()
        """What the next stream gets, if nothing else is said: audio before any config is heard too."""

    def text(self, frame: str) -> list[Command]:
        """Raises Unreadable."""
        try:
            said = wire.read_client(frame, self.asked)
        except ValueError as exc:
            raise Unreadable(str(exc)) from exc
        if isinstance(said, Config) and said.form != wire.PCM and self._only_pcm:
            raise Unreadable("wav_format must be pcm: mono, signed 16 bit, little endian, without a header")
        if isinstance(said, End):
            self.state = State.IDLE
            return [Finish(said.ack)]
        if self.state is State.IDLE:
            self.asked, self.state = said, State.HEARING
            return [Open(said)]
        self.asked = replace(self.asked, hotwords=said.hotwords, itn=said.itn)
        return [Change(self.asked)]

    def audio(self, pcm: bytes) -> list[Command]:
        if self.state is State.HEARING:
            return [Audio(pcm)]
        self.state = State.HEARING
        return [Open(self.asked), Audio(pcm)]
