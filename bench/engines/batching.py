"""`python -m bench.engines.batching FOLDER VAD`: does a recogniser hear several clips at once sooner than in turn?

Prints JSON: milliseconds for each clip, of the VAD alone, of the recogniser one clip at a time, and of batches. Rounds
are interleaved; medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr

from bench.engines import inputs
from engines.asr import recording
from engines.asr.backends import Asked, funasr_vad
from engines.asr.backends.funasr_families import FAMILIES
from engines.asr.backends.funasr_models import Network, family_of
from engines.asr.recording import RATE

CLIPS = 8
BATCHES = (1, 4, 8)


def measure(folder: Path, vad: Path, device: str, threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds for each clip, by name: "vad", and the sizes of batches."""
    network = Network(folder, device, None, threads)
    family = FAMILIES[family_of(folder)](network, folder.name)
    listener = Network(vad, "cpu", funasr_vad.OPTIONS, threads)
    clips = [_heard(clip) for clip in inputs.clips()[::2]][:CLIPS]
    asked = Asked("", (), True)

    def recognise(size: int) -> None:
        for at in range(0, CLIPS, size):
            family.hear(clips[at : at + size], asked)

    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(inputs.recording(inputs.clips()[6]))
        file.flush()
        with recording.opened(Path(file.name), _nobody_minds) as audio:
            work: dict[str, Callable[[], object]] = {
                "vad": lambda: list(funasr_vad.find(audio, listener, _nobody_minds)),
                **{str(size): lambda size=size: recognise(size) for size in BATCHES},  # type: ignore[misc]
            }
            took: dict[str, list[float]] = {name: [] for name in work}
            for number in range(rounds + 1):  # the first one warms up
                for name, job in work.items():
                    started = time.perf_counter()
                    job()
                    spent = (time.perf_counter() - started) * 1000 / (1 if name == "vad" else CLIPS)
                    if number:
                        took[name].append(spent)
    return {name: round(statistics.median(found), 2) for name, found in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engines.batching")
    parser.add_argument("folder", type=Path)
    parser.add_argument("vad", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.folder, asked.vad, asked.device, asked.threads, asked.rounds)))


# Private


def _heard(clip: inputs.Clip) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.asarray(soxr.resample(clip.astype(np.float32) / 32768, inputs.RATE, RATE), np.float32)


def _nobody_minds() -> None:
    pass


if __name__ == "__main__":
    main()
