"""Upstream:     shivammehta25/Matcha-TTS matcha/utils/__init__.py, pylogger.py, matcha/hifigan/xutils.py;
              FunAudioLLM/CosyVoice cosyvoice/dataset/processor.py
Pinned:       matcha-tts 0.0.7.2; ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       loading a model imports modules that import what only training uses: lightning, hydra, gdown, wget,
              matplotlib, pyarrow, pyworld: hundreds of megabytes. Where these are installed, nothing is changed. Where
              Matcha itself is missing, as in a source archive without its submodules, the error says what to do
Sent:         not sent, because upstream asks for all of its requirements to be installed
Remove when:  a model can be loaded without them
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = (
    "matcha.utils",
    "matcha.utils.pylogger",
    "matcha.hifigan.xutils",
    "cosyvoice.dataset.processor",
    "cosyvoice.cli.cosyvoice",
)
READ_AGAINST = {
    "matcha.utils": {"": "60db3dd6b8f37947154acdda663bfdb6199ae3623cd4992ccbd445de7aaebcea"},
    "matcha.utils.pylogger": {"": "61b0bc626e4766b25c0c122c40eea34a7bb263908b650475dc4fe8012f526194"},
    "matcha.hifigan.xutils": {"": "68db58bb54b241a1ad6cdfcd9d27cb1a14e2fabff2def60a3087fb11819a0ce0"},
    "cosyvoice.dataset.processor": {"": "27c8009a8da606dfd7b541fa28b34faba6d8bd9ff586a4c72b4738b2ad0aaa9a"},
}
_IMPORTS = {
    "matcha.utils": ("lightning", "hydra", "gdown", "wget", "matplotlib", "rich", "omegaconf"),
    "matcha.utils.pylogger": ("lightning",),
    "matcha.hifigan.xutils": ("matplotlib", "matplotlib.pylab"),
    "cosyvoice.dataset.processor": ("pyarrow", "pyarrow.parquet", "pyworld"),
}


def instead(module: ModuleType) -> bool:
    """Fills a module of which something is missing; False where nothing is."""
    missing = [name for name in _IMPORTS.get(module.__name__, ()) if find_spec(name.split(".")[0]) is None]
    if not missing:
        return False
    check(module, READ_AGAINST[module.__name__], __file__)
    if module.__name__ == "matcha.utils.pylogger":
        module.get_pylogger = logging.getLogger  # type: ignore[attr-defined]
    elif module.__name__ != "matcha.utils":  # which stays bare: its submodules can be imported without it
        with _standing_in(missing):
            module.__loader__.exec_module(module)  # type: ignore[union-attr]
    return True


def apply(module: ModuleType) -> None:
    if module.__name__ == "cosyvoice.cli.cosyvoice" and find_spec("matcha") is None:
        raise ModuleNotFoundError(
            "CosyVoice needs Matcha-TTS: pip install --no-deps matcha-tts==0.0.7.2, "
            "or put its source into CosyVoice's third_party/Matcha-TTS",
            name="matcha",
        )


@contextmanager
def _standing_in(names: list[str]) -> Iterator[None]:
    """While a module is executed, `names` can be imported. What it calls of them later is not there."""
    sys.modules.update((name, _StandIn(name)) for name in names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class _StandIn(ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None
