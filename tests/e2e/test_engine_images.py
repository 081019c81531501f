"""The images of the real engines, on a host without a GPU: what compose.yaml deploys, its way to the GPU taken away.

Their networks are sealed, and their models are tiny ones, which the environment of `make test-engines` makes. One stack
serves the whole file, in the order of the file: first a model and a source are missing, then they come.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.wire import opus, turns, wav
from tests.e2e import client, talk
from tests.e2e.stack import ROOT, Stack, docker, no_docker, wait_until
from tests.tiny.fixtures import fun_audio_chat_source as fun_audio_chat_source
from tests.tiny.speech import RATE, SENTENCES, pcm, say, silence

pytestmark = pytest.mark.docker

ENGINES = ("tts", "asr", "s2s")
WORKERS = {
    "tts": ("engines.tts.worker",),
    "asr": ("engines.asr.worker", "engines.asr.live.worker"),
    "s2s": ("engines.s2s.worker", "engines.s2s.vocoder_worker"),
}
MODELS = {
    "TTS_GPUS": "cpu",
    "ASR_GPUS": "cpu",
    "S2S_GPUS": "cpu",
    "SFT_MODEL_ID": "/models/tiny/cosyvoice",
    "COSYVOICE3_MODEL_ID": "/models/tiny/cosyvoice3",
    "ASR_MODEL_ID": "/models/tiny/sensevoice",
    "ASR_REALTIME_MODEL_ID": "/models/tiny/paraformer-streaming",
    "VAD_MODEL_ID": "/models/tiny/fsmn-vad",
    "PUNC_MODEL_ID": "none",
    "S2S_MODEL_ID": "/models/tiny/fun-audio-chat",
    "S2S_VOCODER_MODEL_ID": "/models/tiny/fun-audio-chat-vocoder",
}
CONVERSING = {"COMPOSE_PROFILES": "s2s", "VOXGATE_CONVERSE_ENGINE": "fun_audio_chat"}
"""What `make up` makes of COMPOSE_PROFILES=s2s on a host with a GPU."""
EMPTY = tuple(folder.removeprefix("/models/tiny/") for folder in MODELS.values() if folder.startswith("/models/tiny/"))
WITHOUT_GPU = {"runtime": "runc", "healthcheck": {"interval": "1s", "retries": 2, "start_period": "1s"}}  # 0 is not set
PATIENCE = 180.0
"""Seconds: provisioning asks a name server that never answers five times; what is missing is looked for again after
thirty seconds; a busy machine imports torch."""
ALONE = ("--read-only", "--tmpfs", "/tmp:size=512m", "--network", "none", "--cap-drop", "ALL")
"""How an image runs without Compose."""

IMPORT = """
import importlib, sys
from engines.provision.requirements import imported_as
for name in sys.argv[1:]:
    importlib.import_module(imported_as(name))
import os; print(os.getuid())
"""
LIST_FILES = """
import json, os
found = {"large": [], "weights": [], "caches": []}
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
    found["caches"] += [folder for _ in [0] if folder.endswith((".cache/pip", "apt/lists")) and names]
    for name in names:
        path = os.path.join(folder, name)
        size = 0 if os.path.islink(path) else os.path.getsize(path)
        if size > 50e6 and "/site-packages/" not in path:
            found["large"].append(path)
        if size > 5e6 and path.endswith((".pt", ".pth", ".onnx", ".safetensors", ".ckpt", ".gguf", ".bin", ".plan")):
            found["weights"].append(path)
print(json.dumps(found))
"""
LIST_WRITABLE = """
import json, os
found = []
for folder, folders, _ in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
    if os.access(folder, os.W_OK):
        found.append(folder)
        folders.clear()
print(json.dumps(found))
"""
LIST_WORKERS = """
import pathlib, sys
for place in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (place / "cmdline").read_bytes().decode().split(chr(0))
    except OSError:
        continue
    if "{module}" in words:
        print(place.name)
"""
LISTEN = """
import json, sys
from websockets.sync.client import connect
from gateway.wire import funasr_2pass as wire
sound, heard = sys.stdin.buffer.read(), ""
with connect("ws://127.0.0.1:8003" + wire.PATH, subprotocols=["binary"], open_timeout=30) as server:
    asked = wire.Config(mode="2pass")
    server.send(wire.config(asked))
    step = wire.packet_bytes(asked)
    for at in range(0, len(sound), step):
        server.send(sound[at : at + step])
    server.send(wire.end())
    while not isinstance(said := wire.read_engine(server.recv(timeout=60)), wire.Ended):
        if said.whole:
            heard += said.text
