"""Upstream:     shivammehta25/Matcha-TTS matcha/utils/audio.py::mel_spectrogram
Pinned:       matcha-tts 0.0.7.2, which is third_party/Matcha-TTS of ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40
Reason:       its window and its mel filters are kept for the whole process, by device and highest frequency alone, so
              that of CosyVoice 1 and CosyVoice 2 or 3 in one process the one to clone first breaks the other: "stft:
              expected a 1D window"
Sent:         not sent, because Matcha itself has one model in a process
Remove when:  they are kept by all that they depend on
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import Lock
from types import ModuleType
from typing import Any

from patches.guard import check

TARGETS = ("matcha.utils.audio",)
READ_AGAINST = {"mel_spectrogram": "a0ffc1d86f19d794bd11e91bc8edad098219495fc3766eafcf771e2aedd9a629"}


def apply(module: ModuleType) -> None:
    check(module, READ_AGAINST, __file__)
    module.mel_spectrogram = _with_own_tables(module, module.mel_spectrogram)  # type: ignore[attr-defined]


def _with_own_tables(module: Any, mel_spectrogram: Callable[..., Any]) -> Callable[..., Any]:
    tables: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
    lock = Lock()

    @functools.wraps(mel_spectrogram)
    def with_own_tables(y: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = (*args, *sorted(kwargs.items()))
        with lock:
            module.mel_basis, module.hann_window = tables.setdefault(chosen, ({}, {}))
            return mel_spectrogram(y, *args, **kwargs)

    return with_own_tables
