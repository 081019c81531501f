"""A backend that does as it is told: slow, chatty or failing, without a model. It keeps upstream's shape: a step is
some text and five codes, 200 ms of speech; the vocoder works in hops of 15 codes and looks three ahead.

What it says tells what reached it: for how long and at what pitch somebody spoke, and which turn it was; its voice is a
tone of that same pitch. A persona that is a JSON object changes the script for the turn: {"say": 3, "fail": 1}.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from engines.s2s.backends import (
    RATE,
    VOCODER_RATE,
    Asked,
    Call,
    Codes,
    Failed,
    Refused,
    Samples,
    Thinker,
    Thought,
    Vocoder,
    Words,
)

STEP = 0.2
"""Seconds of speech."""
_CODES = 5
"""In a step."""
_HOP, _AHEAD = 15, 3
_SAMPLES = VOCODER_RATE // 25
"""Of a code."""
_MOST_HERTZ = 6560
"""The highest code."""
_LONGEST = 100.0
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NEVER = -1.0


@dataclass(frozen=True, slots=True)
class Script:
    say: float = 0.0
    """Seconds of the reply; 0 for as long as the user spoke."""
    pause: float = 0.0
    """Seconds before each step."""
    chatter: float = 1.0
    """Pieces of text in each step."""
    fail: float = _NEVER
    """At which second of the reply it fails."""
    hang: float = _NEVER
    """At which second it says nothing more, and does not even stop when told to."""
    die: float = _NEVER
    """At which second its process ends."""
    mute: float = _NEVER
    """At which second the vocoder fails."""


def options(parser: "argparse._ActionsContainer") -> None:
    """Adds those of the script."""
    for field in fields(Script):
        parser.add_argument(f"--{field.name}", type=float, default=field.default, metavar="NUMBER")


def told(asked: argparse.Namespace) -> list[str]:
    """The same options, as a worker is given them."""
    return [f"--{field.name}={getattr(asked, field.name)}" for field in fields(Script)]


class Scripted:
    """The words, and codes that are the pitch of the reply in hertz."""

    model = "scripted"
    device = "cpu"

    def __init__(self, said: Sequence[str]) -> None:
        self._script = _read(said)

    def load(self) -> None:
        pass

    def think(self, asked: Asked, stopped: Callable[[], bool]) -> Generator[Thought, None, None]:
        script = _told(self._script, asked.persona)
        seconds, pitch = len(asked.said.audio) / RATE, _pitch(asked.said.audio)
        lasts = min(script.say or max(seconds, 2 * STEP), _LONGEST)
        words = _words(asked, seconds, pitch)
        for step in range(max(1, round(lasts / STEP))):
            _act(script, step * STEP)
            _wait(script.pause, stopped)
            if stopped():
                return
            for piece in itertools.islice(words, round(script.chatter)):
                yield Words(piece)
            if asked.speech:
                yield Codes((pitch,) * _CODES)
        if asked.tools and not asked.said.results:
            yield Call("call-1", str(asked.tools[0]["function"]["name"]), "{}")


class Tones:
    """Codes as the tones that they name."""

    model = "scripted tones"
    device = "cpu"
    voices = ("中文女", "中文男")
    """The second has an octave above its tone."""

    def __init__(self, said: Sequence[str]) -> None:
        self._script = _read(said)
        self._streams: dict[int, _Stream] = {}

    def load(self) -> None:
        pass

    def open(self, stream: int, voice: str) -> None:
        self._streams[stream] = _Stream(self.voices.index(voice))

    def feed(self, stream: int, codes: Sequence[int], last: bool) -> Samples:
        found = self._streams[stream].feed(codes, last)
        if 0 <= self._script.mute <= self._streams[stream].said / VOCODER_RATE:
            raise Failed("the vocoder fails as it was told to")
        return found

    def close(self, stream: int) -> None:
        self._streams.pop(stream, None)


class _Stream:
    def __init__(self, octaves: int) -> None:
        self._octaves = octaves
        self._codes: list[int] = []
        self._phase = 0.0
        self.said = 0
        """Samples."""

    def feed(self, codes: Sequence[int], last: bool) -> Samples:
        self._codes += codes
        ready = len(self._codes) if last else max(0, (len(self._codes) - _AHEAD) // _HOP * _HOP)
        tones, self._codes = self._codes[:ready], self._codes[ready:]
        self.said += ready * _SAMPLES
        return self._sound(tones)

    def _sound(self, tones: Sequence[int]) -> Samples:
        if not tones:
            return np.zeros(0, np.float32)
        phases = self._phase + np.cumsum(np.repeat(np.asarray(tones, np.float64), _SAMPLES)) * (
            2 * np.pi / VOCODER_RATE
        )
        self._phase = float(phases[-1] % (2 * np.pi))
        wave = 0.3 * np.sin(phases)
        if self._octaves:
            wave += 0.2 * np.sin(2 * phases)
        return wave.astype(np.float32)


# Private


def _read(said: Sequence[str]) -> Script:
    parser = argparse.ArgumentParser()
    options(parser)
    return Script(**vars(parser.parse_args(said)))


def _told(script: Script, persona: str) -> Script:
    if not persona.startswith("{"):
        return script
    try:
        found = json.loads(persona)
        return replace(script, **{name: float(value) for name, value in found.items()})
    except (ValueError, TypeError):
        raise Refused("the persona begins like a script and is none") from None


def _pitch(samples: Samples) -> int:
    """Hz, of what is loudest; 440 where nothing is."""
    if not len(samples) or not np.any(samples):
        return 440
    spectrum = np.abs(np.fft.rfft(samples))
    found = int(round(float(np.argmax(spectrum)) * RATE / len(samples)))
    return min(max(found, 100), _MOST_HERTZ)


def _words(asked: Asked, seconds: float, pitch: int) -> Generator[str, None, None]:
    """Pieces without end: what reached it, and then numbers."""
    turn = len(asked.history) + 1
    if asked.said.results:
        yield f"{turn}: the results are {', '.join(one.output for one in asked.said.results)}."
    elif asked.said.text:
        yield f"{turn}: you wrote {asked.said.text}."
    else:
        yield f"{turn}: you spoke for {seconds:.2f} s at {pitch} Hz."
    for number in itertools.cycle(_NUMBERS):
        yield f" {number}"


def _act(script: Script, at: float) -> None:
    if 0 <= script.fail <= at:
        raise Failed("the reply fails as it was told to")
    if 0 <= script.die <= at:
        os._exit(1)
    while 0 <= script.hang <= at:
        time.sleep(0.1)


def _wait(seconds: float, stopped: Callable[[], bool]) -> None:
    """A model's step is not interrupted; a script's long one would make tests slow."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stopped():
        time.sleep(min(left, 0.02))


_: type[Thinker] = Scripted
__: type[Vocoder] = Tones
