"""The pocketsphinx decoders of a live worker: few, made when they are needed, and kept."""

import warnings
from typing import Any

from engines.asr.live.tape import at

MOST = 4
"""In one process, the spare one aside. A decoder holds 90 MB, and takes 0.08 s for a second of speech."""
FIRST = at(500)
"""Samples of an utterance whose cepstral mean, with as much of a usual one, it is decoded with."""
_USUAL = "50.5005,-0.125138,12.8322,24.9924,10.2048,2.30502,7.18819,-11.35,-9.716,-10.753,12.9414,0.659384,4.56093"
"""After twenty clear sentences of one voice. Of that voice 5 % of words are wrong with it, with or without the
utterance's own; of two other voices 20 and 25 % without, and 15 and 13 % with. The mean of the utterance before does no
better, and this way no utterance depends on another."""


class Decoders:
    def __init__(self) -> None:
        self._idle: list[Any] = []
        self._means: Any = None
        self.lent = 0

    def __repr__(self) -> str:
        return f"<decoders: {self.lent} lent, {len(self._idle)} idle>"

    def load(self) -> None:
        """The first one, so that what is wrong with the model shows at once."""
        self._means = _new(lm=None, keyphrase="hello")  # looks for one phrase only, and costs next to nothing
        self._idle.append(_for_speech())

    def take(self, first: bytes, *, spare: bool = False) -> Any:
        """A decoder for an utterance that begins like this; None where all are lent, unless it may be a spare one."""
        if self.lent >= MOST and not spare:
            return None
        decoder = self._idle.pop() if self._idle else _for_speech()
        _forget(decoder)
        decoder.set_cmn(_between(self._mean(first), _USUAL))
        decoder.start_utt()
        self.lent += 1
        return decoder

    def give_back(self, decoder: Any) -> None:
        """One whose utterance has ended."""
        self.lent -= 1
        if self.lent + len(self._idle) < MOST:
            self._idle.append(decoder)

    # Private

    def _mean(self, pcm: bytes) -> str:
        if not pcm:
            return _USUAL
        _forget(self._means)
        self._means.start_utt()
        self._means.process_raw(pcm, no_search=True, full_utt=True)
        self._means.end_utt()
        found = str(self._means.get_cmn())
        return _USUAL if "nan" in found else found  # nothing but zeros


def _new(**options: Any) -> Any:
    import pocketsphinx

    return pocketsphinx.Decoder(loglevel="FATAL", **options)


def _for_speech() -> Any:
    return _new(fwdflat=False, bestpath=False)


def _forget(decoder: Any) -> None:
    """Noise statistics would carry over from what was decoded before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "unnecessary", it says
        decoder.start_stream()


def _between(one: str, other: str) -> str:
    pairs = zip(one.split(","), other.split(","), strict=True)
    return ",".join(f"{(float(mine) + float(usual)) / 2:.6g}" for mine, usual in pairs)
