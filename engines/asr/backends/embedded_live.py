"""Live recognition with pocketsphinx: its endpointer finds utterances, a decoder writes them down as they are said.

A decoder holds one utterance at a time and 90 MB, so a stream has one only while somebody speaks in it. Where all are
taken, an utterance waits and is caught up with, or is over by then: the second pass gives its text. Who has no second
pass gets every word, from a spare decoder.

The decoder keeps to what it finds while it goes along: its own further passes, at the end of an utterance, would stop
all other streams for a time that grows with its length, and take back words that were said already.
"""

from collections import deque
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from engines.asr.backends.embedded_decoders import FIRST, Decoders
from engines.asr.live.backend import Asked, LiveBackend
from engines.asr.live.events import Began, Delta, Ended, Event
from engines.asr.live.tape import Samples, Tape, at, milliseconds
from engines.asr.live.utterances import Utterances

END_SILENCE = 600
"""Milliseconds of silence that end an utterance; in a recording, too, what is less apart is decoded as one."""
_PAD = 200
"""Milliseconds kept after an utterance, for the soft sounds that words end with."""
_FRAME, _CHUNK, _LOOK = at(30), at(20), at(100)
"""Samples: what the endpointer judges, what the decoder is given, and how often it is asked what it has."""
_LOOKS = 4
"""A word is said once it has been there for so many looks. In 24 recordings one of 116 words was wrong then, with
three looks four were, and of words that are said at once, two of three."""
_CATCH_UP = at(2000)
"""Samples that one call decodes at the most: the others wait meanwhile."""
_REACH = at(2000)
"""How far back an utterance may begin when it is noticed: a third of a second, and what is kept before it."""


class EmbeddedLive:
    model = f"pocketsphinx {version('pocketsphinx')} en-us"
    device = "cpu"

    def __init__(self) -> None:
        self._decoders = Decoders()
        self._streams: dict[int, _Stream] = {}

    def load(self) -> None:
        self._decoders.load()

    def open(self, number: int, asked: Asked) -> None:
        self._streams[number] = _Stream(self._decoders, asked)

    def feed(self, number: int, samples: Samples, last: bool) -> list[Event]:
        return list(self._streams[number].feed(samples, last))

    def close(self, number: int) -> None:
        if stream := self._streams.pop(number, None):
            stream.close()


class _Stream:
    def __init__(self, decoders: Decoders, asked: Asked) -> None:
        import pocketsphinx

        self._decoders, self._asked = decoders, asked
        self._ears = pocketsphinx.Endpointer(vad_mode=pocketsphinx.Vad.MEDIUM_STRICT)
        self._tape, self._utterances = Tape(), Utterances()
        self._seen = 0
        """Place: what the endpointer has been given up to."""
        self._quiet: int | None = None
        """Milliseconds: where the running utterance ends, if nothing more is said."""
        self._writer: _Writer | None = None

    def feed(self, samples: Samples, last: bool) -> Iterator[Event]:
        self._tape.add(samples)
        while self._tape.end - self._seen >= _FRAME:
            yield from self._step(self._tape.cut(self._seen, self._seen + _FRAME))
        if last:
            rest = self._tape.cut(self._seen, self._tape.end)
            yield from self._step(np.pad(rest, (0, _FRAME - len(rest))))
            for event in self._utterances.finish(milliseconds(self._seen)):
                yield from self._follow(event)
        elif self._writer is not None:
            yield from self._writer.write(self._tape, self._seen)
        needed = self._seen - _REACH
        self._tape.forget(needed if self._writer is None else min(needed, self._writer.place))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.drop()

    # Private

    def _step(self, frame: Samples) -> Iterator[Event]:
        spoke = self._ears.in_speech
        self._ears.process(_pcm(frame))
        self._seen = min(self._seen + _FRAME, self._tape.end)
        for event in self._utterances.heard(list(self._found(spoke)), milliseconds(self._seen)):
            yield from self._follow(event)

    def _found(self, spoke: bool) -> Iterator[tuple[int, int]]:
        """What the endpointer's last frame means, as Utterances take it. spoke: whether there was speech before."""
        if self._ears.in_speech:
            self._quiet = None
            if self._utterances.start is None:
                yield int(self._ears.speech_start * 1000), -1
        elif spoke:
            self._quiet = int(self._ears.speech_end * 1000)
        if self._quiet is not None and milliseconds(self._seen) - self._quiet >= END_SILENCE:
            yield -1, self._quiet + _PAD
            self._quiet = None

    def _follow(self, event: Began | Ended) -> Iterator[Event]:
        if isinstance(event, Began):
            self._writer = _Writer(self._decoders, self._asked, at(event.start)) if self._asked.deltas else None
        elif self._writer is not None:
            yield from self._writer.finish(self._tape, at(event.end))
            self._writer = None
        yield event


