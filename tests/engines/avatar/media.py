"""Small real recordings and videos, and what a video really holds."""

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np

from gateway.wire import wav


@cache
def _made(*arguments: str) -> bytes:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-nostdin", *arguments, "-f", "matroska", "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def template(path: Path, seconds: float = 1.6, size: str = "160x90", rate: int = 25) -> Path:
    """A video whose frames all differ: its brightness grows steadily from black to white."""
    ramp = f"color=black:s={size}:r={rate}:d={seconds},geq=lum='255*T/{seconds}':cb=128:cr=128"
    path.write_bytes(_made("-f", "lavfi", "-i", ramp, "-c:v", "libx264", "-qp", "10", "-pix_fmt", "yuv420p"))
    return path


def recording(path: Path, seconds: float = 2.5, rate: int = 16_000) -> Path:
    """A tone of 440 Hz that grows louder."""
    t = np.arange(round(seconds * rate)) / rate
    pcm = (np.sin(2 * np.pi * 440 * t) * t / seconds * 20_000).astype("<i2").tobytes()
    path.write_bytes(wav.header(rate, len(pcm) // 2) + pcm)
    return path


@dataclass(frozen=True, slots=True)
class Film:
    codecs: tuple[str, ...]
    brightness: tuple[float, ...]
    """Mean of each frame, 0 to 255."""
    bottom: tuple[float, ...]
    """The same of the lowest rows, where a level bar is."""
    rate: float
    """Frames a second."""
    sound: Any
    """Samples, −1 to 1."""
    sound_rate: int

    @property
    def seconds(self) -> float:
        return len(self.brightness) / self.rate

    @property
    def sound_seconds(self) -> float:
        return len(self.sound) / self.sound_rate


def film(path: Path) -> Film:
    """Decodes all of it."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        pictures: list[Any] = []
        samples: list[Any] = []
        for frame in container.decode(video, audio):
            if isinstance(frame, av.VideoFrame):
                pictures.append(frame.to_ndarray(format="gray"))
            else:
                samples.append(frame.to_ndarray()[0])
        return Film(
            (video.codec_context.name, audio.codec_context.name),
            tuple(float(one.mean()) for one in pictures),
            tuple(float(one[-12:].mean()) for one in pictures),
            float(video.average_rate or 0),
            np.concatenate(samples),
            audio.codec_context.sample_rate,
        )
