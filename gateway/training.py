"""What an upload holds of a voice: decoded, and the cleanest of its speech."""

import hashlib
from pathlib import Path

from gateway import reference
from gateway.state import State
from gateway.upload import Saved
from gateway.verbs import Recording


async def reference_of(state: State, source: Saved, work: Path) -> tuple[bytes, str]:
    """(Mono s16le PCM at reference.RATE, its digest); what the same bytes gave before is not made again.

    work: the request's folder. Raises AudioRejected, EngineBusy where too many wait for a decoder."""
    settings = state["settings"]
    depends = (reference.VERSION, settings.reference_keep_seconds, settings.reference_min_speech_seconds, source.digest)
    digest = hashlib.sha256(repr(depends).encode()).hexdigest()
    async with state["references"].hold(digest):
        if (pcm := await state["voices"].known(digest)) is None:
            _, pcm = await heard(state, source, work / "reference.wav")
    return pcm, digest


async def heard(state: State, source: Saved, into: Path) -> tuple[Recording, bytes]:
    """All of a recording, which holds enough speech for a voice, and the best of that. Raises as reference_of."""
    settings = state["settings"]
    async with state["decoding"].enter():
        recording = await state["decoder"].to_wav(source.path, into, max_seconds=settings.reference_max_seconds)
        return recording, await reference.keep_best(recording, settings)