class _Writer:
    """One utterance, becoming words."""

    def __init__(self, decoders: Decoders, asked: Asked, place: int) -> None:
        self._decoders, self._last_words = decoders, asked.last_words
        self.place = place
        """What has been decoded up to."""
        self._decoder: Any = None
        self._begun = place
        self._looks: deque[list[str]] = deque(maxlen=_LOOKS)
        self._said = 0
        """Words."""

    def write(self, tape: Tape, until: int) -> Iterator[Delta]:
        """Decodes what there is, in whole chunks, as far as one call may and a decoder can be had."""
        if self._decoder is None and until - self._begun >= FIRST:
            self._decoder = self._decoders.take(self._first(tape, until))
        if self._decoder is not None:
            yield from self._decode(tape, min(until, self.place + _CATCH_UP))

    def finish(self, tape: Tape, end: int) -> Iterator[Delta]:
        """The utterance ends; so does its need for a decoder."""
        if self._last_words:
            self._decoder = self._decoder or self._decoders.take(self._first(tape, end), spare=True)
            yield from self._decode(tape, end)
            if rest := _pcm(tape.cut(self.place, end)):
                self._decoder.process_raw(rest)
            self._decoder.end_utt()
            yield from self._say(words := self._words(), len(words))
            self._decoders.give_back(self._decoder)
        else:
            yield from self.write(tape, end)
            self.drop()

    def drop(self) -> None:
        """Nobody wants the rest."""
        if self._decoder is not None:
            self._decoder.end_utt()
            self._decoders.give_back(self._decoder)
            self._decoder = None

    # Private

    def _first(self, tape: Tape, until: int) -> bytes:
        return _pcm(tape.cut(self._begun, min(until, self._begun + FIRST)))

    def _decode(self, tape: Tape, until: int) -> Iterator[Delta]:
        while until - self.place >= _CHUNK:
            self._decoder.process_raw(_pcm(tape.cut(self.place, self.place + _CHUNK)))
            self.place += _CHUNK
            if (self.place - self._begun) % _LOOK == 0:
                yield from self._look()

    def _look(self) -> Iterator[Delta]:
        self._looks.append(words := self._words())
        if len(self._looks) == _LOOKS:
            same = 0
            for found in zip(*self._looks, strict=False):
                if len({*found}) > 1:
                    break
                same += 1
            yield from self._say(words, same)

    def _say(self, words: list[str], certain: int) -> Iterator[Delta]:
        """What is not said yet of the first `certain` words. What was said stays, right or wrong."""
        if certain > self._said:
            yield Delta(" " * (self._said > 0) + " ".join(words[self._said : certain]))
            self._said = certain

    def _words(self) -> list[str]:
        found = self._decoder.hyp()
        return [word.partition("(")[0] for word in found.hypstr.split()] if found else []


def _pcm(samples: Samples) -> bytes:
    return bytes(np.clip(samples * 32768, -32768, 32767).astype("<i2"))


_: type[LiveBackend] = EmbeddedLive
