"""What goes wrong with CosyVoice, and what is left behind."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from engines.tts.backends.cosyvoice import CosyVoice, OutOfMemory
from engines.tts.backends.cosyvoice_model import Unusable
from gateway.wire import cosyvoice as wire
from tests.engines.tts.tiny_backend import TEXT, WARNINGS, backend, clone_of, job, pieces, samples, threads
from tests.tiny.fixtures import TinyModel

torch = pytest.importorskip("torch", reason="the packages of the real engines are not installed")

pytestmark = [pytest.mark.engine, *map(pytest.mark.filterwarnings, WARNINGS)]


@pytest.fixture(scope="module")
def third(tiny_cosyvoice: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> CosyVoice:
    return backend(tiny_cosyvoice, tmp_path_factory.mktemp("models"), "cosyvoice3")


@pytest.fixture(scope="module")
def second(tiny_cosyvoice: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> CosyVoice:
    return backend(tiny_cosyvoice, tmp_path_factory.mktemp("models"), "cosyvoice2", mode="clone")


class Counting:
    """`stopped`, true from the nth time on that it is asked."""

    def __init__(self, n: int) -> None:
        self.asked, self.n = 0, n

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self.n


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", [wire.SFT, wire.ZERO_SHOT])
def test_a_cancelled_request_ends_within_a_token(third: CosyVoice, mode: str, stream: bool) -> None:
    before, stopped = threads(), Counting(5)
    assert list(third.speak(job(mode, stream=stream), stopped)) == []
    assert stopped.asked <= 6  # the language model asks once a token, and was going to make 96 or more
    assert threads() == before


def test_a_listener_who_leaves_ends_the_language_model(second: CosyVoice) -> None:
    before = threads()
    speaking = second.speak(job(wire.ZERO_SHOT, TEXT * 4), lambda: False)
    assert next(speaking)
    speaking.close()
    assert threads() == before
    assert samples(second, job(wire.ZERO_SHOT)).any()


def test_a_request_that_is_never_begun_holds_nothing(third: CosyVoice) -> None:
    third.speak(job(wire.ZERO_SHOT), lambda: False).close()
    assert samples(third, job(wire.ZERO_SHOT)).any()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("part", ["flow", "llm", "hift"])
def test_a_full_device_is_said_to_be_before_any_sound(
    third: CosyVoice, monkeypatch: pytest.MonkeyPatch, part: str, stream: bool
) -> None:
    before = threads()

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(getattr(clone_of(third)._upstream.model, part), "inference", full)
        with pytest.raises(OutOfMemory, match="^out of memory$") as refused:
            next(third.speak(job(wire.ZERO_SHOT, stream=stream), lambda: False))
    assert refused.value.status == 503
    assert threads() == before
    assert samples(third, job(wire.ZERO_SHOT)).any()


def test_a_device_too_full_to_hear_a_recording_is_said_to_be(third: CosyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> Any:
        raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9")

    speakers = clone_of(third).speakers
    monkeypatch.setattr(speakers, "_extract", full)
    monkeypatch.setattr(speakers, "_known", type(speakers._known)())
    monkeypatch.setattr(speakers, "_folder", speakers._folder / "elsewhere")
    with pytest.raises(OutOfMemory):
        third.speak(job(wire.ZERO_SHOT), lambda: False)


def test_any_other_failure_reaches_the_caller(third: CosyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(clone_of(third)._upstream.model.llm, "inference", broken)
        with pytest.raises(ZeroDivisionError):
            next(third.speak(job(wire.ZERO_SHOT), lambda: False))
    assert samples(third, job(wire.ZERO_SHOT)).any()


def test_two_requests_at_once_are_not_mixed(third: CosyVoice) -> None:
    one = third.speak(job(wire.ZERO_SHOT), lambda: False)
    next(one)
    with pytest.raises(RuntimeError, match="one request at a time"):
        next(third.speak(job(wire.ZERO_SHOT), lambda: False))
    one.close()


@pytest.mark.parametrize(
    ("version", "mode", "name"),
    [
        *(
            ("cosyvoice3", "clone", name)
            for name in (
                "llm.pt", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v3.onnx",
                "CosyVoice-BlankEN/config.json", "cosyvoice3.yaml",
            )
        ),
        ("cosyvoice2", "clone", "speech_tokenizer_v2.onnx"),
        ("cosyvoice", "sft", "speech_tokenizer_v1.onnx"),
        ("cosyvoice", "sft", "spk2info.pt"),
    ],
)  # fmt: skip
def test_a_file_that_is_missing_is_named(
    tiny_cosyvoice: TinyModel, tmp_path: Path, version: str, mode: str, name: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_cosyvoice(version), folder, copy_function=os.link)
    (folder / name).unlink()
    with pytest.raises(Unusable, match=rf"lacks .*{name}") as said:
        backend(lambda _: folder, tmp_path, mode=mode)
    assert "\n" not in str(said.value)


def test_a_gpu_that_is_not_there_is_said_to_be(
    tiny_cosyvoice: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.settings import Engines

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unusable, match="cuda:0 was asked for"):
        CosyVoice(Engines(models_dir=tmp_path), "cuda:0").load()


def test_a_hundred_requests_leave_nothing_behind(
    third: CosyVoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked = job(wire.INSTRUCT2, "好", stream=False)
    stopped = job(wire.INSTRUCT2, "好的，谢谢你。")
    pieces(third, asked)
    before = threads(), open_files()
    for _ in range(50):
        assert samples(third, asked).any()
        speaking = third.speak(stopped, lambda: False)
        next(speaking)
        speaking.close()
    model = clone_of(third)._upstream.model
    assert (threads(), open_files()) == before
    assert not list(tmp_path.iterdir())
    assert not (model.tts_speech_token_dict or model.llm_end_dict or model.hift_cache_dict)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
