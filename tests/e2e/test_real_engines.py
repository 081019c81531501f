"""The gateway before the real engines, every one its own process, on models that the tests make.

CosyVoice 3 and 300M and SenseVoice run upstream's own code on tiny networks; SenseVoice knows six sentences.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.wire import cosyvoice as wire
from tests.tiny.fixtures import TinyModel

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
TEXT = "今天天气很好，我们去公园吧。"


@dataclass(frozen=True, slots=True)
class Stack:
    url: str
    tts: str
    asr: str
    grpc: int
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]]

    def everyone(self) -> list[psutil.Process]:
        parents = [psutil.Process(process.pid) for process in self.processes.values()]
        return parents + [child for parent in parents for child in parent.children(recursive=True)]

    def workers(self, module: str) -> list[psutil.Process]:
        return [one for one in self.everyone() if module in one.cmdline()]

    def speak(self, text: str = TEXT, **fields: str) -> httpx.Response:
        body = {"text": text, "speaker_id": "中文女", **fields}
        return httpx.post(f"{self.url}/api/synthesize", json=body, timeout=60)

    def hear(self, audio: bytes, **fields: str) -> httpx.Response:
        return httpx.post(f"{self.url}/api/transcribe", files={"audio": audio}, data=fields, timeout=60)

    def clone(self, audio: bytes) -> str:
        form = {"device_id": "laptop", "name": "Ann"}
        answer = httpx.post(f"{self.url}/v1/voices/train", data=form, files={"audio": audio}, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["voiceId"])


@pytest.fixture(scope="module")
def stack(
    tiny_cosyvoice: TinyModel, cosyvoice_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with warnings.catch_warnings(action="ignore"):  # libraries, about other libraries
        from tests.tiny import funasr

        knowing, streaming, vad = (
            funasr.trained("sensevoice"),
            funasr.trained("paraformer-streaming"),
            funasr.built("fsmn-vad"),
        )
    folder = tmp_path_factory.mktemp("stack")
    models = folder / "models"
    (models / "source").mkdir(parents=True)
    (models / "source" / cosyvoice_source.name).symlink_to(cosyvoice_source, target_is_directory=True)
    environment = {
        "MODELS_DIR": str(models),
        "TTS_GPUS": "cpu",
        "ASR_GPUS": "cpu",
        "SFT_MODEL_ID": str(tiny_cosyvoice("cosyvoice")),
        "COSYVOICE3_MODEL_ID": str(tiny_cosyvoice("cosyvoice3")),
        "ASR_MODEL_ID": str(knowing),
        "ASR_REALTIME_MODEL_ID": str(streaming),
        "VAD_MODEL_ID": str(vad),
        "PUNC_MODEL_ID": "none",
        "TMPDIR": str(folder / "tmp"),
    }
    (folder / "tmp").mkdir()
    tts, grpc, asr, port, avatar = (free_port() for _ in range(5))
    commands = {
        "tts": ["engines.tts", "--backend", "cosyvoice", "--port", str(tts), "--grpc-port", str(grpc)],
        "asr": ["engines.asr", "--backend", "funasr", "--port", str(asr), "--scratch", str(folder / "tmp")],
        "gateway": [
            "gateway", "serve", "--host", "127.0.0.1", "--port", str(port), "--avatar-port", str(avatar),
            "--data-dir", str(folder / "data"), "--speak-urls", f"http://127.0.0.1:{tts}",
            "--transcribe-engine", "funasr", "--transcribe-urls", f"http://127.0.0.1:{asr}",
        ],
    }  # fmt: skip
    with ExitStack() as running:
        processes = {
            name: running.enter_context(process(folder / f"{name}.log", command, environment))
            for name, command in commands.items()
        }
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: status(f"{url}/ready") == 200, 90)
        yield Stack(url, f"http://127.0.0.1:{tts}", f"http://127.0.0.1:{asr}", grpc, folder, processes)


@contextmanager
def process(log: Path, command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
        )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


def eventually(true: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def wav(pcm: bytes, rate: int = 16_000) -> bytes:
    import io

    with wave.open(file := io.BytesIO(), "wb") as into:
        into.setnchannels(1)
        into.setsampwidth(2)
        into.setframerate(rate)
        into.writeframes(pcm)
    return file.getvalue()


@pytest.fixture(scope="module")
def two_sentences() -> bytes:
    from tests.tiny import funasr

    quiet, long_quiet = funasr.silence(0.5), funasr.silence(1.2)
    return wav(funasr.pcm(quiet, funasr.say("今天天气很好"), long_quiet, funasr.say("明天上午九点开会"), long_quiet))


@pytest.fixture(scope="module")
def reference() -> bytes:
    from tests.tiny import funasr

    return wav(funasr.pcm(*[funasr.say("今天天气很好"), funasr.silence(0.2)] * 3))


def test_presets_and_cloned_voices_come_at_the_rate_of_their_model(stack: Stack, reference: bytes) -> None:
    assert rate_of(stack.speak()) == 22_050
    voice = stack.clone(reference)
    assert rate_of(stack.speak(speaker_id=voice, device_id="laptop")) == 24_000


def rate_of(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    assert answer.content[:4] == b"RIFF"
    assert len(answer.content) > 10_000
    return int.from_bytes(answer.content[24:28], "little")


def test_a_recording_becomes_the_right_chinese_text(stack: Stack, two_sentences: bytes) -> None:
    answer = stack.hear(two_sentences)
    assert answer.json() == {"text": "今天天气很好明天上午九点开会", "language": "中文", "success": True}


def test_silence_has_no_text_whatever_the_hotwords(stack: Stack) -> None:
    assert stack.hear(wav(bytes(96_000)), hotwords="阿里,天气").json()["text"] == ""


def test_a_listener_who_leaves_frees_the_engine_at_once(stack: Stack) -> None:
    long = {"text": TEXT * 200, "speaker_id": "中文女"}
    with httpx.stream("POST", f"{stack.url}/api/synthesize", json=long, timeout=60) as answer:
        assert answer.status_code == 200
        next(answer.iter_bytes(1024))
    began = time.monotonic()
    assert rate_of(stack.speak()) == 22_050
    assert time.monotonic() - began < 20, "the long text was spoken to its end"


def test_a_worker_killed_in_its_answer_breaks_it_off_and_the_next_request_works(stack: Stack) -> None:
    (worker,) = stack.workers("engines.tts.worker")
    long = {"text": TEXT * 200, "speaker_id": "中文女"}
    with (
        pytest.raises(httpx.TransportError),
        httpx.stream("POST", f"{stack.url}/api/synthesize", json=long, timeout=60) as answer,
    ):
        pieces = answer.iter_bytes(1024)
        next(pieces)
        worker.send_signal(signal.SIGKILL)
        for _ in pieces:
            pass
    eventually(lambda: stack.speak().status_code == 200, 60)


def prompt(pcm: bytes) -> dict[str, tuple[str, bytes, str]]:
    return {"prompt_wav": ("prompt.wav", wav(pcm), "audio/wav")}


def noise(seconds: float) -> bytes:
    import numpy as np

    return bytes((np.random.default_rng(0).standard_normal(int(16_000 * seconds)) * 3000).astype("<i2").tobytes())


BAD_PROMPTS = {
    "under 1 s": (prompt(noise(0.7)), "at least"),
    "over 30 s": (prompt(noise(31)), "more than 30 s"),
    "silent": (prompt(bytes(64_000)), "silent"),
    "undecodable": ({"prompt_wav": ("prompt.wav", b"\x00\x01" * 5000, "audio/wav")}, "not a readable"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_a_bad_prompt_is_refused_before_the_first_byte(stack: Stack, name: str) -> None:
    files, says = BAD_PROMPTS[name]
    answer = httpx.post(stack.tts + wire.CROSS_LINGUAL, data={"tts_text": TEXT}, files=files, timeout=30)
    assert (answer.status_code, says in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"tts_text": "", "spk_id": "中文女"}, 400),
        ({"tts_text": "😀🎉<|zh|>", "spk_id": "中文女"}, 400),
        ({"tts_text": "字" * 100_001, "spk_id": "中文女"}, 413),
        ({"tts_text": TEXT, "spk_id": "nobody"}, 400),
        ({"tts_text": TEXT}, 422),
        ({"tts_text": TEXT, "spk_id": "中文女", "speed": "9"}, 422),
        ({"tts_text": TEXT, "spk_id": "中文女", "seed": "x"}, 422),
    ],
)
def test_a_bad_form_is_refused_before_the_first_byte(stack: Stack, form: dict[str, str], expected: int) -> None:
    answer = httpx.post(stack.tts + wire.SFT, data=form, timeout=30)
    assert (answer.status_code, bool(answer.json()["error"])) == (expected, True)
    assert "字字" not in answer.text


def test_100_000_characters_are_begun_soon(stack: Stack) -> None:
    form = {"tts_text": (TEXT * 10_000)[:100_000], "spk_id": "中文女"}
    with httpx.stream("POST", stack.tts + wire.SFT, data=form, timeout=60) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_bytes(1024))


@pytest.mark.parametrize("mode", ["sft", "zero_shot", "cross_lingual", "instruct"])
def test_upstreams_own_client_gets_its_file(
    stack: Stack, cosyvoice_source: Path, tmp_path: Path, reference: bytes, mode: str
) -> None:
    (tmp_path / "prompt.wav").write_bytes(reference)
    script = cosyvoice_source / "runtime/python/fastapi/client.py"
    done = subprocess.run(
        [
            sys.executable, script, "--host", "127.0.0.1", "--port", stack.tts.rsplit(":", 1)[1], "--mode", mode,
            "--tts_text", TEXT, "--prompt_wav", tmp_path / "prompt.wav", "--tts_wav", tmp_path / "out.wav",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with wave.open(str(tmp_path / "out.wav")) as made:
        assert made.getnframes() > 10_000


def test_500_requests_good_and_bad_leave_nothing_behind(stack: Stack, two_sentences: bytes) -> None:
    from tests.tiny import funasr

    short = wav(funasr.pcm(funasr.say("你好世界"), funasr.silence(0.3)))

    def each(number: int) -> None:
        match number % 5:
            case 0:
                assert stack.speak("你好。").status_code == 200
            case 1:
                assert stack.hear(short).status_code == 200
            case 2:
                assert stack.hear(b"not audio").status_code == 422
            case 3:
                answer = httpx.post(stack.tts + wire.CROSS_LINGUAL, data={"tts_text": TEXT}, files=prompt(bytes(9)))
                assert answer.status_code == 422
            case 4:
                form = {"tts_text": "你好。", "prompt_text": "你好世界"}
                files = prompt(noise(1.5 + number % 7 / 10))
                answer = httpx.post(stack.tts + wire.ZERO_SHOT, data=form, files=files, timeout=60)
                assert answer.status_code == 200

    for number in range(100):  # until every pool and cache has its size
        each(number)
    before, files = footprint(stack), leftovers(stack)
    for number in range(500):
        each(number)
    eventually(lambda: footprint(stack)[1] <= before[1] + 3, 20)
    after = footprint(stack)
    assert after[0] < before[0] * 1.1, f"{before[0] / 1e6:.0f} MB became {after[0] / 1e6:.0f}"
    assert leftovers(stack) == files


def leftovers(stack: Stack) -> set[Path]:
    """What lies where requests are worked on; each worker has a folder there."""
    return {path for folder in ("tmp", "data/scratch") for path in (stack.folder / folder).rglob("*")}


def footprint(stack: Stack) -> tuple[int, int]:
    """(resident bytes, open files), of everyone."""
    everyone = stack.everyone()
    return sum(one.memory_info().rss for one in everyone), sum(one.num_fds() for one in everyone)


def test_nobody_logged_what_was_said(stack: Stack) -> None:
    logs = "".join((stack.folder / f"{name}.log").read_text() for name in stack.processes)
    assert not [said for said in ("天气", "公园", "你好", "上午") if said in logs]
