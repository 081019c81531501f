"""Which part of what a microphone sends is passed on: to the sample where it is PCM, in whole pages where it is not."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import Audio, Opus
from gateway.hearing import Hearing
from gateway.settings import Settings

RATE = 8000
SECONDS = st.integers(0, 24_000).map(lambda samples: samples / RATE)


def noise(samples: int) -> bytes:
    """Too soft to be speech, and no two samples in a row alike."""
    return np.random.default_rng(3).integers(-9, 9, samples).astype("<i2").tobytes()


async def fed(sizes: list[int]) -> tuple[Hearing, bytes]:
    hearing, pcm, at = Hearing(Settings(), RATE), noise(sum(sizes)), 0
    for size in sizes:
        piece = pcm[2 * at : 2 * (at + size)]
        await hearing.feed(Audio(piece, RATE), piece)
        at += size
    return hearing, pcm


def joined(hearing: Hearing, until: float | None = None) -> bytes:
    taken = list(hearing.take(until))
    assert sum(seconds for _, seconds in taken) == pytest.approx(sum(_length(piece) for piece, _ in taken))
    return b"".join(piece.pcm for piece, _ in taken if isinstance(piece, Audio))


def _length(piece: Audio | Opus) -> float:
    return len(piece.pcm) / 2 / RATE if isinstance(piece, Audio) else 0.0


@given(sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=8), begin=SECONDS, end=SECONDS)
def test_pcm_is_cut_to_the_sample_however_it_came(sizes: list[int], begin: float, end: float) -> None:
    async def check() -> None:
        hearing, pcm = await fed(sizes)
        hearing.forget(begin)
        first, last = 2 * round(begin * RATE), 2 * round(end * RATE)
        assert joined(hearing, end) == pcm[first:last]
        assert joined(hearing) == pcm[max(first, last) if last > first else first :]
        assert hearing.now == sum(sizes) / RATE

    asyncio.run(check())


async def test_a_page_is_kept_as_long_as_any_of_it_is_wanted() -> None:
    hearing, pages = Hearing(Settings(), RATE), [Opus(bytes([number])) for number in range(5)]
    for page in pages:
        await hearing.feed(page, noise(RATE // 10))
    hearing.forget(0.15)
    assert [page for page, _ in hearing.take(0.25)] == pages[1:3]
    assert [page for page, _ in hearing.take()] == pages[3:]


async def test_silence_is_forgotten_but_for_what_may_turn_out_to_be_speech() -> None:
    settings = Settings()
    hearing, pcm = Hearing(settings, RATE), noise(10 * RATE)
    for at in range(0, len(pcm), 640):
        await hearing.feed(Audio(pcm[at : at + 640], RATE), pcm[at : at + 640])
        hearing.silent()
    kept = joined(hearing)
    assert pcm.endswith(kept)
    assert settings.endpoint_padding + 0.5 < len(kept) / 2 / RATE < settings.endpoint_padding + 1.5
