from pathlib import Path
from typing import Any

import pytest

from engines import settings

ROOT = Path(__file__).parents[2]


def test_the_defaults_are_those_of_the_example_file() -> None:
    assert (ROOT / "deploy/engines.env.example").read_text() == settings.example()


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("TTS_MODEL_MODE", "cosyvoice1", "sft"),
        ("TTS_MODEL_MODE", "CosyVoice2", "clone"),
        ("TTS_MODEL_MODE", "clone", "clone"),
        ("TTS_MODEL_MODE", "", "all"),
        ("CLONE_MODEL_VERSION", "cosyvoice2", "cosyvoice2"),
        ("COSYVOICE3_MODEL_ID", "/models/mine", "/models/mine"),
        ("TTS_ENABLE_FP16", "True", True),
        ("TTS_LOAD_TRT", "0", False),
        ("ASR_MODEL_MODE", "REALTIME", "realtime"),
        ("ASR_ENABLE_REALTIME_PUNC", "yes", True),
        ("TTS_GPUS", "0,1", "0,1"),
    ],
)
def test_funspeechs_names_and_values_are_understood(name: str, value: str, found: Any) -> None:
    assert getattr(settings.load({name: value}), name.lower()) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TTS_MODEL_MODE", "cosyvoice9"),
        ("CLONE_MODEL_VERSION", "1"),
        ("ASR_MODEL_MODE", "x"),
        ("TTS_WORKERS", "0"),
        ("TTS_LOAD_JIT", "maybe"),
    ],
)
def test_what_is_not_understood_is_one_line(name: str, value: str) -> None:
    with pytest.raises(settings.SettingsError, match=f"^{name}: .*{value}") as refused:
        settings.load({name: value})
    assert "\n" not in str(refused.value)


def test_compose_hands_every_setting_that_an_operator_has_to_the_engine_that_reads_it() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    inside = {"models_dir", "wheels_dir", "models_lock", "packages_lock"}  # paths within the image
    missing = [
        name for name in settings.Engines.model_fields if name not in inside and f"{name.upper()}:" not in compose
    ]
    assert not missing
