"""What was measured, and what it comes to. Times in seconds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    took: float
    """From its first byte to the last byte of the answer."""
    first: float
    """To the first byte of audio, or of text."""
    audio: float
    """How long the audio is that it was about."""


@dataclass(frozen=True, slots=True)
class Burst:
    """So many clients at once, each with one request; some bursts of a level are put together as one."""

    clients: int
    requests: tuple[Request, ...]
    wall: float
    """Of all bursts, one after the other."""
    health: tuple[float, ...]
    """Of /health, asked meanwhile."""
    rss: int
    """Bytes of the server and its workers at the end, what they share counted in each."""
    vram: int | None
    """Bytes of the GPU that were not taken before the server started; None without one."""

    @property
    def per_second(self) -> float:
        return len(self.requests) / self.wall

    @property
    def audio_per_wall(self) -> float:
        """Seconds of audio for each second: how many streams of this length would be realtime."""
        return sum(one.audio for one in self.requests) / self.wall

    @property
    def rtf(self) -> float:
        """As one client sees it: seconds for each second of audio, mean."""
        return statistics.fmean(one.took / one.audio for one in self.requests)

    def took(self, share: float) -> float:
        return percentile([one.took for one in self.requests], share)

    def first(self, share: float) -> float:
        return percentile([one.first for one in self.requests], share)


@dataclass(frozen=True, slots=True)
class Stream:
    """One live stream, spoken in real time."""

    deltas: int
    utterances: int
    first: float
    """From the first sound of speech to the first delta; NaN where there was none."""
    final: float
    """From STOP to the last utterance whole."""
    ended: float
    """From STOP to the end ack."""
    fault: str = ""
    """What the engine said was wrong, where something was."""


LATE = 2.0
"""Seconds after STOP that a stream which keeps up may take to end: its last utterance is recognised whole in them."""


@dataclass(frozen=True, slots=True)
class Live:
    streams: tuple[Stream, ...]
    health: tuple[float, ...]
    rss: int
    vram: int | None

    @property
    def realtime(self) -> int:
        """How many of them kept up."""
        return sum(not one.fault and one.ended <= LATE for one in self.streams)


@dataclass(frozen=True, slots=True)
class Target:
    what: str
    wanted: float
    found: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.found >= self.wanted if self.at_least else self.found <= self.wanted


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them, 0 to 1, are not above; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def drift(firsts: Sequence[float], ends: int = 10) -> float:
    """Of requests one after the other: the median of the last ones over that of the first ones."""
    ends = min(ends, len(firsts) // 2)
    return statistics.median(firsts[-ends:]) / statistics.median(firsts[:ends]) if ends else math.nan


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def milliseconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1000:.1f}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def gigabytes(size: int | None) -> str:
    return "n/a" if size is None else f"{size / 1e9:.2f}"
