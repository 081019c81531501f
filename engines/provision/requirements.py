"""Which packages an engine needs, of those that engines.lock and matcha.lock pin, and which of them are missing."""

import importlib.machinery
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.provision.needs import Role, switches
from engines.provision.refusal import ProvisionError
from engines.settings import Engines

_IMPORTED_AS = {
    "antlr4-python3-runtime": "antlr4",
    "grpcio": "grpc",
    "hydra-core": "hydra",
    "jaraco-functools": "jaraco.functools",
    "matcha-tts": "matcha",
    "onnxruntime-gpu": "onnxruntime",
    "openai-whisper": "whisper",
    "opentelemetry-api": "opentelemetry",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "pyahocorasick": "ahocorasick",
    "pyyaml": "yaml",
    "ruamel-yaml": "ruamel.yaml",
    "scikit-learn": "sklearn",
}
"""Where the name differs from the distribution's by more than a hyphen."""

# fmt: off
_ONLY: dict[Role, frozenset[str]] = {
    "tts": frozenset({
        "anyascii", "coloredlogs", "conformer", "contractions", "diffusers", "einops", "einx", "flatbuffers",
        "frozendict", "grpcio", "humanfriendly", "hyperpyyaml", "importlib-metadata", "inflect", "jaraco-functools",
        "kaldifst", "lazy-importer", "loguru", "matcha-tts", "onnxruntime-gpu", "pillow", "protobuf",
        "pyahocorasick", "ruamel-yaml", "textsearch", "torch-einops-utils", "typeguard", "wetext", "x-transformers",
        "zipp",
    }),
    "asr": frozenset({
        "antlr4-python3-runtime", "funasr", "hydra-core", "jaconv", "jamo", "jieba", "kaldi-native-fbank", "kaldiio",
        "rapidfuzz", "sentencepiece", "torch-complex",
    }),
}
"""Needed by one kind of engine alone. What is in neither set and not unused is needed by both. Conversation needs what
synthesis does: it has the same vocoder."""
_NOT: dict[Role, frozenset[str]] = {"tts": _ONLY["asr"], "asr": _ONLY["tts"], "s2s": _ONLY["asr"]}

_UNUSED = frozenset({"colorama", "pyreadline3", "win32-setctime"})  # on other systems only
# fmt: on

_RIDERS = {
    "torch": ("triton", "nvidia-*"),
    "librosa": ("audioread",),
    "ruamel-yaml": ("ruamel-yaml-clib",),
    "huggingface-hub": ("hf-xet",),
    "cffi": ("pycparser",),
}
"""What only some systems have or need: it is no reason to install anything, and comes with what asks for it."""

_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==")


# The wheel of another Python, whose compiled part is for training alone: see the lock.
_FOREIGN = ("--only-binary", ":all:", "--python-version", "310", "--platform", "manylinux1_x86_64")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one run of pip installs."""

    names: tuple[str, ...]
    """Of distributions, or of modules where that is all that is known."""
    pins: tuple[str, ...]
    """Lines of a requirements file."""
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """What a switch needs beyond the lock."""

    imported_as: str
    pins: tuple[str, ...]
    """Without hashes, as upstream names them; empty where nothing fits the lock."""
    why_none: str = ""


_EXTRAS = {
    "tts_load_trt": Extra(
        "tensorrt",
        ("tensorrt-cu12==10.13.3.9", "tensorrt-cu12-bindings==10.13.3.9", "tensorrt-cu12-libs==10.13.3.9"),
    ),
    "tts_load_vllm": Extra(
        "vllm",
        (),
        "of the versions that CosyVoice names, 0.9.0 asks for torch 2.7.0 and 0.11.0 for transformers 4.55.2 or newer, "
        "and the engine stands on torch 2.8.0 and transformers 4.52.3: build an image that has it, or leave the "
        "switch off",
    ),
}
"""By the setting that asks for it. Neither was run by us: both need a GPU."""


def missing(role: Role, lock: Path) -> set[str]:
    """Distributions of the lock that the role needs and that cannot be imported."""
    riders = tuple(rider for some in _RIDERS.values() for rider in some)
    return {
        name
        for name in _blocks(lock)
        if name not in _NOT[role] and name not in _UNUSED and not _is_rider(name, riders)
        if not importable(imported_as(name))
    }


def batches(role: Role, settings: Engines) -> list[Batch]:
    """All that cannot be imported. Raises ProvisionError where nothing could be installed that can."""
    found = []
    locks: list[tuple[Path, tuple[str, ...]]] = [(settings.packages_lock, ())]
    if (foreign := settings.packages_lock.with_name("matcha.lock")).exists():
        locks.append((foreign, _FOREIGN))
    for lock, options in locks:
        if names := missing(role, lock):
            pins = lines(lock, names)
            found.append(Batch(tuple(sorted(names)), tuple(pins), ("--require-hashes", *options)))
    on = switches(role, settings)
    for extra in (extra for switch, extra in _EXTRAS.items() if switch in on and not importable(extra.imported_as)):
        if not extra.pins:
            raise ProvisionError(f"{extra.imported_as} cannot be imported: {extra.why_none}")
        found.append(Batch((extra.imported_as,), extra.pins, ()))
    return found


def lines(lock: Path, names: Iterable[str]) -> list[str]:
    """Of the lock, for these and what rides with them."""
    names = set(names)
    riders = tuple(rider for name in sorted(names) for rider in _RIDERS.get(name, ()))
    blocks = _blocks(lock)
    return [line for name, block in blocks.items() if name in names or _is_rider(name, riders) for line in block]


def imported_as(name: str) -> str:
    """The module of a distribution."""
    return _IMPORTED_AS.get(name, name.replace("-", "_"))


def importable(name: str, path: Iterable[str] | None = None) -> bool:
    """Whether there is such a module, without running any of it. path: folders, else where this process looks."""
    where = None if path is None else list(path)
    for part in name.split("."):
        with suppress(ImportError, ValueError):
            spec = importlib.machinery.PathFinder.find_spec(part, where)
            if spec is not None:
                where = list(spec.submodule_search_locations or ())
                continue
        return False
    return True


# Private


def _blocks(lock: Path) -> dict[str, list[str]]:
    """The lines of the lock for each distribution: a pin with its hashes, two where Python's version decides."""
    try:
        text = lock.read_text()
    except OSError as exc:
        raise ProvisionError(f"{lock} cannot be read: {exc.strerror}") from exc
    found: dict[str, list[str]] = {}
    block: list[str] = []
    for line in text.splitlines():
        if match := _NAME.match(line):
            block = found.setdefault(re.sub(r"[-_.]+", "-", match[1]).lower(), [])
        if line.strip() and not line.startswith("#"):
            block.append(line)
    return found


def _is_rider(name: str, riders: tuple[str, ...]) -> bool:
    return any(name == rider or (rider.endswith("*") and name.startswith(rider[:-1])) for rider in riders)
