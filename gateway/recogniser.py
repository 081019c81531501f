"""Recognition of a segment: live while it is said, by engines that can; else, or where that breaks, as a whole."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from gateway import cleanup
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineUnavailable
from gateway.events import Transcript
from gateway.segments import RATE, Segment
from gateway.verbs import Live, Recording, Transcribe, Verb
from gateway.wire import wav

log = structlog.get_logger(__name__)


class Recogniser:
    """The verb `transcribe`, and what was found out about it."""

    def __init__(
        self,
        transcribe: Verb[Transcribe, Transcript],
        scratch: Path,
        *,
        hears_live: bool = True,
        at_once: int = 2,
    ) -> None:
        """scratch: where recordings lie for engines that take whole ones only."""
        self._transcribe, self._scratch = transcribe, scratch
        self.hears_live = hears_live
        """Whether it takes audio that is still arriving, as far as we know."""
        self.at_once = at_once
        """How many segments of one stream may be asked for at a time: one, once it had no place for us."""

    async def live(self, segment: Segment, job: Transcribe, partial: Callable[[str], None]) -> Transcript | None:
        """What is said in it; `partial` is told what it may be while it still arrives. None where `whole` is to be
        asked: the engine does not hear live, or broke while it did, or has no place.

        job: what is wanted; its audio is the segment's.
        """
        if not self.hears_live:
            return None
        try:
            return await self._ask(segment, replace(job, audio=Live(segment, RATE)), partial)
        except BadRequest as exc:
            if exc.code != "live_unsupported":
                raise
            self.hears_live = False
        except (EngineBroke, EngineBusy, EngineUnavailable) as exc:
            if isinstance(exc, EngineBusy):
                self.at_once = 1
            log.warning("recognition broken off, trying again", code=exc.code)
        return None

    async def whole(self, segment: Segment, job: Transcribe) -> Transcript:
        """What was said in it, as a recording, once it has ended. Raises what the verb raises."""
        pcm = await segment.whole()
        async with cleanup.workspace(self._scratch) as work:
            path = work / "segment.wav"
            await asyncio.to_thread(_write, path, pcm)
            recording = Recording(path, RATE, len(pcm) // 2)
            return await self._ask(segment, replace(job, audio=recording, partials=False), lambda text: None)

    # Private

    async def _ask(self, segment: Segment, job: Transcribe, partial: Callable[[str], None]) -> Transcript:
        finals: list[Transcript] = []
        async with self._transcribe.session(job) as events:
            async for event in events:
                if event.final:
                    finals.append(event)
                else:
                    partial(joined([*(one.text for one in finals), event.text]))
        return _one(finals, segment.start / RATE)


def joined(texts: Sequence[str]) -> str:
    """One text; words are parted by a blank where their script has them."""
    whole = ""
    for text in filter(None, (text.strip() for text in texts)):
        whole += f" {text}" if whole and not (_unspaced(whole[-1]) or _unspaced(text[0])) else text
    return whole


# Private


def _write(path: Path, pcm: bytes) -> None:
    """Blocks."""
    path.write_bytes(wav.header(RATE, len(pcm) // 2) + pcm)


def _one(finals: Sequence[Transcript], start: float) -> Transcript:
    """All of them as one; its times are moved by `start` seconds."""
    starts = [one.start for one in finals if one.start is not None]
    ends = [one.end for one in finals if one.end is not None]
    return Transcript(
        joined([one.text for one in finals]),
        next((one.language for one in finals if one.language), ""),
        start=min(starts) + start if starts else None,
        end=max(ends) + start if ends else None,
        words=tuple(
            replace(word, start=word.start + start, end=word.end + start) for one in finals for word in one.words
        ),
    )


def _unspaced(letter: str) -> bool:
    """Of Chinese and Japanese, or their punctuation."""
    return "\u3000" <= letter <= "\u30ff" or "\u3400" <= letter <= "\u9fff" or "\uff00" <= letter <= "\uffef"
