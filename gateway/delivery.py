"""Narrated speech on its last way: as loud, as high, at the rate and in the format that its client wants."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from gateway.effects import Effects
from gateway.encoding import FORMATS, Encoder, Encoders
from gateway.events import Audio
from gateway.narration import Narrated, SentenceBegin, SentenceEnd


@dataclass(frozen=True, slots=True)
class Wanted:
    format: str
    """A key of encoding.FORMATS."""
    sample_rate: int
    """Hz; a format that cannot carry it gets the next one that it can."""
    gain: float = 1.0
    pitch: float = 1.0
    """As gateway/effects.py has them."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The next bytes of the stream, never none."""

    data: bytes = field(repr=False)
    until: float
    """Seconds of the speech whose sound is in the stream so far, but for what a codec holds back."""


Delivered = SentenceBegin | Packed | SentenceEnd


@asynccontextmanager
async def deliver(
    events: AsyncIterator[Narrated], encoders: Encoders, wanted: Wanted
) -> AsyncIterator[AsyncIterator[Delivered]]:
    """All of a sentence is out before its SentenceEnd, but for what a codec holds back; that comes last."""
    rate = FORMATS[wanted.format].rate(wanted.sample_rate)
    effects = Effects(encoders, rate, gain=wanted.gain, pitch=wanted.pitch)
    async with encoders.open(wanted.format, rate) as encoder:
        try:
            async with aclosing(_packed(events, effects, encoder)) as packed:
                yield packed
        finally:
            await effects.close()


# Private


async def _packed(events: AsyncIterator[Narrated], effects: Effects, encoder: Encoder) -> AsyncGenerator[Delivered]:
    until = 0.0
    async for event in events:
        if isinstance(event, SentenceBegin):
            yield event
            continue
        if isinstance(event, Audio):
            until += len(event.pcm) / 2 / event.sample_rate
            pcm = await effects.feed(event)
        else:
            pcm = await effects.end()
        if data := await encoder.feed(pcm):
            yield Packed(data, until)
        if isinstance(event, SentenceEnd):
            yield event
    rest = await encoder.feed(await effects.end())
    if data := rest + await encoder.end():
        yield Packed(data, until)
