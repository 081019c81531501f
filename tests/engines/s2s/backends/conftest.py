"""The real networks, tiny: made once for all tests here."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.s2s.backends import RATE, Samples
from tests.tiny.fixtures import fun_audio_chat_source as fun_audio_chat_source

WARNINGS = (
    "ignore:.*:FutureWarning",
    "ignore:.*:DeprecationWarning",
    "ignore:.*:UserWarning",
    "ignore:.*:SyntaxWarning",
)
"""Upstream's, about its own libraries."""
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "杭州"}}\n</tool_call>'

TinyThinker = Callable[[str], Path]
"""One of KINDS -> the model's folder."""
KINDS: dict[str, dict[str, object]] = {
    "random": {},
    "endless": {"written": ("Yes, ", "quite."), "spoken": ("啦",), "endless": True},
    "both": {"written": ("It is\n", "sunny 🌞."), "spoken": ("It is", " warm", ".\n")},
    "caller": {"written": (CALL, "\n\n", CALL.replace("杭州", "上海")), "spoken": ("Sunny.",)},
}


@pytest.fixture(scope="session")
def tiny_thinker(fun_audio_chat_source: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyThinker:
    """Makes each kind once, when it is first asked for."""
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    from engines.s2s.backends.fun_audio_chat_model import _registered
    from tests.tiny import fun_audio_chat

    made: dict[str, Path] = {}

    def tiny(kind: str) -> Path:
        if kind not in made:
            with warnings.catch_warnings(action="ignore"):
                _registered()
                folder = tmp_path_factory.mktemp("tiny") / kind
                made[kind] = fun_audio_chat.build(folder, **KINDS[kind])  # type: ignore[arg-type]
        return made[kind]

    return tiny


@pytest.fixture(scope="session")
def tiny_vocoder(cosyvoice_source: Path, fun_audio_chat_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CosyVoice 3 that knows all the codes."""
    pytest.importorskip("torch", reason="the packages of the real engines are not installed")
    import patches
    from tests.tiny import cosyvoice

    patches.install()  # of what upstream imports, not all is here
    with warnings.catch_warnings(action="ignore"):
        size = cosyvoice.Size(tokens=96, codebook=6561, hidden=48)
        return cosyvoice.build(tmp_path_factory.mktemp("tiny") / "cosyvoice3", "cosyvoice3", size)


@pytest.fixture
def sound() -> Samples:
    """A second of something."""
    return (np.random.default_rng(0).standard_normal(RATE) * 0.1).astype(np.float32)
