"""Upstream's own servers, unmodified but for one environment variable, and what the gateway and upstream's own clients
get from them. What holds for these holds for our engine server as well."""

import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.adapters.connections import Client
from gateway.adapters.cosyvoice import CosyVoice
from gateway.adapters.cosyvoice_grpc import CosyVoiceGrpc
from gateway.events import Audio
from gateway.settings import Settings
from gateway.supervise import free_port
from gateway.verbs import Preset, Reference, Speak
from tests.conftest import speech
from tests.patches.conftest import ROOT, START, environment
from tests.patches.generated import generate
from tests.tiny.cosyvoice import SAMPLE_RATE

pytestmark = pytest.mark.engine

PCM = speech(3.0)[44:]
VOICE = Reference(pcm=PCM, sample_rate=16_000, digest="ann", text="")
VOICE_WITH_WORDS = Reference(pcm=PCM, sample_rate=16_000, digest="ann", text="Her own words.")
LONG = "This sentence goes on until it is long enough to stand for itself, as a sentence of a book would. " * 2
SECRET = "Pineapple"


@dataclass(frozen=True)
class Deployment:
    url: str
    """http:// or grpc://"""
    version: str
    log: Path
    port: int
    states_its_rate: bool = False

    @property
    def rate(self) -> int:
        return SAMPLE_RATE[self.version]


