"""The models that tests make are models to upstream's code, and end when they should."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.wire.cosyvoice import PRESETS
from tests.tiny import cosyvoice

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("version", cosyvoice.VERSIONS)
def test_a_synthesis_lasts_as_long_as_the_chain(tiny_cosyvoice: Callable[[str], Path], version: str) -> None:
    folder = tiny_cosyvoice(version)
    from cosyvoice.cli.cosyvoice import AutoModel

    logging.disable(logging.INFO)
    model = AutoModel(model_dir=str(folder))
    logging.disable(logging.NOTSET)
    text = "<|endofprompt|>今天天气很好，我们去公园吧"
    for seed in (1, 2):
        sound = _speech(model, text, seed)
        assert len(sound) == pytest.approx(cosyvoice.seconds(version) * model.sample_rate, rel=0.02)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() > 0


def test_version_1_has_the_presets(tiny_cosyvoice: Callable[[str], Path]) -> None:
    import torch

    speakers = torch.load(tiny_cosyvoice("cosyvoice") / "spk2info.pt", weights_only=True)
    assert tuple(speakers) == PRESETS


def _speech(model: Any, text: str, seed: int) -> np.ndarray[Any, Any]:
    import torch

    torch.manual_seed(seed)
    tokens, length = model.frontend._extract_text_token(text)
    speaker = torch.ones(1, 192)
    made = model.model.tts(text=tokens, text_len=length, llm_embedding=speaker, flow_embedding=speaker)
    return np.concatenate([piece["tts_speech"].numpy()[0] for piece in made])
