"""Models folders with tiny models in them, and FunASR loaded from there."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.asr.backends import Asked, Backend, Heard
from engines.asr.recording import Recording

Load = Callable[[str], Backend]
"""Name, as tests.tiny.funasr has it, or "trained" -> FunASR with that recogniser, the same one each time."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with every tiny model, under its own name, and SenseVoice that knows its sentences."""
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    from tests.tiny import funasr

    folder = tmp_path_factory.mktemp("models")
    for name in funasr.NAMES:
        funasr.install(folder, name, funasr.built(name))
    funasr.install(folder, "trained", funasr.trained("sensevoice"))
    funasr.install(folder, "FunAudioLLM/Fun-ASR-MLT-Nano-2512", funasr.built("fun-asr-nano"))
    return folder


@pytest.fixture(scope="session")
def load(models: Path) -> Load:
    loaded: dict[str, Backend] = {}

    def once(name: str) -> Backend:
        if name not in loaded:
            loaded[name] = fresh(models, name)
        return loaded[name]

    return once


def fresh(models: Path, name: str, **settings: object) -> Backend:
    from engines.asr.backends.funasr import FunAsr
    from engines.settings import Engines

    ids = {"asr_model_id": name, "vad_model_id": "fsmn-vad", "punc_model_id": "ct-punc"}
    ids["asr_workers"] = "16"  # one thread of torch's: the machine that runs tests has other things to do
    backend = FunAsr(Engines.model_validate({"models_dir": models, **ids, **settings}), "cpu")
    backend.load()
    return backend


def recorded(pcm: bytes) -> Recording:
    return Recording(io.BytesIO(pcm), 0, len(pcm) // 2)


def hear(backend: Backend, pcm: bytes, asked: Asked | None = None) -> Heard:
    return backend.transcribe(recorded(pcm), asked or Asked(), lambda: None)
