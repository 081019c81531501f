"""Keeps voices at the other end of the room from beginning an utterance, and never makes anybody deaf.

Rule 1: it decides only whether an utterance may begin. Once somebody speaks, all that follows is kept, however soft.
Rule 2: what is loud enough brings with it what was just before: the soft sounds that words begin with.
Rule 3: what is held back becomes silence of the same length, so that every time stays true.
"""

import numpy as np

from gateway.settings import Settings

WINDOW = 0.04
"""Seconds over which loudness is measured."""
WHILE_OPEN = 0.6
"""Of the threshold: what is loud enough once something was."""
HOLD = 1.0
"""Seconds that it stays open after the last loud window while nobody speaks: it takes the endpointer a part of that to
notice speech."""
_MARGIN = 0.1
"""Seconds kept besides the endpointer's padding."""


class NearField:
    """One stream of mono s16le."""

    def __init__(self, settings: Settings, sample_rate: int) -> None:
        """sample_rate: Hz."""
        self._threshold = settings.nearfield_threshold * 32768
        self._window = 2 * round(WINDOW * sample_rate)
        """Bytes."""
        self._kept = 2 * round((settings.endpoint_padding + _MARGIN) * sample_rate)
        self._patience = round(HOLD / WINDOW)
        self._quiet = 0
        """Windows since the last loud one."""
        self._pending = bytearray()
        self._held = bytearray()
        self.open = False

    def __repr__(self) -> str:
        return f"<near field: {'open' if self.open else 'closed'}, {len(self._held)} bytes held>"

    def feed(self, pcm: bytes, speaking: bool) -> bytes:
        """What may be heard now: all of it while it is open; else what was fed some 0.4 s ago, as silence.

        speaking: whether an utterance has begun and not ended. A second takes 0.3 ms.
        """
        self._pending += pcm
        found = bytearray()
        whole = len(self._pending) // self._window * self._window
        for at in range(0, whole, self._window):
            found += self._take(bytes(self._pending[at : at + self._window]), speaking)
        del self._pending[:whole]
        return bytes(found)

    def end(self) -> bytes:
        """The rest of the stream."""
        rest = bytes(self._pending) if self.open else bytes(len(self._held) + len(self._pending))
        self._held.clear()
        self._pending.clear()
        return rest

    # Private

    def _take(self, window: bytes, speaking: bool) -> bytes:
        samples = np.frombuffer(window, "<i2").astype(np.float32)
        loudness = float(np.sqrt(np.mean(samples * samples)))
        if not self.open and not speaking and loudness < self._threshold:
            self._held += window
            late = max(0, len(self._held) - self._kept)
            del self._held[:late]
            return bytes(late)
        found = bytes(self._held) + window
        self._held.clear()
        self._quiet = 0 if loudness >= self._threshold * WHILE_OPEN else self._quiet + 1
        self.open = speaking or self._quiet < self._patience
        return found
