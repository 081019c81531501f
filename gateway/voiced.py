"""A short recording without the silence around what is said in it."""

import asyncio
from pathlib import Path

from gateway.pieces import Manner, Piece, Pieces, cut_out
from gateway.settings import Settings
from gateway.verbs import Recording


async def voiced(recording: Recording, into: Path, settings: Settings) -> tuple[Recording, float] | None:
    """The stretch from the first to the last speech, written to `into`, and where it begins, in seconds; None where
    nobody speaks. recording: of no more than pieces.LONGEST."""
    pieces = Pieces(recording, settings, Manner(), packed=False)
    speech: list[Piece] = []
    while (piece := await pieces.next()) is not None:
        if piece.speech:
            speech.append(piece)
    if not speech:
        return None
    whole = Piece(speech[0].start, speech[-1].end, ())
    return await asyncio.to_thread(cut_out, recording, whole, into), whole.start
