"""The backend of CosyVoice on tiny models."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.settings import Engines
from engines.tts import prompt
from engines.tts.backends.cosyvoice import CosyVoice
from engines.tts.backends.cosyvoice_model import Model
from engines.tts.job import Job
from gateway.wire import cosyvoice as wire
from tests.conftest import speech
from tests.tiny.fixtures import TinyModel

TEXT = "今天天气很好，我们去公园吧。"
PROMPT = prompt.read(speech(2.0, 16_000))

WARNINGS = (
    "ignore:.*torch.cuda.amp.autocast:FutureWarning",
    "ignore:.*LoRACompatibleLinear:FutureWarning",
    "ignore:.*weight_norm:FutureWarning",
    "ignore:.*:DeprecationWarning",
    "ignore:.*:UserWarning",
    "ignore:.*:SyntaxWarning",
)


def backend(tiny: TinyModel, models_dir: Path, clone: str = "cosyvoice3", mode: str = "all") -> CosyVoice:
    """Loaded. clone: the version of the model that clones."""
    settings = Engines(
        models_dir=models_dir,
        tts_model_mode=mode,  # type: ignore[arg-type]
        clone_model_version="cosyvoice2",
        sft_model_id=str(tiny("cosyvoice")),
        clone_model_id=str(tiny(clone)),
    )
    made = CosyVoice(settings, "cpu")
    made.load()
    return made


def job(mode: str, text: str = TEXT, **given: Any) -> Job:
    """A request with what its route needs."""
    if mode in (wire.SFT, wire.INSTRUCT):
        given = {"speaker": "中文女", "instruction": "高兴" if mode == wire.INSTRUCT else ""} | given
    else:
        given = {"prompt": PROMPT, "prompt_text": "你好", "instruction": "高兴"} | given
    return Job(mode, text, **given)


def pieces(backend: CosyVoice, asked: Job) -> list[bytes]:
    return list(backend.speak(asked, lambda: False))


def samples(backend: CosyVoice, asked: Job) -> NDArray[np.int16]:
    return np.frombuffer(b"".join(pieces(backend, asked)), np.int16)


def clone_of(backend: CosyVoice) -> Model:
    assert backend._clone is not None
    return backend._clone


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())
