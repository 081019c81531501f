"""What a live worker hears in a stream, in order: Began, Deltas, Ended; then the next utterance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Began:
    start: int
    """Milliseconds from the start of the stream, as below."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What the running utterance goes on with: to be put behind what there is."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ended:
    start: int
    end: int


Event = Began | Delta | Ended
_KINDS: dict[str, type[Began] | type[Delta] | type[Ended]] = {kind.__name__: kind for kind in (Began, Delta, Ended)}


def pack(events: Iterable[Event]) -> list[list[Any]]:
    """As JSON can say it."""
    return [[type(event).__name__, *(getattr(event, name) for name in event.__slots__)] for event in events]


def unpack(packed: Sequence[Sequence[Any]]) -> list[Event]:
    return [_KINDS[kind](*values) for kind, *values in packed]
