"""The Python packages of an engine: what cannot be imported is installed, at the versions of requirements/engines.lock.

Each set of missing packages has a folder of its own in the volume, named after the interpreter and the pins; it takes
its name when it is whole, so a folder that is there is whole. Nothing is resolved: the lock says what there is, its
hashes say what it is, and what only training or the index of a dependency asks for is left out.
"""

import hashlib
import importlib.machinery
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.provision.needs import Role, switches
from engines.provision.progress import Meter, Tell
from engines.provision.refusal import ProvisionError
from engines.provision.turns import turn
from engines.settings import Engines, inherited

log = logging.getLogger(__name__)

_IMPORTED_AS = {
    "antlr4-python3-runtime": "antlr4",
    "attrs": "attr",
    "cython": "Cython",
    "grpcio": "grpc",
    "hydra-core": "hydra",
    "jaraco-functools": "jaraco.functools",
    "markdown-it-py": "markdown_it",
    "matcha-tts": "matcha",
    "onnxruntime-gpu": "onnxruntime",
    "openai-whisper": "whisper",
    "opentelemetry-api": "opentelemetry",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "pyahocorasick": "ahocorasick",
    "python-dotenv": "dotenv",
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
"""Needed by one engine alone. What is in neither set and not unused is needed by both."""

_UNUSED = frozenset({
    # of matcha-tts: training and its own text front end, which CosyVoice does not use
    "attrs", "cython", "dlinfo", "lightning-utilities", "markdown-it-py", "mdurl", "phonemizer", "pygments",
    "python-dotenv", "rich", "rootutils", "torchmetrics", "unidecode",
    # of other systems
    "colorama", "pyreadline3", "win32-setctime",
})
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
        "vllm 0.9.0, which CosyVoice names, asks for torch 2.7.0 and vllm 0.11.0 for transformers 4.55.2 or newer, and "
        "the engine stands on torch 2.8.0 and transformers 4.52.3: build an image that has it, or leave the switch off",
    ),
}
"""By the setting that asks for it. Neither was run by us: both need a GPU."""


def provide(role: Role, settings: Engines, tell: Tell) -> tuple[Path, ...]:
    """Folders that hold what this interpreter lacks; none where it lacks nothing. Raises ProvisionError."""
    found = []
    if missing := _missing(role, settings.packages_lock):
        found.append(
            _folder_with(settings, sorted(missing), _lines(settings.packages_lock, missing), tell, hashes=True)
        )
    for extra in _switched_on(role, settings):
        if not extra.pins:
            raise ProvisionError(f"{extra.imported_as} cannot be imported: {extra.why_none}")
        found.append(_folder_with(settings, [extra.imported_as], list(extra.pins), tell, hashes=False))
    return tuple(found)


def faults(role: Role, settings: Engines) -> list[str]:
    """What is missing; nothing is installed."""
    missing = _missing(role, settings.packages_lock)
    lines = _lines(settings.packages_lock, missing)
    found = []
    if missing and not _folder(settings, lines).exists():
        found.append(f"packages are missing: {', '.join(sorted(missing))}")
    for extra in _switched_on(role, settings):
        there = bool(extra.pins) and _folder(settings, list(extra.pins)).exists()
        found += [] if there else [f"packages are missing: {extra.imported_as}"]
    return found


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


def _missing(role: Role, lock: Path) -> set[str]:
    """Distributions of the lock that the role needs and that cannot be imported."""
    other: Role = "asr" if role == "tts" else "tts"
    riders = tuple(rider for some in _RIDERS.values() for rider in some)
    return {
        name
        for name in _blocks(lock)
        if name not in _ONLY[other] and name not in _UNUSED and not _is_rider(name, riders)
        if not importable(_IMPORTED_AS.get(name, name.replace("-", "_")))
    }


def _switched_on(role: Role, settings: Engines) -> list[Extra]:
    """Extras that are asked for and cannot be imported."""
    on = switches(role, settings)
    return [extra for switch, extra in _EXTRAS.items() if switch in on and not importable(extra.imported_as)]


