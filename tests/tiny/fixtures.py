"""Fixtures that give upstream's source and models made for this run; tests/conftest.py hands them to every test."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import patches

COMMIT = "ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40"
FUN_AUDIO_CHAT_COMMIT = "8ba984b64b4880918db2807e08d795475481200c"

TinyModel = Callable[[str], Path]
"""Version, as tests.tiny.cosyvoice.VERSIONS has it -> the model's folder. Not to be written to: it is shared."""


@pytest.fixture(scope="session")
def cosyvoice_source() -> Path:
    """The folder of CosyVoice's source, which is on sys.path from now on."""
    return _source("CosyVoice", COMMIT)


@pytest.fixture(scope="session")
def fun_audio_chat_source() -> Path:
    """The folder of Fun-Audio-Chat's source, which is on sys.path from now on."""
    return _source("Fun-Audio-Chat", FUN_AUDIO_CHAT_COMMIT)


def _source(name: str, commit: str) -> Path:
    models = Path(os.environ.get("MODELS_DIR") or Path(__file__).resolve().parents[2] / "models")
    source = models / "source" / f"{name}-{commit}"
    if not source.is_dir():
        pytest.skip(f"{name}'s source is not in {source}")
    if str(source) not in sys.path:
        sys.path.append(str(source))
    return source


@pytest.fixture(scope="session")
def tiny_cosyvoice(cosyvoice_source: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Makes each version once, when it is first asked for."""
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    from tests.tiny import cosyvoice

    made: dict[str, Path] = {}

    def tiny(version: str) -> Path:
        if version not in made:
            patches.install()  # of what upstream imports, not all is here
            with warnings.catch_warnings(action="ignore"):  # upstream's, about its own libraries
                made[version] = cosyvoice.build(tmp_path_factory.mktemp("tiny") / version, version)
        return made[version]

    return tiny