print(json.dumps(heard))
"""


class Images(Stack):
    """Compose itself, because `make` would ask for the GPU or take the embedded engines."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        overlay = folder / "without_gpu.yaml"
        overlay.write_text(yaml.safe_dump({"services": dict.fromkeys(ENGINES, WITHOUT_GPU)}))
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        command = ["docker", "compose"] if plugin else ["docker-compose"]
        self._command = [*command, "-f", "compose.yaml", "-f", str(overlay)]
        self.images["s2s"] = self.images["tts"].replace("tts", "s2s")
        self.environment |= MODELS | CONVERSING | {"SEALED": "true", "SETTINGS": "deploy/env.example"}
        self.environment["S2S_IMAGE"] = self.images["s2s"]

    def compose(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._command, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def bring(self, engine: str, *folders: Path) -> None:
        """Copies into the engine's volume, whether or not it runs."""
        service = f"label=com.docker.compose.service={engine}"
        container = docker("ps", "-aq", "--filter", self.filter, "--filter", service)
        for folder in folders:
            docker("cp", "--follow-link", str(folder), f"{container}:/models/")

    def engine(self, name: str) -> dict[str, Any]:
        """What the gateway's /health says of it."""
        body = httpx.get(f"{self.url}/health", timeout=10, trust_env=False).json()
        found: dict[str, Any] = body["engines"][name]
        return found

    def docker_says(self, name: str) -> str:
        return str(self.inspect(name)["State"]["Health"]["Status"])

    def workers(self, module: str) -> list[int]:
        engine = module.split(".")[1]
        return [int(line) for line in self.python(engine, LIST_WORKERS.format(module=module)).stdout.split()]

    def logs(self, name: str) -> str:
        done = subprocess.run(["docker", "logs", self.container(name)], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Up, with models that have a configuration and no weights, and without the sources of CosyVoice and
    Fun-Audio-Chat."""
    if reason := no_docker():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("images")
    for name in EMPTY:
        (folder / "tiny" / name).mkdir(parents=True)
        (folder / "tiny" / name / "config.yaml").touch()
    stack = Images(folder)
    try:
        stack.compose("build")
        stack.compose("up", "--no-start")
        stack.bring("tts", folder / "tiny")
        stack.compose("up", "-d")
        wait_until(lambda: _answers(stack), "the gateway to serve")
        yield stack
    finally:
        subprocess.run([*stack._command, "down", "-v"], cwd=ROOT, env=stack.environment, capture_output=True)
        # Without --no-prune the layers would go too, and the next run would build gigabytes again.
        subprocess.run(["docker", "rmi", "--no-prune", *stack.images.values()], capture_output=True)


@pytest.fixture(scope="module")
def engines_python() -> Path:
    python = ROOT / ".venv-engines" / "bin" / "python"
    if not python.exists():
        pytest.skip("tiny models need the environment that `make test-engines` makes")
    return python


@pytest.fixture(scope="module")
def recognition(engines_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models of recognition, which know six sentences."""
    folder = tmp_path_factory.mktemp("asr")
    subprocess.run([engines_python, "-m", "tests.e2e.tiny_models", "asr", folder], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def synthesis(engines_python: Path, cosyvoice_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models of synthesis, and upstream's source."""
    folder = tmp_path_factory.mktemp("tts")
    command = [engines_python, "-m", "tests.e2e.tiny_models", "tts", folder]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(cosyvoice_source)}, check=True)
    (folder / "source").mkdir()
    shutil.copytree(cosyvoice_source, folder / "source" / cosyvoice_source.name, ignore=shutil.ignore_patterns(".git"))
    return folder


@pytest.fixture(scope="module")
def conversation(
    engines_python: Path,
    synthesis: Path,
    cosyvoice_source: Path,
    fun_audio_chat_source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny models of conversation, and upstream's source; CosyVoice's, which it needs too, is synthesis's."""
    folder = tmp_path_factory.mktemp("s2s")
    command = [engines_python, "-m", "tests.e2e.tiny_models", "s2s", folder]
    path = f"{cosyvoice_source}:{fun_audio_chat_source}"
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True)
    (folder / "source").mkdir()
    copied = folder / "source" / fun_audio_chat_source.name
    shutil.copytree(fun_audio_chat_source, copied, ignore=shutil.ignore_patterns(".git"))
    return folder


@pytest.fixture
def http(stack: Images) -> Iterator[httpx.Client]:
    with client.connect(stack.url) as http:
        yield http


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_only_the_gpu_deployment_asks_for_the_gpu_and_builds_the_real_engines(device: str) -> None:
    if reason := no_docker():
        pytest.skip(reason)
    chosen = {"DEVICE": device, "ENV_FILE": "none", "GPUS": "0,1", "ASR_GPUS": "1", "CLONE_MODEL_VERSION": "cosyvoice2"}
    chosen |= {"COMPOSE_PROFILES": "s2s"}
    left_out = ("TTS_IMAGE", "ASR_IMAGE", "S2S_IMAGE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | chosen
    command = ["deploy/stack.sh", "config"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    services = yaml.safe_load(done.stdout)["services"]
    for engine in ENGINES if device == "gpu" else ("tts", "asr"):
        service = services[engine]
        assert service["runtime"] == ("nvidia" if device == "gpu" else "runc")
        assert service["build"].get("target") == (None if device == "gpu" else "embedded")
        assert service["image"] == f"voxgate-{engine}:{'latest' if device == 'gpu' else 'cpu'}"
        given = service["environment"]
        assert given["NVIDIA_VISIBLE_DEVICES"] == "0,1" and "compute" in given["NVIDIA_DRIVER_CAPABILITIES"]
    converses = services["gateway"]["environment"]["VOXGATE_CONVERSE_ENGINE"]
    assert converses == ("fun_audio_chat" if device == "gpu" else "cascade")
    assert services["asr"]["environment"]["ASR_GPUS"] == "1"
    assert services["tts"]["environment"]["CLONE_MODEL_VERSION"] == "cosyvoice2"


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("asr", r"ASR_MODEL_ID: /models/tiny/sensevoice lacks model\.pt"),
        ("tts", "CosyVoice .*set COSYVOICE_SOURCE"),
        ("s2s", "CosyVoice .*set COSYVOICE_SOURCE"),
    ],
)
def test_an_engine_that_lacks_something_says_what_and_stays_up(
    stack: Images, http: httpx.Client, engine: str, reason: str
) -> None:
    wait_until(lambda: "reason" in stack.engine(engine), f"{engine} to say what is missing", PATIENCE)
    found = stack.engine(engine)
    assert found["state"] != "ready" and re.search(reason, found["reason"]), found
    wait_until(lambda: stack.docker_says(engine) == "unhealthy", f"{engine}'s health check to fail")

    if engine == "s2s":
        with talk.connected(stack.url) as talker:
            done = talker.ask(talk.silence(1)).done
            (told,) = (one for one in talker.events if isinstance(one, turns.Failed) and one.turn == 1)
        assert done and done.status == "failed" and told.code == "engine_unavailable" and told.retry_after
    else:
        refused = _ask(http, engine)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
        assert "error" in refused.json()

    state = stack.inspect(engine)
    assert state["State"]["Running"] and state["RestartCount"] == 0
    (line, *_) = re.findall(f".*{reason}.*", stack.logs(engine))
    assert "Traceback" not in stack.logs(engine) and line.startswith("ERROR")


def test_recognition_recovers_when_its_models_come(stack: Images, recognition: Path) -> None:
    stack.bring("asr", recognition / "tiny")
    _wait_until_ready(stack, "asr")
    assert "sensevoice" in stack.engine("asr")["model"].lower()
    assert stack.engine("asr")["device"] == "cpu"


def test_synthesis_recovers_when_its_source_and_its_models_come(stack: Images, synthesis: Path) -> None:
    stack.bring("tts", synthesis / "tiny", synthesis / "source")
    _wait_until_ready(stack, "tts")
    assert "cosyvoice3" in stack.engine("tts")["model"].lower()
    assert stack.engine("tts")["device"] == "cpu"


def test_conversation_recovers_when_its_source_and_its_models_come(stack: Images, conversation: Path) -> None:
    stack.bring("s2s", conversation / "tiny", conversation / "source")
    _wait_until_ready(stack, "s2s")
    assert stack.engine("s2s")["model"] == "fun-audio-chat" and stack.engine("s2s")["device"] == "cpu"
    assert stack.engine("s2s")["adapter"] == "fun_audio_chat"


@pytest.mark.parametrize("text", SENTENCES[:3])
def test_recognition_understands_mandarin(http: httpx.Client, recognition: Path, text: str) -> None:
    assert client.transcribe(http, _recording(text), "中文") == text


def test_recognition_understands_live_mandarin(stack: Images, recognition: Path) -> None:
    command = ["docker", "exec", "-i", stack.container("asr"), "python", "-c", LISTEN]
    sound = pcm(silence(0.5), say(SENTENCES[0]), silence(1.5))
    done = subprocess.run(command, input=sound, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == SENTENCES[0]


def test_synthesis_speaks_with_a_preset_and_with_a_cloned_voice(
    http: httpx.Client, synthesis: Path, tmp_path: Path
) -> None:
    assert client.seconds(client.synthesize(http, "你好世界", "中文女")) > 1
    client.clone_a_voice_and_speak(http, tmp_path)


def test_conversation_answers_in_writing_and_in_sound(stack: Images, conversation: Path) -> None:
    with talk.connected(stack.url) as talker:
        for turn in (1, 2):
            if turn > 1:
                talker.start()
            reply = talker.ask(talk.sound(_recording(SENTENCES[turn])))
            assert reply.done and reply.done.status == "completed", talker.errors
            assert reply.text == "It is warm.\n" and len(reply.pcm) > 0.5 * opus.RATE


@pytest.mark.parametrize("module", [module for modules in WORKERS.values() for module in modules])
def test_a_killed_worker_is_replaced_and_nobody_else_notices(
    stack: Images, http: httpx.Client, module: str, request: pytest.FixtureRequest
) -> None:
    engine = module.split(".")[1]
    request.getfixturevalue({"tts": "synthesis", "asr": "recognition", "s2s": "conversation"}[engine])
    before = {one: stack.workers(one) for modules in WORKERS.values() for one in modules}
    (victim,) = before[module]
    stack.python(engine, f"import os; os.kill({victim}, 9)")
    wait_until(lambda: stack.workers(module) not in ([], [victim]), "another worker")
    wait_until(lambda: _is_served(stack, http, engine), "the engine to serve again")
    wait_until(lambda: stack.state(engine) == "ready", "the engine to be ready again")
    after = {one: stack.workers(one) for one in before}
    assert {one for one in before if before[one] != after[one]} == {module}
    assert stack.inspect(engine)["RestartCount"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_no_rights_and_no_way_out(stack: Images, engine: str) -> None:
    stack.check_rights(engine)
    assert stack.ways_out(engine) == [] and not any(stack.inspect(engine)["NetworkSettings"]["Ports"].values())


@pytest.mark.parametrize("engine", ENGINES)
def test_every_package_of_an_image_can_be_imported_without_rights(stack: Images, engine: str) -> None:
    names = [line.split("==")[0] for file in ("engines.in", "serving.in") for line in _lines(file)]
    command = ["docker", "run", "--rm", *ALONE, "--user", "10001", stack.images[engine], "python", "-c", IMPORT]
    done = subprocess.run([*command, *names, "matcha"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "10001"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_holds_packages_and_code_and_no_weights(stack: Images, engine: str) -> None:
    found = json.loads(docker("run", "--rm", "--user", "0", stack.images[engine], "python", "-c", LIST_FILES))
    assert found == {"large": [], "weights": [], "caches": []}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_lets_its_user_write_its_models_and_what_is_temporary(stack: Images, engine: str) -> None:
    """Even where the root is not mounted read-only."""
    writable = set(json.loads(docker("run", "--rm", stack.images[engine], "python", "-c", LIST_WRITABLE)))
    assert {"/tmp", "/models"} <= writable <= {"/tmp", "/models", "/var/tmp", "/run/lock"}


def test_the_engines_share_their_packages(stack: Images) -> None:
    """Else a host would hold the gigabytes three times: the base, the locks, the packages."""
    assert _layers(stack.images["tts"])[:3] == _layers(stack.images["asr"])[:3] == _layers(stack.images["s2s"])[:3]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_ends_soon_after_it_is_told_to(stack: Images, engine: str) -> None:
    """The stack stays as this leaves it."""
    container = stack.container(engine)
    began = time.monotonic()
    docker("stop", "--time", "20", container)
    assert time.monotonic() - began < 5
    (state,) = json.loads(docker("inspect", container))
    assert state["State"]["ExitCode"] in (0, 143)


# Private


def _answers(stack: Images) -> bool:
    try:
        return httpx.get(f"{stack.url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _ask(http: httpx.Client, engine: str) -> httpx.Response:
    if engine == "tts":
        return http.post("/api/synthesize", json={"text": "你好世界", "speaker_id": "中文女"})
    return http.post("/api/transcribe", data={"language": "中文"}, files={"audio": ("a.wav", _recording(SENTENCES[0]))})


def _is_served(stack: Images, http: httpx.Client, engine: str) -> bool:
    if engine != "s2s":
        return _ask(http, engine).status_code == 200
    with talk.connected(stack.url) as talker:
        done = talker.ask(talk.sound(_recording(SENTENCES[0]))).done
    return done is not None and done.status == "completed"


def _recording(text: str) -> bytes:
    sound = pcm(silence(0.3), say(text), silence(0.3))
    return wav.header(RATE, len(sound) // 2) + sound


def _wait_until_ready(stack: Images, engine: str) -> None:
    """To clients and to Docker alike, in the container that was not ready before."""
    wait_until(lambda: stack.state(engine) == "ready", f"{engine} to be ready", PATIENCE)
    wait_until(lambda: stack.docker_says(engine) == "healthy", f"{engine}'s health check to pass")
    assert stack.inspect(engine)["RestartCount"] == 0


def _lines(name: str) -> list[str]:
    lines = (ROOT / "requirements" / name).read_text().split("\n")
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _layers(image: str) -> list[str]:
    layers: list[str] = json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", image))
    return layers
