"""The cascade's ears: what is said in one turn, cut into segments, each recognised while the next is being said.

Rule 1: silence costs nothing at the recogniser; it is asked only from the moment that somebody speaks.
Rule 2: a segment is bounded (cascade_segments.py), so that an hour of monologue is many of them.
Rule 3: one segment at a time is recognised, in order. Where that is slower than speech, the latest MOST_UNHEARD seconds
are kept, and "…" stands for what is missing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from gateway.adapters.cascade_segments import RATE, Segment, samples
from gateway.endpointing import Started, Stopped
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineUnavailable, GatewayError
from gateway.events import Transcript
from gateway.verbs import Live, Recording, Transcribe, Verb
from gateway.wire import wav

log = structlog.get_logger(__name__)

MOST_UNHEARD = 120.0
_LOOK_BACK = 1.0
"""Seconds kept of silence besides the padding: it takes that long at most to be sure that somebody speaks."""
_UNNOTICED = 10.0
"""Seconds kept for a turn in which no speech was noticed at all; then the recogniser is asked what it thinks."""
_TAIL = 0.2
"""Seconds of the silence behind a segment that belong to it."""
_SHORTEST, _FAINTEST = 0.2, 100
"""A turn in which no speech was noticed is passed over below these: seconds, and the loudest sample (−50 dBFS)."""
_LEFT_OUT = "…"

Workspace = Callable[[], AbstractAsyncContextManager[Path]]
"""A private directory, gone with its block."""


class Ears(Protocol):
    """gateway/endpointing.py Endpointer, of RATE."""

    async def feed(self, pcm: bytes) -> Sequence[Started | Stopped]: ...

    def end(self) -> Sequence[Stopped]: ...


class Recogniser:
    """The verb `transcribe`, and what was found out about it in this conversation."""

    def __init__(self, transcribe: Verb[Transcribe, Transcript], workspace: Workspace) -> None:
        self._transcribe, self._workspace = transcribe, workspace
        self._live = True
        """Whether it takes audio that is still arriving, as far as we know."""

    async def text(self, segment: Segment, language: str, partial: Callable[[str], None]) -> str:
        """What was said in it; `partial` is told what it may be while it still arrives. An engine that does not hear
        live, or breaks while it does, or has no place for it, is asked once more when the segment is whole."""
        if self._live:
            try:
                live = Live(segment, RATE)
                return await self._text(Transcribe(live, language, partials=True), partial)
            except BadRequest as exc:
                if exc.code != "live_unsupported":
                    raise
                self._live = False
            except (EngineBroke, EngineBusy, EngineUnavailable) as exc:
                log.warning("recognition broken off, trying again", code=exc.code)
        pcm = await segment.whole()
        async with self._workspace() as work:
            path = work / "segment.wav"
            await asyncio.to_thread(path.write_bytes, wav.header(RATE, len(pcm) // 2) + pcm)
            return await self._text(Transcribe(Recording(path, RATE, len(pcm) // 2), language), partial)

    async def _text(self, job: Transcribe, partial: Callable[[str], None]) -> str:
        finals: list[str] = []
        async with self._transcribe.session(job) as events:
            async for event in events:
                if event.final:
                    finals.append(event.text)
                else:
                    partial(joined([*finals, event.text]))
        return joined(finals)


class Listening:
    """One turn's audio on its way to text: `feed` as it is said, `end` once, then `text`. `run` is to run meanwhile."""

    def __init__(
        self,
        recogniser: Recogniser,
        ears: Ears,
        *,
        padding: float,
        language: str,
        most_characters: int,
        heard: Callable[[str], None],
    ) -> None:
        """padding: seconds that speech may begin before it is noticed; most_characters: of the text, the latest of
        which are kept; heard: told all of the turn's words so far, each time that they change."""
        self._recogniser, self._ears, self._language = recogniser, ears, language
        self._most, self._heard = most_characters, heard
        self._look_back = samples(padding + _LOOK_BACK)
        self._tape = bytearray()
        self._tape_from = 0
        """Sample that the tape begins with, counted from the first that was fed."""
        self._segment: Segment | None = None
        self._taken = 0
        """Sample up to which segments have been given what was said."""
        self._waiting: deque[Segment] = deque()
        self._more = asyncio.Event()
        self._any = self._ended = self._left_out = False
        self._texts: list[str] = []
        self._error: GatewayError | None = None

    @property
    def begun(self) -> bool:
        """Whether there is anything to recognise yet."""
        return self._any

    async def feed(self, pcm: bytes) -> None:
        """Mono s16le at RATE, whole samples."""
        self._tape += pcm
        self._note(await self._ears.feed(pcm))
        keep = self._look_back if self._any else max(self._look_back, samples(_UNNOTICED))
        surplus = len(self._tape) // 2 - keep
        if surplus > 0:
            del self._tape[: 2 * surplus]
            self._tape_from += surplus

    def end(self) -> None:
        """Nothing more is said in this turn."""
        self._note(self._ears.end())
        self._close(self._now)
        if not self._any and self._loud_enough():
            self._open(self._tape_from)
            self._close(self._now)
        self._ended = True
        self._more.set()

    async def run(self) -> None:
        """Recognises segment after segment. Failures are for `text` to raise."""
        while (segment := await self._next()) is not None:
            try:
                text = await self._recogniser.text(segment, self._language, self._partial)
            except GatewayError as exc:
                self._error = exc
                return
            except Exception:
                log.exception("recognition failed")
                self._error = GatewayError()
                return
            self._keep(text)
            if self._waiting:  # a sign of life: there may be minutes of it to recognise yet
                self._partial("")

    def text(self) -> str:
        """All that was said, after `run`. Empty where there were no words. Raises what recognition raised."""
        if self._error is not None:
            raise self._error
        return self._joined("")

    # Private

    @property
    def _now(self) -> int:
        return self._tape_from + len(self._tape) // 2

    def _note(self, moments: Sequence[Started | Stopped]) -> None:
        for moment in moments:
            if isinstance(moment, Started):
                self._open(samples(moment.at))
            else:
                self._close(min(self._now, samples(moment.at + _TAIL)))
        if self._segment is not None:
            self._give(self._now)

    def _open(self, at: int) -> None:
        """A segment begins at that sample; what an earlier one was given is not given again."""
        self._any = True
        self._taken = max(self._taken, self._tape_from, at)
        self._begin_segment()

    def _begin_segment(self) -> Segment:
        self._segment = Segment()
        self._waiting.append(self._segment)
        self._more.set()
        return self._segment

    def _close(self, at: int) -> None:
        if self._segment is not None:
            self._give(at)
            self._segment.end()
            self._segment = None

    def _give(self, until: int) -> None:
        assert self._segment is not None
        if until > self._taken:
            begin = 2 * (self._taken - self._tape_from)
            segment = self._begin_segment() if self._segment.ended else self._segment  # it was idle for too long
            rest = segment.add(bytes(self._tape[begin : begin + 2 * (until - self._taken)]))
            self._taken = until
            while rest:
                rest = self._begin_segment().add(rest)
        while len(self._waiting) > 1 and sum(one.seconds for one in self._waiting) > MOST_UNHEARD:
            self._waiting.popleft()
            self._left_out = True

    async def _next(self) -> Segment | None:
        while not self._waiting:
            if self._ended:
                return None
            self._more.clear()
            await self._more.wait()
        return self._waiting.popleft()

    def _keep(self, text: str) -> None:
        if text.strip():
            self._texts.append(text.strip())
        while len(self._texts) > 1 and sum(map(len, self._texts)) > self._most:
            del self._texts[0]
            self._left_out = True

    def _partial(self, text: str) -> None:
        self._heard(self._joined(text))

    def _joined(self, last: str) -> str:
        text = joined([*self._texts, last])[-self._most :]
        return f"{_LEFT_OUT} {text}" if text and self._left_out else text

    def _loud_enough(self) -> bool:
        if len(self._tape) // 2 < samples(_SHORTEST):
            return False
        return int(np.abs(np.frombuffer(self._tape, "<i2").astype(np.int32)).max()) >= _FAINTEST


def joined(texts: Sequence[str]) -> str:
    """One text; words are parted by a blank where their script has them."""
    whole = ""
    for text in filter(None, (text.strip() for text in texts)):
        whole += f" {text}" if whole and not (_unspaced(whole[-1]) or _unspaced(text[0])) else text
    return whole


def _unspaced(letter: str) -> bool:
    """Of Chinese and Japanese, or their punctuation."""
    return "\u3000" <= letter <= "\u30ff" or "\u3400" <= letter <= "\u9fff" or "\uff00" <= letter <= "\uffef"
