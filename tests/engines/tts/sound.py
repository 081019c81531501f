"""Speech made by the engine itself, and the few ways in which the tests look at it."""

import io
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np

from engines.tts.backends import Backend
from engines.tts.job import Job, Prompt, Samples
from gateway.wire import cosyvoice

RATE = 22_050
SHARED = Path(__file__).parents[4] / "shared" / "audio"


def spoken(
    backend: Backend, text: str, *, speaker: str = "中文女", prompt: Prompt | None = None, **more: Any
) -> Samples:
    """-1..1 at RATE Hz."""
    mode = cosyvoice.ZERO_SHOT if prompt else cosyvoice.SFT
    job = Job(mode=mode, text=text, speaker=speaker, prompt=prompt, **more)
    return from_pcm(b"".join(backend.speak(job, lambda: False)))


def from_pcm(data: bytes) -> Samples:
    samples: Samples = np.divide(np.frombuffer(data, "<i2"), 32_768, dtype=np.float32)
    return samples


def prompt(samples: Samples, rate: int = RATE) -> Prompt:
    return Prompt(wav_of(samples, rate), samples, rate)


def wav_of(samples: Samples, rate: int = RATE, channels: int = 1) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return held.getvalue()


def tone(hertz: float, seconds: float, rate: int = RATE) -> Samples:
    at = np.arange(int(seconds * rate)) / rate
    return np.asarray(sum(np.sin(2 * np.pi * hertz * n * at) / (4 * n) for n in range(1, 6)), np.float32)


def recorded(name: str) -> tuple[Samples, int]:
    """A mono WAV of 16-bit or float samples in the shared folder."""
    data = (SHARED / name).read_bytes()
    kind, _, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, data.index(b"fmt ") + 8)
    start = data.index(b"data") + 8
    whole = data[start : start + (len(data) - start) // (bits // 8) * (bits // 8)]
    return (np.frombuffer(whole, "<f4").copy(), rate) if kind == 3 else (from_pcm(whole), rate)
