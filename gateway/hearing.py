"""Hands-free: which part of what the microphone sends is somebody speaking, and nothing else goes on."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.endpointing import Endpointer, Started, Stopped
from gateway.events import Audio, Opus
from gateway.settings import Settings

_MARGIN = 1.0
"""Seconds of audio kept besides the padding: it takes that long at most to be sure that somebody speaks."""
_MOST_TAKEN = 60.0
"""Seconds of what was passed on that can be had again; of more the latest."""


@dataclass(frozen=True, slots=True)
class HandsFree:
    """How turns begin and end by themselves; None is as the settings say."""

    silence: float | None = None
    """Seconds that end a turn."""
    threshold: float | None = None
    """Probability above which sound counts as speech."""
    padding: float | None = None
    """Seconds kept before speech is noticed."""
    interrupts: bool = True
    """Whether speech ends the replies that run; it always does where turns are answered."""
    replies: bool = True
    """Whether each turn is answered; else only its words are wanted (verbs.End.reply)."""


class Hearing:
    """One connection's ears. Times are seconds from the first piece that was fed."""

    def __init__(self, settings: Settings, sample_rate: int, how: HandsFree = HandsFree()) -> None:
        """sample_rate: Hz of the PCM that will be fed."""
        self.sample_rate = sample_rate
        self._endpointer = Endpointer(
            settings, sample_rate, silence=how.silence, threshold=how.threshold, padding=how.padding
        )
        self.silence = settings.endpoint_silence if how.silence is None else how.silence
        """Seconds of it that end a turn."""
        self._kept_seconds = (settings.endpoint_padding if how.padding is None else how.padding) + _MARGIN
        self._kept: deque[tuple[Audio | Opus, float, float]] = deque()
        """What was not passed on, with its begin and its end."""
        self._taken: deque[tuple[Audio | Opus, float, float]] = deque()
        """What was, and has not been answered."""
        self._samples = 0

    def __repr__(self) -> str:
        return f"<hearing: {self._endpointer!r}, {len(self._kept)} pieces kept>"

    @property
    def now(self) -> float:
        return self._samples / self.sample_rate

    async def feed(self, piece: Audio | Opus, pcm: bytes) -> list[Started | Stopped]:
        """pcm: what `piece` holds, unpacked."""
        begin, self._samples = self.now, self._samples + len(pcm) // 2
        self._kept.append((piece, begin, self.now))
        return await self._endpointer.feed(pcm)

    def forget(self, until: float) -> None:
        """Drops what was before `until`; a page as a whole, once all of it was."""
        while self._kept and self._kept[0][2] <= until:
            self._kept.popleft()
        if self._kept:
            piece, begin, end = self._kept[0]
            if isinstance(piece, Audio) and begin < until:
                self._kept[0] = self._cut(piece, begin, until)[1], until, end

    def silent(self) -> None:
        """Drops what is too old to belong to speech that is still to be noticed."""
        self.forget(self.now - self._kept_seconds)

    def take(self, until: float | None = None) -> Iterator[tuple[Audio | Opus, float]]:
        """What is kept and lies before `until`, with its seconds; it is kept no longer."""
        while self._kept and (until is None or self._kept[0][1] < until):
            piece, begin, end = self._kept.popleft()
            if until is not None and end > until and isinstance(piece, Audio):
                piece, rest = self._cut(piece, begin, until)
                self._kept.appendleft((rest, until, end))
                end = until
            self._taken.append((piece, begin, end))
            while end - self._taken[0][1] > _MOST_TAKEN:
                self._taken.popleft()
            yield piece, end - begin

    def take_back(self) -> None:
        """What was taken and not answered is kept again, before all that is."""
        self._kept.extendleft(reversed(self._taken))
        self._taken.clear()

    def answered(self) -> None:
        """What was taken is not wanted again."""
        self._taken.clear()

    # Private

    def _cut(self, piece: Audio, begin: float, at: float) -> tuple[Audio, Audio]:
        """Before and from `at`, which lies inside."""
        size = 2 * round((at - begin) * self.sample_rate)
        return Audio(piece.pcm[:size], piece.sample_rate), Audio(piece.pcm[size:], piece.sample_rate)
