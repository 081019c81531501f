from pathlib import Path
from typing import Any

import pytest

from engines.settings import Engines
from engines.tts.backends import cosyvoice_model
from engines.tts.backends.cosyvoice_model import Unusable

_ALL = {"tts_enable_fp16": True, "tts_load_jit": True, "tts_load_trt": True, "tts_load_vllm": True}


def settings(**given: Any) -> Engines:
    return Engines.model_validate(given)


@pytest.mark.parametrize(
    ("kind", "switches"),
    [
        ("CosyVoice", {"load_jit", "load_trt", "fp16"}),
        ("CosyVoice2", {"load_jit", "load_trt", "load_vllm", "fp16"}),
        ("CosyVoice3", {"load_trt", "load_vllm", "fp16"}),
    ],
)
def test_a_class_is_given_only_the_switches_that_it_takes(kind: str, switches: set[str]) -> None:
    assert set(cosyvoice_model._switches(kind, settings(**_ALL), "cuda:0")) == switches


def test_on_the_cpu_no_switch_is_on() -> None:
    assert cosyvoice_model._switches("CosyVoice2", settings(**_ALL), "cpu") == {}


def test_what_is_not_asked_for_is_not_passed() -> None:
    assert cosyvoice_model._switches("CosyVoice2", settings(tts_load_trt="true"), "cuda:0") == {"load_trt": True}


def test_a_compiled_model_needs_its_files_too() -> None:
    files = cosyvoice_model._files("CosyVoice", {"load_jit": True, "load_trt": True, "fp16": True}, True)
    assert "llm.llm.fp16.zip" in files
    assert "flow.decoder.estimator.fp32.onnx" in files
    assert "spk2info.pt" in files


def test_a_model_is_a_folder_or_lies_in_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert cosyvoice_model.find("owner/name", tmp_path) == tmp_path / "owner" / "name"
    assert cosyvoice_model.find(str(tmp_path / "owner"), Path("elsewhere")) == tmp_path / "owner"
    with pytest.raises(Unusable, match="owner/other is neither in"):
        cosyvoice_model.find("owner/other", tmp_path)


def test_a_folder_without_a_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cosyvoice3.yaml"):
        cosyvoice_model._configuration(tmp_path)