def _blocks(lock: Path) -> dict[str, list[str]]:
    """The lines of the lock for each distribution: a pin with its hashes, two where Python's version decides."""
    try:
        lines = lock.read_text().splitlines()
    except OSError as exc:
        raise ProvisionError(f"{lock} cannot be read: {exc.strerror}") from exc
    found: dict[str, list[str]] = {}
    block: list[str] = []
    for line in lines:
        if match := _NAME.match(line):
            block = found.setdefault(re.sub(r"[-_.]+", "-", match[1]).lower(), [])
        if line.strip() and not line.startswith("#"):
            block.append(line)
    return found


def _lines(lock: Path, names: Iterable[str]) -> list[str]:
    """Of the lock, for these and what rides with them."""
    names = set(names)
    riders = tuple(rider for name in sorted(names) for rider in _RIDERS.get(name, ()))
    blocks = _blocks(lock)
    return [line for name, block in blocks.items() if name in names or _is_rider(name, riders) for line in block]


def _is_rider(name: str, riders: tuple[str, ...]) -> bool:
    return any(name == rider or (rider.endswith("*") and name.startswith(rider[:-1])) for rider in riders)


def _folder(settings: Engines, lines: list[str]) -> Path:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    pins = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    return (settings.models_dir / "packages" / f"{tag}-{pins}").absolute()


def _folder_with(settings: Engines, names: list[str], lines: list[str], tell: Tell, *, hashes: bool) -> Path:
    folder = _folder(settings, lines)
    if not folder.exists():
        with turn(settings.models_dir, f"packages {folder.name}", tell):
            if not folder.exists():
                _install(folder, settings, names, lines, tell, hashes=hashes)
    return folder


def _install(folder: Path, settings: Engines, names: list[str], lines: list[str], tell: Tell, *, hashes: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".staging-{folder.name}-"
    for left in folder.parent.glob(f"{prefix}*"):  # of one that was killed: ours is the only turn
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as name:
        staging = Path(name)
        (staging / "requirements.txt").write_text("\n".join(lines) + "\n")
        _pip(staging, settings, names, tell, hashes=hashes)
        site = staging / "site"
        absent = [name for name in names if not importable(_IMPORTED_AS.get(name, name.replace("-", "_")), [str(site)])]
        if absent:
            raise ProvisionError(f"packages: pip has installed {', '.join(absent)}, but nothing can import it")
        site.replace(folder)


def _pip(staging: Path, settings: Engines, names: list[str], tell: Tell, *, hashes: bool) -> None:
    """Downloads are unpacked in the volume too: a container's /tmp may be small."""
    (staging / "tmp").mkdir()
    (staging / "site").mkdir()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "install"]
    command += ["--no-deps", "--target", str(staging / "site"), "--requirement", str(staging / "requirements.txt")]
    if hashes:
        command.append("--require-hashes")
    if settings.wheels_dir is not None:
        command += ["--no-index", "--find-links", str(settings.wheels_dir.absolute())]
    said = staging / "pip.log"
    meter = Meter(tell, "packages")
    with said.open("w") as out:
        environment = inherited({"TMPDIR": str(staging / "tmp")})
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment) as process:
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.5)
                    meter.at(_size(staging))
            finally:
                process.kill()  # of one that has ended, nothing
    if process.returncode != 0:
        raise ProvisionError(_failure(said, settings, names))


def _failure(said: Path, settings: Engines, names: list[str]) -> str:
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    for line in lines[-20:]:
        log.error("pip: %s", line[:500])
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    why = (errors or [line for line in lines if "No module named pip" in line] or ["see the log"])[0][:200]
    few = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    cure = f"put their wheels into {settings.wheels_dir}" if settings.wheels_dir else "set WHEELS_DIR, PIP_INDEX_URL"
    return f"packages: pip cannot install {few} ({why}): {cure}, or use an image that has them"


def _size(folder: Path) -> int:
    """Bytes in a folder that is being filled."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total
