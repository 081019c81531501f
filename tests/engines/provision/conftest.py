"""An engine's needs, small: two models on a hub, no packages, no patience."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.provision import web
from engines.settings import Engines
from gateway.wire.engine_health import Progress
from tests.engines.provision.hub import FakeHub, serving

MODEL = "lab/tiny"


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub()) as hub:
        hub.models[MODEL] = {
            "config.yaml": b"model: Tiny\n",
            "model.pt": content(600_000),
            "sub/tokens.json": content(3000, 1),
        }
        yield hub


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(web, "TIMEOUT", 5.0)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def vad(tmp_path: Path) -> Path:
    """A model that the operator brings."""
    folder = tmp_path / "vad"
    folder.mkdir()
    (folder / "config.yaml").write_text("model: Vad\n")
    (folder / "model.pt").write_bytes(b"weights")
    return folder


@pytest.fixture
def settings(tmp_path: Path, volume: Path, vad: Path, hub: FakeHub) -> Callable[..., Engines]:
    """For recognition of recordings with MODEL."""
    pins = tmp_path / "engines.lock"
    pins.write_text("")

    def made(**more: object) -> Engines:
        given: dict[str, object] = {
            "models_dir": volume,
            "asr_model_mode": "offline",
            "asr_model_id": MODEL,
            "vad_model_id": str(vad),
            "punc_model_id": "none",
            "modelscope_endpoint": hub.url,
            "hf_endpoint": hub.url,
            "packages_lock": pins,
        }
        return Engines.model_validate(given | more)

    return made


class Told(list[Progress]):
    """Everything that provisioning said of its progress."""

    __call__ = list.append

    def of(self, phase: str) -> list[Progress]:
        return [one for one in self if one.phase == phase]


@pytest.fixture
def told() -> Told:
    return Told()
