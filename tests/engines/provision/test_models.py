"""Models: fetched whole, checked, gone on with, mended, or refused in one line that says what to do."""

import errno
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.provision import ProvisionError, faults, models, provide, record, web
from engines.settings import Engines
from gateway.wire.engine_health import Progress
from tests.engines.provision.conftest import MODEL, Told, content
from tests.engines.provision.hub import FakeHub, serving

Make = Callable[..., Engines]


def whole(volume: Path, hub: FakeHub, model: str = MODEL) -> bool:
    """Whether the folder holds the model, its record, and nothing else."""
    folder = volume / model
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(record.NAME)
    return found == hub.models[model]


@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_a_model_is_fetched_whole_and_its_progress_told(
    name: str, settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    assert provide("asr", settings(model_hub=name), told).python_path == ()
    assert whole(volume, hub)
    steps = told.of("model tiny")
    total = sum(map(len, hub.models[MODEL].values()))
    assert [one.bytes for one in steps] == sorted(one.bytes for one in steps)
    assert steps[-1].bytes == steps[-1].total == total
    assert steps[-1].percent == 100.0
    written = json.loads((volume / MODEL / record.NAME).read_text())
    assert written["hub"] == name
    assert set(written["files"]) == set(hub.models[MODEL])


def test_with_everything_there_nothing_is_asked_and_nothing_written(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    provide("asr", settings(), told)
    hub.seen.clear()
    before = {path: path.stat().st_mtime_ns for path in volume.rglob("*")}
    provide("asr", settings(), told)
    assert faults("asr", settings(), told) == []
    assert not hub.seen
    assert {path: path.stat().st_mtime_ns for path in volume.rglob("*")} == before


def test_a_listing_in_pages_is_read_to_its_end_from_the_mirror(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    hub.page = 1
    provide("asr", settings(model_hub="huggingface"), told)
    assert whole(volume, hub)


def test_a_token_stays_with_its_hub(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    with serving(FakeHub(models=hub.models)) as far:
        hub.other = far
        provide("asr", settings(model_hub="huggingface", hf_token="secret"), told)
    assert whole(volume, hub)
    assert {one.headers.get("authorization") for one in hub.seen} == {"Bearer secret"}
    assert far.asked("model.pt")
    assert not any({"authorization", "cookie"} & set(one.headers) for one in far.seen)


def test_a_proxy_is_taken_from_the_environment(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", hub.url)
    provide("asr", settings(modelscope_endpoint="http://hub.invalid"), told)
    assert whole(volume, hub)
    assert all(one.path.startswith("http://hub.invalid/") for one in hub.seen)


def test_modelscope_is_given_its_token_in_both_ways(settings: Make, hub: FakeHub, told: Told) -> None:
    provide("asr", settings(modelscope_api_token="secret"), told)
    assert {one.headers["cookie"] for one in hub.seen} == {"m_session_id=secret"}
    assert "secret" not in repr(settings(modelscope_api_token="secret"))


@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_a_body_that_breaks_off_is_gone_on_with(
    name: str, settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    hub.bad["model.pt"] = [("cut", 100_000), ("cut", 200_000), 503]
    provide("asr", settings(model_hub=name), told)
    assert whole(volume, hub)
    asked = hub.asked("model.pt")
    assert [one.range for one in asked][:3] == ["", "bytes=100000-", "bytes=300000-"]
    assert all(one.headers["if-range"].startswith('"') for one in asked[1:])
    steps = [one.bytes for one in told.of("model tiny")]
    assert steps == sorted(steps)


def test_a_file_that_always_comes_nearer_its_end_is_never_given_up(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    hub.bad["model.pt"] = [("cut", 60_000)] * 9
    provide("asr", settings(), told)
    assert whole(volume, hub)


def test_a_file_that_changed_on_the_hub_meanwhile_is_begun_anew(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    folder = volume / MODEL
    folder.mkdir(parents=True)
    (folder / "model.pt.part").write_bytes(bytes(50_000))
    (folder / "model.pt.part.etag").write_text('"of another file"')
    provide("asr", settings(), told)
    assert whole(volume, hub)
    assert hub.asked("model.pt")[0].range == "bytes=50000-"


def test_a_part_that_was_broken_is_found_out_and_fetched_anew(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    folder = volume / MODEL
    folder.mkdir(parents=True)
    (folder / "model.pt.part").write_bytes(bytes(50_000))
    provide("asr", settings(), told)
    assert whole(volume, hub)
    assert [one.range for one in hub.asked("model.pt")] == ["bytes=50000-", ""]


def test_wrong_bytes_are_fetched_once_more(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    hub.bad["model.pt"] = ["wrong"]
    provide("asr", settings(), told)
    assert whole(volume, hub)


def test_wrong_bytes_twice_are_refused_and_not_kept(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    hub.bad["model.pt"] = ["wrong", "wrong"]
    with pytest.raises(
        ProvisionError, match=r"^model tiny: model\.pt cannot be had from 127.*checksum, twice.*MODEL_HUB"
    ):
        provide("asr", settings(), told)
    assert not (volume / MODEL / "model.pt").exists()
    assert not (volume / MODEL / "model.pt.part").exists()
    assert faults("asr", settings(), told) == [f"{volume / MODEL} was never completed"]


@pytest.mark.parametrize("have", [0, 1000])
def test_a_file_of_another_size_is_not_even_read(
    have: int, settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    (volume / MODEL).mkdir(parents=True)
    (volume / MODEL / "model.pt.part").write_bytes(bytes(have))
    hub.bad["model.pt"] = ["longer"]
    with pytest.raises(ProvisionError, match="its file has 600008 bytes and not 600000"):
        provide("asr", settings(), told)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "it answers 404.*check ASR_MODEL_ID=lab/tiny"), (401, "set MODELSCOPE_API_TOKEN"), (500, "it answers 500")],
)
def test_a_refusal_says_what_to_do(status: int, words: str, settings: Make, hub: FakeHub, told: Told) -> None:
    hub.bad["model.pt"] = [status] * 9
    with pytest.raises(ProvisionError, match=words):
        provide("asr", settings(), told)


def test_a_model_that_no_hub_has(settings: Make, told: Told) -> None:
    with pytest.raises(ProvisionError, match="check ASR_MODEL_ID=lab/none, or set MODEL_HUB=huggingface"):
        provide("asr", settings(asr_model_id="lab/none"), told)


def test_without_a_network_it_says_what_is_wrong_and_how_to_go_without(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    provide("asr", settings(), told)
    (volume / MODEL / "model.pt").write_bytes(b"cut")
    with pytest.raises(ProvisionError, match=r"model\.pt is damaged.*MODELSCOPE_ENDPOINT to a mirror.*`make models`"):
        provide("asr", settings(modelscope_endpoint="http://127.0.0.1:9"), told)


def test_what_drips_is_fetched_over_another_connection(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "STALL", (0.1, 10_000))
    hub.bad["model.pt"] = ["drip"]
    provide("asr", settings(), told)
    assert whole(volume, hub)


def test_a_host_that_says_nothing_is_given_up(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT", 0.1)
    hub.bad["model.pt"] = [("hold", 1000)] + [("hold", 0)] * 9
    with pytest.raises(ProvisionError, match="does not answer in time"):
        provide("asr", settings(), told)


def test_a_model_without_what_its_kind_needs_is_refused(settings: Make, hub: FakeHub, told: Told) -> None:
    del hub.models[MODEL]["config.yaml"]
    with pytest.raises(ProvisionError, match=r"lab/tiny of revision master on .* lacks config\.yaml; MODEL_HUB=hugg"):
        provide("asr", settings(), told)
    assert not hub.asked("model.pt")


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../escaped", "a\\b", ".voxgate.json", "a\nb"])
def test_a_path_that_leaves_the_folder_is_refused(path: str, settings: Make, hub: FakeHub, told: Told) -> None:
    hub.models[MODEL][path] = b"evil"
    with pytest.raises(ProvisionError, match="no listing of a model's files"):
        provide("asr", settings(), told)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"Data": {"Files": [1]}}', b'{"Data": null}'])
def test_a_listing_that_is_none_is_refused(body: bytes, settings: Make, hub: FakeHub, told: Told) -> None:
    hub.documents[f"/api/v1/models/{MODEL}/repo/files"] = body
    with pytest.raises(ProvisionError, match="no listing of a model's files"):
        provide("asr", settings(), told)


def test_a_damaged_file_is_fetched_again_alone(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    provide("asr", settings(), told)
    hub.seen.clear()
    path = volume / MODEL / "model.pt"
    path.write_bytes(b"x" + path.read_bytes()[1:])  # its size stays, its time does not
    assert faults("asr", settings(), told) == [f"{path} is damaged"]
    provide("asr", settings(), told)
    assert whole(volume, hub)
    assert hub.asked("model.pt")
    assert not hub.asked("sub/tokens.json")


def test_damage_that_keeps_its_time_is_found_by_a_check(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    provide("asr", settings(), told)
    path = volume / MODEL / "model.pt"
    times = path.stat()
    path.write_bytes(b"x" + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert faults("asr", settings(), told) == [f"{path} is damaged"]


def test_a_copied_volume_is_read_through_once_and_not_fetched(
    settings: Make, volume: Path, hub: FakeHub, told: Told, tmp_path: Path
) -> None:
    provide("asr", settings(), told)
    copy = tmp_path / "copy"
    shutil.copytree(volume, copy, copy_function=shutil.copyfile)
    hub.seen.clear()
    provide("asr", settings(models_dir=copy), told)
    assert not hub.seen
    kept = record.read(copy / MODEL)
    assert kept is not None
    assert kept.files["model.pt"].mtime_ns == (copy / MODEL / "model.pt").stat().st_mtime_ns


def test_a_copy_that_is_mounted_read_only_serves(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    provide("asr", settings(), told)
    os.utime(volume / MODEL / "model.pt")
    hub.seen.clear()
    monkeypatch.setattr(record, "write", refused)
    provide("asr", settings(), told)
    assert not hub.seen
    assert told.of("verifying model tiny")[-1].percent == 100.0


def test_files_without_a_record_are_checked_by_the_hubs_word_and_kept(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    provide("asr", settings(), told)
    (volume / MODEL / record.NAME).unlink()
    hub.seen.clear()
    provide("asr", settings(), told)
    assert whole(volume, hub)
    assert not hub.asked("model.pt")


def test_a_hub_that_states_no_digest_still_gives_whole_files(
    settings: Make, volume: Path, hub: FakeHub, told: Told
) -> None:
    hub.digests = False
    hub.bad["model.pt"] = [("cut", 100_000)]
    provide("asr", settings(), told)
    assert whole(volume, hub)


def test_a_disk_that_is_full_in_the_middle_is_said_to_be(settings: Make, volume: Path, told: Told) -> None:
    (volume / MODEL).mkdir(parents=True)
    (volume / MODEL / "model.pt.part").symlink_to("/dev/full")
    with pytest.raises(ProvisionError, match=r"models cannot be used: No space left on device"):
        provide("asr", settings(), told)


def test_a_full_disk_is_refused_before_anything_is_fetched(
    settings: Make, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 9, 1))
    with pytest.raises(ProvisionError, match=r"has 0 MB free, and 1 MB have still to come"):
        provide("asr", settings(), told)
    assert not hub.asked("model.pt")


def test_a_folder_that_the_operator_brings_is_used_as_it_is(
    settings: Make, hub: FakeHub, vad: Path, told: Told
) -> None:
    provide("asr", settings(asr_model_id=str(vad)), told)
    assert not hub.seen
    (vad / "model.pt").unlink()
    with pytest.raises(ProvisionError, match=r"ASR_MODEL_ID: .*/vad lacks model\.pt"):
        provide("asr", settings(asr_model_id=str(vad)), told)


@pytest.mark.parametrize("name", ["paraformer-zh", "../lab/tiny", "a/b/c", "lab/..", "lab/"])
def test_a_name_that_is_none(name: str, settings: Make, told: Told) -> None:
    with pytest.raises(ProvisionError, match="ASR_MODEL_ID: .* is neither a folder nor a model's name, owner/name"):
        provide("asr", settings(asr_model_id=name), told)


def test_a_volume_that_cannot_be_written_to_is_said_to_be_one(settings: Make, told: Told) -> None:
    with pytest.raises(ProvisionError, match=r"nothing can be written there .*`make models`, or mount it writable"):
        provide("asr", settings(models_dir=Path("/proc/voxgate")), told)


VOICE = {
    "cosyvoice3.yaml": b"yaml",
    "llm.pt": content(2000, 3),
    "flow.pt": b"flow",
    "hift.pt": b"hift",
    "campplus.onnx": b"campplus",
    "speech_tokenizer_v3.onnx": b"tokenizer",
    "CosyVoice-BlankEN/config.json": b"{}",
    "CosyVoice-BlankEN/model.safetensors": b"blank",
    "CosyVoice-BlankEN/tokenizer_config.json": b"{}",
    "flow.decoder.estimator.fp32.onnx": content(5000, 4),
    "README.md": b"a picture book",
    "llm.rl.pt": content(4000, 5),
}


def test_what_only_a_switch_needs_is_fetched_when_it_is_on(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.provision.source.provide", lambda *_: volume / "source")
    monkeypatch.setattr("engines.provision.requirements.importable", lambda *_: True)
    name = "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"
    hub.models[name] = VOICE
    off = settings(tts_model_mode="clone")
    provide("tts", off, told)
    left = {"flow.decoder.estimator.fp32.onnx", "README.md", "llm.rl.pt"}
    kept = record.read(volume / name)
    assert kept is not None
    assert set(kept.files) == set(VOICE) - left
    hub.seen.clear()
    provide("tts", settings(tts_model_mode="clone", tts_load_trt=True), told)
    assert [one.path.split("FilePath=")[1] for one in hub.seen if "FilePath" in one.path] == [
        "flow.decoder.estimator.fp32.onnx"
    ]
    provide("tts", off, told)  # more than needed is no fault


CHAT = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": content(4000, 6),
    "model-00002-of-00002.safetensors": content(4000, 7),
    "preprocessor_config.json": b"{}",
    "tokenizer_config.json": b"{}",
    "speech_tokenizer/tokenizer.json": b"{}",
    "README.md": b"a long story",
    "picture.png": b"a picture",
}


def test_conversation_gets_two_sources_its_model_and_its_vocoder(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.provision.source.provide", lambda source, *_: volume / source.name)
    monkeypatch.setattr("engines.provision.requirements.importable", lambda *_: True)
    hub.models["FunAudioLLM/Fun-Audio-Chat-8B"] = CHAT
    hub.models["FunAudioLLM/Fun-CosyVoice3-0.5B-2512"] = VOICE
    provided = provide("s2s", settings(), told)
    assert provided.python_path == (volume / "CosyVoice", volume / "Fun-Audio-Chat")
    kept = record.read(volume / "FunAudioLLM/Fun-Audio-Chat-8B")
    assert kept is not None
    assert set(kept.files) == set(CHAT) - {"README.md", "picture.png"}
    assert told.of("model Fun-Audio-Chat-8B") and told.of("model Fun-CosyVoice3-0.5B-2512")
    hub.seen.clear()
    provide("s2s", settings(), told)
    provide("tts", settings(tts_model_mode="clone"), told)  # which has the vocoder's model in common
    assert not hub.seen

    hub.models["FunAudioLLM/Fun-Audio-Chat-8B"] = {name: body for name, body in CHAT.items() if "speech_" not in name}
    shutil.rmtree(volume / "FunAudioLLM" / "Fun-Audio-Chat-8B")
    with pytest.raises(ProvisionError, match=r"lacks speech_tokenizer/\*token\*"):
        provide("s2s", settings(), told)


def test_a_switch_that_a_hub_has_no_file_for(
    settings: Make, hub: FakeHub, told: Told, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.provision.source.provide", lambda *_: volume / "source")
    monkeypatch.setattr("engines.provision.requirements.importable", lambda *_: True)
    name = "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"
    hub.models[name] = {path: body for path, body in VOICE.items() if not path.endswith("fp32.onnx")}
    asked = settings(tts_model_mode="clone", tts_load_trt=True, model_hub="huggingface")
    with pytest.raises(ProvisionError, match=r"lacks flow\.decoder\.estimator\.fp32\.onnx; MODEL_HUB=modelscope may"):
        provide("tts", asked, told)


def test_a_preset_voice_model_needs_its_voices(
    settings: Make, told: Told, tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.provision.source.provide", lambda *_: volume / "source")
    folder = tmp_path / "sft"
    folder.mkdir()
    for name in ("cosyvoice.yaml", "llm.pt", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v1.onnx"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(ProvisionError, match=r"SFT_MODEL_ID: .* lacks spk2info\.pt"):
        provide("tts", settings(tts_model_mode="sft", sft_model_id=str(folder)), told)


LOCK = """
[models."lab/tiny"]
kind = "funasr"
[models."lab/tiny".modelscope]
id = "lab/tiny"
revision = "v1"
[models."lab/tiny".modelscope.files]
"model.pt" = { %s }
"""


def pinned(tmp_path: Path, pin: str) -> Path:
    path = tmp_path / "models.lock"
    path.write_text(Engines().models_lock.read_text() + LOCK % pin)
    return path


def test_a_file_that_is_not_the_pinned_one_is_refused(settings: Make, hub: FakeHub, told: Told, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match=r"model\.pt of .* is not the file that models\.lock pins \(600000 bytes"):
        provide("asr", settings(models_lock=pinned(tmp_path, "size = 12")), told)
    assert not hub.asked("model.pt")


def test_a_model_that_is_not_the_pinned_one_any_more_is_found_out(
    settings: Make, volume: Path, hub: FakeHub, told: Told, tmp_path: Path
) -> None:
    right = settings(models_lock=pinned(tmp_path, "size = 600000"))
    provide("asr", right, told)
    pinned(tmp_path, f'sha256 = "{"0" * 64}"')
    assert faults("asr", right, told) == [f"{volume / MODEL}/model.pt is not the file that models.lock pins"]


def test_a_model_that_only_the_other_hub_has_comes_from_there(
    settings: Make, volume: Path, hub: FakeHub, told: Told, tmp_path: Path
) -> None:
    provide("asr", settings(models_lock=pinned(tmp_path, "size = 600000"), model_hub="huggingface"), told)
    assert whole(volume, hub)
    assert all("/api/v1/" in one.path for one in hub.seen)


def test_the_parts_of_no_use_are_removed(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    folder = volume / MODEL
    folder.mkdir(parents=True)
    for name in ("gone.pt.part", "gone.pt.part.etag", ".voxgate.json.12.part"):
        (folder / name).write_bytes(b"left")
    provide("asr", settings(), told)
    assert whole(volume, hub)


def test_what_listens_to_the_progress_can_break_it_off(
    settings: Make, volume: Path, hub: FakeHub, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception): ...

    def stop(progress: Progress) -> None:
        if progress.bytes > 50_000:
            raise Stopped

    monkeypatch.setattr("engines.provision.progress._INTERVAL", 0.0)
    hub.bad["model.pt"] = [("hold", 100_000)]
    with pytest.raises(Stopped):
        provide("asr", settings(), stop)
    assert (volume / MODEL / "model.pt.part").exists()
    hub.released.set()
    provide("asr", settings(), told)
    assert whole(volume, hub)


def test_a_broken_record_is_no_record(settings: Make, volume: Path, hub: FakeHub, told: Told) -> None:
    provide("asr", settings(), told)
    for broken in ("", "[]", '{"version": 9}', '{"version": 1, "files": {"a": {}}}'):
        (volume / MODEL / record.NAME).write_text(broken)
        assert faults("asr", settings(), told) == [f"{volume / MODEL} was never completed"]
    assert models.faults is not faults
