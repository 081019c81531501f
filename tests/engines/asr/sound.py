"""Speech to recognise: made by flite, recorded from people, and what is not speech at all."""

import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr

from gateway.wire import wav
from tests.engines.asr import flite

RATE = 16_000
PEOPLE = Path(__file__).resolve().parents[4] / "shared" / "audio"
SENTENCES = ("hello world", "stop the music", "what time is it", "how are you today", "the weather is very nice today")
"""Heard exactly, whichever flite voice says them."""


@cache
def say(text: str) -> bytes:
    """Mono s16le at 16 kHz."""
    made = subprocess.run([sys.executable, "-S", flite.__file__, text], capture_output=True, check=False)
    if made.returncode == flite.NO_FLITE:
        pytest.skip(f"needs libflite: {made.stderr.decode().strip()}")
    assert made.returncode == 0, made.stderr
    return made.stdout


def person_file(name: str) -> bytes:
    """A recording of a human voice, as it is."""
    path = PEOPLE / name
    if not path.exists():
        pytest.skip(f"needs the recording {name}")
    return path.read_bytes()


def person(name: str) -> bytes:
    """A recording of a human voice; mono s16le at 16 kHz."""
    body = person_file(name)
    head = wav.read_header(body[:4096], len(body))
    samples = np.frombuffer(body, "<i2", head.frames, head.start).astype("f4") / 32768
    heard = soxr.resample(samples, head.sample_rate, RATE)
    return bytes((np.clip(heard, -1, 1) * 32767).astype("<i2"))


def silence(seconds: float) -> bytes:
    return bytes(2 * int(RATE * seconds))


def noise(seconds: float, dbfs: float) -> bytes:
    loud = np.random.default_rng(0).normal(0, 32767 * 10 ** (dbfs / 20), int(RATE * seconds))
    return np.clip(loud, -32768, 32767).astype("<i2").tobytes()


def as_wav(pcm: bytes, rate: int = RATE) -> bytes:
    return wav.header(rate, len(pcm) // 2) + pcm


def any_wav(data: bytes, kind: int, channels: int, rate: int, bits: int, extra: bytes = b"") -> bytes:
    """A WAV file of any sample format; `extra` goes to the end of its fmt chunk."""
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits) + extra
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + struct.pack("<4sI", b"data", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
