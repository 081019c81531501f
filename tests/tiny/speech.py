"""Mandarin that tests speak to recognisers: espeak-ng's, which never says a thing twice the same way."""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000
SENTENCES = ("今天天气很好", "你好世界", "请打开灯", "我们去公园吧", "明天上午九点开会", "谢谢你的帮助")
"""What a trained model knows."""
HELD_OUT = ((165, 50), (175, 60))
"""Words per minute and pitch of the ways to say them that no model was trained on."""

Clip = NDArray[np.float32]
"""At 16 kHz, within -1 and 1."""


CACHE = Path(__file__).resolve().parents[2] / ".cache" / "tiny"
"""What tests make once and keep."""


def say(text: str, rate: int = HELD_OUT[0][0], pitch: int = HELD_OUT[0][1], voice: str = "cmn") -> Clip:
    """As `spoken`, but the same each time: what was said once is kept."""
    name = hashlib.sha256(repr((text, rate, pitch, voice)).encode()).hexdigest()[:16]
    kept = CACHE / "said" / f"{name}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(fresh, spoken(text, rate, pitch, voice))
        fresh.replace(kept)
    return np.asarray(np.load(kept), np.float32)


def spoken(text: str, rate: int, pitch: int, voice: str = "cmn") -> Clip:
    """As espeak-ng speaks it: `rate` in words per minute, `pitch` 0 to 100."""
    espeak = _espeak()
    samples = espeak.say(text, voice, rate, pitch, lambda: False).astype("f4") / 32768
    return np.asarray(soxr.resample(samples, espeak.sample_rate, RATE), np.float32)


def silence(seconds: float) -> Clip:
    return np.zeros(round(seconds * RATE), np.float32)


def pcm(*clips: Clip) -> bytes:
    """The clips one after the other, as s16le."""
    return (np.clip(np.concatenate(clips), -1, 1) * 32767).astype("<i2").tobytes()


# Private


@cache
def _espeak() -> Any:
    import espeakng_loader

    from engines.tts.backends.espeak import Espeak

    return Espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))
