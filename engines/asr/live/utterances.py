"""Where in a stream somebody speaks: what a VAD says, made into utterances that are long enough and not too long."""

from collections.abc import Iterator, Sequence

from engines.asr.live.events import Began, Ended

LONGEST = 30_000
"""Milliseconds; recognisers take no more at once."""
PRE_ROLL = 100
"""Kept before what the VAD calls the start, for the soft sounds that words begin with."""


class Utterances:
    """Times in milliseconds from the start of the stream."""

    def __init__(self) -> None:
        self.start: int | None = None
        """Of the running utterance."""
        self.end = 0
        """Of the last one: no utterance reaches back into it."""

    def heard(self, value: Sequence[Sequence[int]], now: int) -> Iterator[Began | Ended]:
        """value: the VAD's [begin, -1], [-1, end] and [begin, end]. now: how much it has been given."""
        for begin, end in value:
            if begin >= 0 and self.start is None:
                yield self._begin(min(begin, now))
            if end >= 0 and self.start is not None:
                yield from self._cut(min(end, now))
                yield self._finish(min(end, now))
        yield from self._cut(now)

    def finish(self, now: int) -> Iterator[Began | Ended]:
        """The end of the stream ends an utterance that runs."""
        yield from self._cut(now)
        if self.start is not None:
            yield self._finish(now)

    # Private

    def _cut(self, now: int) -> Iterator[Began | Ended]:
        """Nobody pauses for us."""
        while self.start is not None and now - self.start > LONGEST:
            cut = self.start + LONGEST
            yield self._finish(cut)
            yield self._begin(cut)

    def _begin(self, at: int) -> Began:
        self.start = max(self.end, at - PRE_ROLL)
        return Began(self.start)

    def _finish(self, end: int) -> Ended:
        assert self.start is not None
        ended = Ended(self.start, max(end, self.start))
        self.start, self.end = None, ended.end
        return ended
