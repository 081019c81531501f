"""deploy/models.lock: what it says can be read, and can be said again by the hubs."""

import tomllib
from pathlib import Path

import pytest

from engines.provision import ProvisionError, lock, needs, pinning
from engines.settings import Engines
from tests.engines.provision.conftest import MODEL
from tests.engines.provision.hub import FakeHub

SHIPPED = Engines().models_lock


def test_every_model_that_a_setting_names_by_default_is_in_it() -> None:
    known = lock.read(SHIPPED)
    for version in ("cosyvoice2", "cosyvoice3"):
        settings = Engines.model_validate({"clone_model_version": version})
        wanted = needs.models("tts", settings) + needs.models("asr", settings) + needs.models("s2s", settings)
        assert [need.id for need in wanted if need.id not in known.models] == []
        for need in wanted:
            assert known.models[need.id].kind.family == need.family


def test_a_model_is_known_by_its_name_on_any_hub() -> None:
    known = lock.read(SHIPPED)
    assert known.model("funasr/fsmn-vad") is known.model("iic/speech_fsmn_vad_zh-cn-16k-common-pytorch")
    assert known.model("nobody/nothing") is None


@pytest.mark.parametrize("text", ["", "a = ", "kinds = 1", "[sources.x]\nname = 1"])
def test_a_lock_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    path.write_text(text)
    with pytest.raises(ProvisionError, match="is not a models"):
        lock.read(path)
    with pytest.raises(ProvisionError, match="cannot be read: No such file"):
        lock.read(tmp_path / "none")


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"tts_model_mode": "sft"}, ["iic/CosyVoice-300M-SFT"]),
        ({"tts_model_mode": "clone"}, ["FunAudioLLM/Fun-CosyVoice3-0.5B-2512"]),
        ({"clone_model_version": "cosyvoice2"}, ["iic/CosyVoice-300M-SFT", "iic/CosyVoice2-0.5B"]),
    ],
)
def test_what_synthesis_needs_follows_from_its_settings(settings: dict[str, str], ids: list[str]) -> None:
    assert [need.id for need in needs.models("tts", Engines.model_validate(settings))] == ids


def test_what_conversation_needs_follows_from_its_settings(tmp_path: Path) -> None:
    needed = needs.models("s2s", Engines(s2s_vocoder_model_id=str(tmp_path)))
    assert [(need.setting, need.id) for need in needed] == [
        ("S2S_MODEL_ID", "FunAudioLLM/Fun-Audio-Chat-8B"),
        ("S2S_VOCODER_MODEL_ID", str(tmp_path)),
    ]
    assert set(needs.SOURCES["s2s"]) <= set(lock.read(SHIPPED).sources)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["ASR_MODEL_ID", "ASR_REALTIME_MODEL_ID", "VAD_MODEL_ID", "PUNC_MODEL_ID"]),
        ({"asr_model_mode": "offline", "punc_model_id": "None"}, ["ASR_MODEL_ID", "VAD_MODEL_ID"]),
        ({"asr_model_mode": "realtime"}, ["ASR_REALTIME_MODEL_ID", "VAD_MODEL_ID", "PUNC_MODEL_ID"]),
        (
            {"asr_model_mode": "realtime", "asr_enable_realtime_punc": "true", "punc_model_id": "none"},
            ["ASR_REALTIME_MODEL_ID", "VAD_MODEL_ID", "PUNC_REALTIME_MODEL_ID"],
        ),
    ],
)
def test_what_recognition_needs_follows_from_its_settings(settings: dict[str, str], names: list[str]) -> None:
    assert [need.setting for need in needs.models("asr", Engines.model_validate(settings))] == names


TEXT = f"""# people wrote this
leaves = ["*.md"]
[sources.S]
commit = "c"
url = "u"
digest = "d"
setting = "S_SOURCE"
matters = {{ "s" = [".py"] }}
[kinds.funasr]
family = "funasr"
needs = ["config.yaml"]
# and this
[models."{MODEL}"]
kind = "funasr"
[models."{MODEL}".modelscope]
id = "{MODEL}"
revision = "master"
[models."{MODEL}".modelscope.files]
"old.pt" = {{ size = 1 }}

# and this too
[models."{MODEL}".huggingface]
id = "lab/elsewhere"
revision = "main"
[models."{MODEL}".huggingface.files]
"kept.pt" = {{ size = 2 }}
"""


def test_the_lock_is_filled_by_the_hubs_and_keeps_what_people_wrote(tmp_path: Path, hub: FakeHub) -> None:
    path = tmp_path / "models.lock"
    path.write_text(TEXT)
    hub.models[MODEL]["README.md"] = b"not fetched"
    settings = Engines(models_lock=path, modelscope_endpoint=hub.url, hf_endpoint=hub.url)
    text, failures = pinning.filled(settings)
    assert failures == ["lab/elsewhere on huggingface: it answers 404"]
    assert text.startswith("# people wrote this") and "# and this\n" in text
    found = tomllib.loads(text)["models"][MODEL]
    assert found["huggingface"]["files"] == {"kept.pt": {"size": 2}}
    assert set(found["modelscope"]["files"]) == {"config.yaml", "model.pt", "sub/tokens.json"}
    path.write_text(text)
    pins = lock.read(path).models[MODEL].places["modelscope"].pins
    assert pins["model.pt"].size == 600_000
    assert len(pins["model.pt"].sha256) == 64


def test_small_files_of_hugging_face_are_pinned_by_gits_name_of_them(tmp_path: Path, hub: FakeHub) -> None:
    path = tmp_path / "models.lock"
    path.write_text(TEXT.replace("lab/elsewhere", MODEL))
    text, _ = pinning.filled(Engines(models_lock=path, modelscope_endpoint=hub.url, hf_endpoint=hub.url))
    files = tomllib.loads(text)["models"][MODEL]["huggingface"]["files"]
    assert set(files["config.yaml"]) == {"size", "git"}
    assert set(files["model.pt"]) == {"size", "sha256"}
