"""FunASR's networks, loaded from folders on this machine and from nowhere else.

Rule 1: FunASR asks a model hub for whatever it does not find. So everything is looked for first, and named if missing.
Rule 2: its AutoModel keeps the options of a call on itself, and some models the caller's hotwords: one call at a time.
Rule 3: what a caller sent is data. FunASR takes texts that look like paths or addresses for files to fetch.
"""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from engines.asr.backends import funasr_import

Result = dict[str, Any]


class Missing(Exception):
    """A model is not there, or not whole; one line for the operator."""


class OutOfMemory(Exception):
    """The device has no memory left for this call. What the call held is free again."""

    status = 503


class Network:
    """One AutoModel, safe to call from any thread."""

    def __init__(self, folder: Path, device: str, options: Mapping[str, Any] | None = None, threads: int = 1) -> None:
        """options: of FunASR's configuration, over those in the folder. Raises Missing, and what FunASR raises.

        threads: of torch on the CPU. FunASR sets them at every call, and they are the whole process's.
        """
        settings = _configuration(folder)
        self.family = str(settings["model"])
        auto_model = funasr_import.auto_model([self.family])
        quiet = {"disable_update": True, "disable_pbar": True, "disable_log": True, "log_level": "ERROR"}
        try:
            self._loaded = auto_model(
                **(options or {}),
                **_inner(folder, settings),
                **quiet,
                model=str(folder.resolve()),
                device=device,
                ncpu=threads,
            )
        except (KeyError, OSError, AssertionError) as exc:
            raise Missing(f"{folder} does not hold a whole model ({type(exc).__name__}: {exc}); {_CURE}") from exc
        self._lock = Lock()

    @property
    def network(self) -> Any:
        """The torch module."""
        return self._loaded.model

    def generate(self, given: object, options: Mapping[str, Any]) -> list[Result]:
        """FunASR's results, which may be fewer than what was given. Raises OutOfMemory."""
        with self._lock:
            try:
                found: list[Result] = self._loaded.generate(input=given, **options)
                return found
            except Exception as exc:
                if not _is_for_memory(exc):
                    raise
                problem = f"the recogniser's device is out of memory ({self.family}); try again, or send less at a time"
        _give_back()  # only now, out of reach of the exception that held the tensors
        raise OutOfMemory(problem)


def folder_of(models: Path, model_id: str) -> Path:
    """Where a model is: `model_id` itself if that is a folder, else its place in the models folder. Raises Missing."""
    for place in (Path(model_id), models / model_id):
        if place.is_dir():
            return place
    raise Missing(f"the model {model_id} is not in {models / model_id}; {_CURE}")


def family_of(folder: Path) -> str:
    """FunASR's name for the class of the model there. Raises Missing."""
    return str(_configuration(folder)["model"])


# Private

_CURE = "`make models` fetches what is missing"


def _configuration(folder: Path) -> dict[str, Any]:
    for name in ("config.yaml", "model.pt"):
        if not (folder / name).is_file():
            raise Missing(f"there is no {name} in {folder}; {_CURE}")
    found = yaml.safe_load((folder / "config.yaml").read_text())
    if not isinstance(found, dict) or "model" not in found:
        raise Missing(f"{folder / 'config.yaml'} does not describe a model; {_CURE}")
    for name in _inner_names(found).values():
        if not Path(name).is_dir() and not (folder / Path(name).name).is_dir():
            raise Missing(f"there is no folder {Path(name).name} in {folder}; {_CURE}")
    return found


def _inner_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """The models within a model, by the part of the configuration that names them."""
    found = {
        part: str((settings.get(part) or {}).get("init_param_path") or "") for part in ("llm_conf", "tokenizer_conf")
    }
    return {part: name for part, name in found.items() if name}


def _inner(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where they are: a name alone would send FunASR to a hub."""
    places = {part: folder / Path(name).name for part, name in _inner_names(settings).items()}
    return {part: {"init_param_path": str(place.resolve())} for part, place in places.items() if place.is_dir()}


def _is_for_memory(exc: Exception) -> bool:
    import torch

    return isinstance(exc, torch.OutOfMemoryError | MemoryError) or (
        isinstance(exc, RuntimeError) and "can't allocate memory" in str(exc)
    )


def _give_back() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