@contextmanager
def serving(command: list[str], cwd: Path, port: int, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A process that listens on `port`, ended with the block."""
    with log.open("wb") as said:
        process = subprocess.Popen([sys.executable, *command], cwd=cwd, env=environment, stdout=said, stderr=said)
        try:
            _until_it_listens(process, port, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)


@contextmanager
def upstream_http(cosyvoice_source: Path, folder: Path, version: str, *paths: Path) -> Iterator[Deployment]:
    port, cwd, log = free_port(), cosyvoice_source / "runtime" / "python" / "fastapi", folder / f"http-{version}.log"
    command = ["server.py", "--port", str(port), "--model_dir", str(folder / version)]
    with serving(command, cwd, port, log, environment(*paths)):
        yield Deployment(f"http://127.0.0.1:{port}", version, log, port)


@contextmanager
def upstream_grpc(cosyvoice_source: Path, folder: Path, version: str, messages: Path) -> Iterator[Deployment]:
    port, cwd, log = free_port(), cosyvoice_source / "runtime" / "python" / "grpc", folder / f"grpc-{version}.log"
    command = ["server.py", "--port", str(port), "--model_dir", str(folder / version)]
    with serving(command, cwd, port, log, environment(START, messages)):
        yield Deployment(f"grpc://127.0.0.1:{port}", version, log, port)


@contextmanager
def ours(source: Path, folder: Path, version: str) -> Iterator[Deployment]:
    """Our engine server, as `make up` starts it on a machine without a GPU."""
    port, log = free_port(), folder / f"ours-{version}.log"
    settings = {
        "MODELS_DIR": str(folder / f"ours-{version}"),
        "COSYVOICE_SOURCE": str(source),
        "TTS_GPUS": "cpu",
        "TTS_MODEL_MODE": "clone",
        "CLONE_MODEL_VERSION": version,
        "CLONE_MODEL_ID": str(folder / version),
        "COSYVOICE3_MODEL_ID": str(folder / version),
    }
    command = ["-m", "engines.tts", "--backend", "cosyvoice", "--port", str(port)]
    with serving(command, ROOT, port, log, environment() | settings):
        _until_it_is_ready(f"http://127.0.0.1:{port}/health", log)
        yield Deployment(f"http://127.0.0.1:{port}", version, log, port, states_its_rate=True)


def _until_it_is_ready(url: str, log: Path) -> None:
    until = time.monotonic() + 120
    while httpx.get(url).status_code != 200:
        assert time.monotonic() < until, httpx.get(url).text + log.read_text()[-3000:]
        time.sleep(0.1)


@pytest.fixture(scope="session")
def messages(cosyvoice_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where upstream's gRPC programs find what protoc makes."""
    return generate(cosyvoice_source / "runtime/python/grpc/cosyvoice.proto", tmp_path_factory.mktemp("messages"))


@pytest.fixture(
    scope="module",
    params=[
        "http cosyvoice",
        "http cosyvoice2",
        "http cosyvoice3",
        "grpc cosyvoice2",
        "ours cosyvoice2",
        "ours cosyvoice3",
    ],
)
def deployment(
    request: pytest.FixtureRequest, cosyvoice_source: Path, folder: Path, messages: Path
) -> Iterator[Deployment]:
    kind, version = request.param.split()
    started = {
        "http": lambda: upstream_http(cosyvoice_source, folder, version, START),
        "grpc": lambda: upstream_grpc(cosyvoice_source, folder, version, messages),
        "ours": lambda: ours(cosyvoice_source, folder, version),
    }
    with started[kind]() as deployment:
        yield deployment


@pytest.fixture
async def http() -> AsyncIterator[Client]:
    async with Client(connect=2, idle=60, total=60) as http:
        yield http


@pytest.fixture
def adapter(deployment: Deployment, http: Client) -> CosyVoice | CosyVoiceGrpc:
    kind = CosyVoice if deployment.url.startswith("http") else CosyVoiceGrpc
    return kind(
        deployment.url, http, Settings(speak_sample_rate=None if deployment.states_its_rate else deployment.rate)
    )


async def spoken(adapter: CosyVoice | CosyVoiceGrpc, job: Speak) -> list[Audio]:
    async with adapter.session(job) as pieces:
        return [piece async for piece in pieces]


def seconds(pieces: list[Audio]) -> float:
    return sum(len(piece.pcm) / 2 / piece.sample_rate for piece in pieces)


def kinds(deployment: Deployment) -> list[Speak]:
    """All that a deployment has words for."""
    jobs = [Speak("Hello.", VOICE), Speak("Hello.", VOICE, language="en"), Speak("Hello.", VOICE_WITH_WORDS)]
    if deployment.version == "cosyvoice":
        jobs += [Speak("Hello.", Preset("中文女")), Speak("Hello.", Preset("中文女"), instruction="Slowly.")]
    elif deployment.url.startswith("http"):
        jobs += [Speak("Hello.", VOICE, instruction="Slowly.")]
    return jobs


class TestThroughTheGateway:
    async def test_every_kind_of_job_is_spoken(
        self, deployment: Deployment, adapter: CosyVoice | CosyVoiceGrpc
    ) -> None:
        for job in kinds(deployment):
            pieces = await spoken(adapter, job)
            assert seconds(pieces) > 0.5 and {piece.sample_rate for piece in pieces} == {deployment.rate}, job

    async def test_a_long_text_comes_in_sentences(
        self, deployment: Deployment, adapter: CosyVoice | CosyVoiceGrpc
    ) -> None:
        short = seconds(await spoken(adapter, Speak("Hello.", VOICE_WITH_WORDS)))
        assert seconds(await spoken(adapter, Speak(LONG, VOICE_WITH_WORDS))) > 2 * short

    async def test_one_who_leaves_does_not_disturb_the_next(
        self, deployment: Deployment, adapter: CosyVoice | CosyVoiceGrpc
    ) -> None:
        async with adapter.session(Speak(LONG, VOICE)) as pieces:
            await anext(aiter(pieces))
        assert seconds(await spoken(adapter, Speak("Hello.", VOICE))) > 0.5

    async def test_no_text_is_logged(self, deployment: Deployment, adapter: CosyVoice | CosyVoiceGrpc) -> None:
        await spoken(adapter, Speak(SECRET, Reference(PCM, 16_000, "ann", text=f"{SECRET} and more of that kind.")))
        assert SECRET not in deployment.log.read_text()


@pytest.mark.parametrize("deployment", ["http cosyvoice3"], indirect=True)
class TestOverHttp:
    def test_an_upload_that_holds_no_sound_is_refused_before_the_answer_begins(self, deployment: Deployment) -> None:
        answer = httpx.post(
            f"{deployment.url}/inference_zero_shot",
            data={"tts_text": "Hello.", "prompt_text": "Words."},
            files={"prompt_wav": b"no sound"},
            timeout=30,
        )
        assert answer.status_code == 500

    @pytest.mark.parametrize("mode", ["zero_shot", "cross_lingual"])
    def test_upstreams_own_client_gets_its_file(
        self, deployment: Deployment, cosyvoice_source: Path, folder: Path, tmp_path: Path, mode: str
    ) -> None:
        client = cosyvoice_source / "runtime" / "python" / "fastapi" / "client.py"
        assert _seconds_of_file(client, deployment, mode, folder / "prompt.wav", tmp_path) > 1


@pytest.mark.parametrize("deployment", ["grpc cosyvoice2"], indirect=True)
@pytest.mark.parametrize("mode", ["zero_shot", "cross_lingual"])
def test_upstreams_own_client_gets_its_file_over_grpc(
    deployment: Deployment, cosyvoice_source: Path, folder: Path, messages: Path, tmp_path: Path, mode: str
) -> None:
    client = cosyvoice_source / "runtime" / "python" / "grpc" / "client.py"
    assert _seconds_of_file(client, deployment, mode, folder / "prompt.wav", tmp_path, messages) > 1


def _seconds_of_file(
    client: Path, deployment: Deployment, mode: str, prompt: Path, folder: Path, *paths: Path
) -> float:
    """What the client has saved. It believes every engine to speak at 22050 Hz."""
    saved = folder / "said.wav"
    arguments = ["--host", "127.0.0.1", "--port", str(deployment.port), "--mode", mode, "--tts_text", "Hello there."]
    arguments += ["--prompt_wav", str(prompt), "--tts_wav", str(saved)]
    done = subprocess.run(
        [sys.executable, str(client), *arguments], env=environment(*paths), capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with wave.open(str(saved)) as file:
        return file.getnframes() / file.getframerate()


def test_without_the_variable_the_same_server_breaks_off(cosyvoice_source: Path, folder: Path, tmp_path: Path) -> None:
    """With only what it needs to start at all, where what training uses is not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys; sys.path.append({str(START.parent.parent)!r}); import patches; everything = patches.found\n"
        "patches.found = lambda: [patch for patch in everything() if patch.__name__.endswith('training_only')]\n"
        "patches.install()\n"
    )
    with (
        upstream_http(cosyvoice_source, folder, "cosyvoice2", tmp_path) as deployment,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.post(
            f"{deployment.url}/inference_cross_lingual",
            data={"tts_text": "Hello."},
            files={"prompt_wav": speech()},
            timeout=60,
        )
    assert "TypeError: Invalid file: tensor(" in deployment.log.read_text()
