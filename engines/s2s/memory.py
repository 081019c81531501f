"""What was said in a conversation, kept as PCM in memory and nowhere else, for a while longer than its connection."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from engines.s2s.backends import RATE, Call, ToolResult

BYTES = 2 * RATE
"""Of a second."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A user's turn, as backends.Said is."""

    pcm: bytes = field(default=b"", repr=False)
    """Mono s16le at RATE."""
    text: str = field(default="", repr=False)
    results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One that is over, as backends.Past is."""

    heard: Heard
    reply: str = field(repr=False)
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """How replies are wanted."""

    persona: str = field(default="", repr=False)
    voice: str = ""
    """Empty for the engine's first."""
    language: str = ""
    speech: bool = True
    tools: tuple[dict[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Bounds:
    turns: int = 8
    """Of one conversation, the running one included."""
    seconds: float = 300.0
    """Of the audio of its past turns."""
    kept: float = 600.0
    """Seconds after a connection has ended that its conversation can be taken up again."""
    conversations: int = 256
    """That wait to be taken up again."""
    megabytes: int = 512
    """Of their audio together."""


class Memory:
    """One conversation's."""

    def __init__(self, bounds: Bounds, turns: tuple[Turn, ...] = (), wishes: Wishes | None = None) -> None:
        self._bounds = bounds
        self.turns = turns
        """Oldest first."""
        self.wishes = wishes or Wishes()
        self.id, self.token = secrets.token_hex(4), secrets.token_urlsafe(24)

    @property
    def size(self) -> int:
        """Bytes of audio."""
        return sum(len(turn.heard.pcm) for turn in self.turns)

    def add(self, turn: Turn) -> None:
        """The oldest ones go where there are too many, or where they are too long together."""
        self.turns = (*self.turns, turn)
        self.turns = self.turns[max(0, len(self.turns) - self._bounds.turns + 1) :]
        while self.size > self._bounds.seconds * BYTES:
            self.turns = self.turns[1:]

    def forget_calls(self) -> None:
        """Those of the last turn, which nobody has answered."""
        if self.turns and self.turns[-1].calls:
            last = replace(self.turns[-1], calls=())
            self.turns = (*self.turns[:-1], last) if last.reply else self.turns[:-1]


class Memories:
    """Those of connections that have ended."""

    def __init__(self, bounds: Bounds, now: Callable[[], float] = time.monotonic) -> None:
        self._bounds, self._now = bounds, now
        self._kept: OrderedDict[str, tuple[float, Memory]] = OrderedDict()
        """By token, the longest kept first."""
        self._open: dict[str, Memory] = {}

    def __repr__(self) -> str:
        return f"<{len(self._open)} conversations, {len(self._kept)} of {self._bounds.conversations} kept>"

    def open(self, token: str) -> tuple[Memory, bool]:
        """A conversation's memory, and whether it is that of the token. One that is resumed while its connection has
        not been seen to end, as happens on networks that fail, goes on in both."""
        self._forget()
        _, found = self._kept.pop(token, (0.0, None))
        found = found or self._open.get(token)
        memory = Memory(self._bounds, found.turns, found.wishes) if found else Memory(self._bounds)
        self._open[memory.token] = memory
        return memory, found is not None

    def close(self, memory: Memory) -> None:
        """Its connection has ended."""
        del self._open[memory.token]
        if memory.turns:
            self._kept[memory.token] = self._now() + self._bounds.kept, memory
        self._forget()

    # Private

    def _forget(self) -> None:
        size = sum(memory.size for _, memory in self._kept.values())
        while self._kept:
            token, (until, memory) = next(iter(self._kept.items()))
            crowded = len(self._kept) > self._bounds.conversations or size > self._bounds.megabytes * 2**20
            if until > self._now() and not crowded:
                return
            size -= memory.size
            del self._kept[token]
