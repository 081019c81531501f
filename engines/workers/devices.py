"""Which devices a list such as TTS_GPUS names. FunSpeech's rules, but what cannot be is said instead of guessed."""

import os
import subprocess
from collections.abc import Sequence
from functools import cache

from engines.settings import SettingsError


@cache
def gpus() -> int:
    """How many GPUs this machine, or this container, has."""
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in found.splitlines())


def named(name: str, text: str, each: int = 1) -> tuple[str, ...]:
    """The devices of as many workers as there shall be: "cpu" or "cuda:N", each of them `each` times.

    name: of the setting, for the error. text: empty or auto (the first GPU, else the CPU), cpu, 0, or 0,1,2.
    Raises SettingsError.
    """
    wanted = [part.strip().lower() for part in text.split(",") if part.strip()] or ["auto"]
    if wanted == ["auto"]:
        wanted = ["0"] if gpus() else ["cpu"]
    devices = tuple(dict.fromkeys("cpu" if part == "cpu" else _gpu(name, part) for part in wanted))
    return tuple(device for device in devices for _ in range(each))


def threads(places: Sequence[str]) -> int:
    """How many threads each worker of these devices has a core for."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, places.count("cpu")))


def _gpu(name: str, part: str) -> str:
    number = part.removeprefix("cuda:")
    if not (number.isascii() and number.isdigit()):
        raise SettingsError(f"{name}: {part!r} is not a device; it takes auto, cpu, or numbers of GPUs such as 0,1")
    if int(number) >= gpus():
        raise SettingsError(f"{name}: there is no GPU {int(number)} here; nvidia-smi lists {gpus() or 'none'}")
    return f"cuda:{int(number)}"
