"""A whole recording, cut where its speaker pauses, into pieces that an engine hears one at a time.

Rule 1: the recording stays on disk; of it a block at a time is held, however long it is.
Rule 2: reading and listening happen in one thread of their own, a block for each hop: however many recordings there
are, they take no more than that, and nobody who speaks live waits for it.
Rule 3: a piece is LONGEST at most. It ends in a pause where there is one, else where the sound is least.
Rule 4: what belongs to no piece is no speech, and no engine hears it.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from gateway.endpointing import Endpointer, Started, Stopped
from gateway.segments import quietest
from gateway.settings import Settings
from gateway.verbs import Recording
from gateway.wire import wav

LONGEST = 30.0
"""Seconds."""
_BREATH = 0.2
"""Seconds of silence that part speech from speech within a piece: what times of words keep clear of."""
_LONG_PAUSE = 2.0
"""Seconds of silence that no piece spans."""
_BLOCK = 10.0
"""Seconds of audio read at a time: some 40 ms of work."""
_SEARCHED = 5.0
"""Seconds at the end of a piece without a pause in which the quietest place is looked for."""


@dataclass(frozen=True, slots=True)
class Span:
    start: float
    end: float
    """Seconds from the start of the recording."""


@dataclass(frozen=True, slots=True)
class Piece:
    start: float
    end: float
    """Seconds from the start of the recording."""
    speech: tuple[Span, ...]
    """Where somebody speaks in it; empty where that was not looked for."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to listen, where it is not as the settings say."""

    silence: float | None = None
    """Seconds that part two utterances."""
    threshold: float | None = None
    """Probability of speech."""
    padding: float | None = None
    """Seconds kept around speech."""


class Pieces:
    """Of one recording, in order."""

    def __init__(self, recording: Recording, settings: Settings, manner: Manner, *, packed: bool) -> None:
        self.packed = packed
        """Whether utterances go together into one piece, as many as there is room for; else each is its own. It may be
        changed between two pieces."""
        self._recording = recording
        self._silence = settings.endpoint_silence if manner.silence is None else manner.silence
        padding = settings.endpoint_padding if manner.padding is None else manner.padding
        self._padding = min(padding, LONGEST / 6)
        self._most = LONGEST - 2 * self._padding
        breath = min(_BREATH, self._silence)
        self._ears = Endpointer(
            settings, recording.sample_rate, silence=breath, threshold=manner.threshold, padding=0.0
        )
        self._read = 0
        """Frames that have been listened to."""
        self._spans: list[Span] = []
        """Speech that belongs to no piece yet."""
        self._since: float | None = None
        """Where the speech began that has not ended."""
        self._cut = 0.0
        """Where the last piece ended."""
        self._some = False

    async def next(self) -> Piece | None:
        """None where there is no more. Of a short recording in which nobody seems to speak the engine may judge."""
        loop = asyncio.get_running_loop()
        while (piece := await loop.run_in_executor(_thread(), self._step)) is None:
            if self._over:
                short = self._recording.seconds <= LONGEST
                return self._piece(0.0, self._recording.seconds, []) if short and not self._some else None
        return piece

    # Private

    @property
    def _over(self) -> bool:
        return self._read >= self._recording.frames

    @property
    def _now(self) -> float:
        return self._read / self._recording.sample_rate

    def _step(self) -> Piece | None:
        """In a thread."""
        piece = self._ready()
        if piece is None and not self._over:
            self._listen()
            piece = self._ready()
        return piece

    def _listen(self) -> None:
        """To the next block."""
        pcm = read(self._recording, self._read, round(_BLOCK * self._recording.sample_rate))
        self._read = self._read + len(pcm) // 2 if pcm else self._recording.frames
        edges: list[Started | Stopped] = self._ears.hear(pcm)
        for edge in [*edges, *self._ears.end()] if self._over else edges:
            if isinstance(edge, Started):
                self._since = edge.at
            elif self._since is not None:
                self._spans.append(Span(self._since, edge.at))
                self._since = None

    def _ready(self) -> Piece | None:
        """The next one, where it is certain."""
        speech = [*self._spans, *([] if self._since is None else [Span(self._since, self._now)])]
        if not speech:
            return None
        apart = _LONG_PAUSE if self.packed else self._silence
        pauses = [later.start - one.end for one, later in pairwise(speech)]
        count = 1 + next((at for at, pause in enumerate(pauses) if pause >= apart), len(pauses))
        last = speech[count - 1].end
        if last - speech[0].start > self._most:
            return self._part_of(speech[:count], pauses)
        if count < len(speech) or self._over or (self._since is None and self._now - last >= apart):
            return self._take(speech, count)
        return None

    def _part_of(self, speech: list[Span], pauses: list[float]) -> Piece:
        """Of speech that is too long for one: to its longest pause, best one in the later half of what there is room
        for; without any, to the quietest place."""
        first, horizon = speech[0].start, speech[0].start + self._most
        fits = [at for at, one in enumerate(speech[:-1]) if one.end <= horizon]
        if not fits:
            return self._split(speech[0], horizon)
        late = [at for at in fits if speech[at].end - first >= self._most / 2]
        best = max(late, key=lambda at: pauses[at]) if late else fits[-1]
        return self._take(speech, best + 1)

    def _split(self, span: Span, horizon: float) -> Piece:
        rate = self._recording.sample_rate
        first = round((horizon - _SEARCHED) * rate)
        cut = (first + quietest(read(self._recording, first, round(_SEARCHED * rate)))) / rate
        if self._spans:
            self._spans[0] = Span(cut, span.end)
        else:
            self._since = cut
        return self._piece(max(self._cut, span.start - self._padding), cut, [Span(span.start, cut)])

    def _take(self, speech: list[Span], count: int) -> Piece:
        """Of the first `count`, all but the last of which are over."""
        taken = speech[:count]
        del self._spans[:count]
        last = taken[-1].end
        latest = (last + speech[count].start) / 2 if count < len(speech) else self._recording.seconds
        start = max(self._cut, taken[0].start - self._padding)
        return self._piece(start, min(last + self._padding, latest), taken)

    def _piece(self, start: float, end: float, speech: list[Span]) -> Piece:
        self._cut, self._some = end, True
        return Piece(start, end, tuple(speech))


def read(recording: Recording, first: int, frames: int) -> bytes:
    """Mono s16le, up to `frames` from frame `first` on. Blocks."""
    with recording.path.open("rb") as file:
        start = wav.read_header(file.read(4096), recording.path.stat().st_size).start
        file.seek(start + 2 * first)
        return file.read(2 * min(frames, max(0, recording.frames - first)))


def cut_out(recording: Recording, piece: Piece, path: Path) -> Recording:
    """The piece as a recording of its own. Blocks."""
    rate = recording.sample_rate
    first = round(piece.start * rate)
    pcm = read(recording, first, round(piece.end * rate) - first)
    path.write_bytes(wav.header(rate, len(pcm) // 2) + pcm)
    return Recording(path, rate, len(pcm) // 2)


# Private


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "pieces")
