"""`voxgate run`: the gateway and the embedded engines as real processes, from the first request to the last signal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI
from websockets.asyncio.client import connect

from gateway.supervise import free_port
from gateway.wire import nls
from tests.e2e import avatar, client
from tests.engines.asr.sound import person, person_file
from tests.surfaces.nls_client import NlsClient

ROOT = Path(__file__).parents[2]
AUDIO = ROOT.parent / "shared" / "audio"


@dataclass(slots=True)
class Stack:
    """A running supervisor."""

    supervisor: psutil.Process
    http: httpx.Client
    data: Path
    avatar_port: int

    def processes(self) -> list[psutil.Process]:
        return [self.supervisor, *self.supervisor.children(recursive=True)]

    def process(self, module: str) -> psutil.Process:
        """The one that runs `python -m module`."""
        return next(it for it in self.supervisor.children() if module in it.cmdline())

    def state(self, engine: str) -> str:
        state: str = self.http.get("/health").json()["engines"][engine]["state"]
        return state


@contextmanager
def running(data: Path) -> Iterator[Stack]:
    port, avatar_port = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    environment |= {
        "VOXGATE_PORT": str(port),
        "VOXGATE_AVATAR_PORT": str(avatar_port),
        "VOXGATE_HOST": "127.0.0.1",
        "VOXGATE_DATA_DIR": str(data),
        "VOXGATE_HEALTH_INTERVAL": "0.1",  # a killed engine is back within a second
    }
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        with client.connect(f"http://127.0.0.1:{port}") as http:
            stack = Stack(psutil.Process(supervisor.pid), http, data, avatar_port)
            until(lambda: ready(http), 60)
            yield stack
    finally:
        supervisor.terminate()
        supervisor.wait(10)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("run")) as stack:
        yield stack


def test_a_recording_becomes_a_voice_that_reads_a_text(stack: Stack, tmp_path: Path) -> None:
    client.clone_a_voice_and_speak(stack.http, tmp_path)


def test_speech_becomes_words(stack: Stack) -> None:
    if not (AUDIO / "hello_world_en.wav").exists():
        pytest.skip("no recorded speech beside the repository")
    spoken = client.transcribe(stack.http, (AUDIO / "hello_world_en.wav").read_bytes(), "英文")
    assert spoken == "hello world"


def test_openai_s_sdk_gets_words_and_their_times(stack: Stack) -> None:
    path = AUDIO / "weather_question_en.wav"
    if not path.exists():
        pytest.skip("no recorded speech beside the repository")
    with OpenAI(base_url=f"{stack.http.base_url}/v1".replace("//v1", "/v1"), api_key="none", max_retries=0) as sdk:
        found = sdk.audio.transcriptions.create(
            file=path, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        assert (found.text, found.language) == ("what is the weather in paris", "english")
        assert found.words is not None and found.segments is not None
        assert [word.word for word in found.words] == found.text.split()
        assert all(0.1 < word.start < word.end <= found.duration for word in found.words)
        assert [segment.text for segment in found.segments] == [found.text]
        srt = sdk.audio.transcriptions.create(file=path, model="whisper-1", response_format="srt")
        assert isinstance(srt, str) and srt.startswith("1\n00:00:00,") and found.text in srt
        events = list(sdk.audio.transcriptions.create(file=path, model="whisper-1", stream=True))
        assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]


@pytest.mark.parametrize("path", ["/ws/v1", "/ws/v1/asr"])
async def test_speech_becomes_words_while_it_is_said_for_nls_clients(stack: Stack, path: str) -> None:
    file = person_file("weather_question_en.wav")
    async with connect(f"ws://127.0.0.1:{stack.http.base_url.port}{path}", compression=None, proxy=None) as socket:
        caller = NlsClient(socket, nls.TRANSCRIBER)
        await caller.send("StartTranscription", {"format": "wav"})
        await caller.until("TranscriptionStarted")
        for at in range(0, len(file), 960):
            await socket.send(file[at : at + 960])
        await caller.send("StopTranscription")
        await caller.until("TranscriptionCompleted", seconds=30)
        said = [event["payload"]["result"] for event in caller.events if event["header"]["name"] == "SentenceEnd"]
        assert said == ["what is the weather in paris"]


def test_headerless_speech_becomes_words_for_nls_clients(stack: Stack) -> None:
    pcm = person("weather_question_en.wav")
    answer = stack.http.post("/stream/v1/asr", content=pcm, params={"enable_words": "true"}).json()
    assert answer["result"] == "what is the weather in paris"
    assert [word["text"] for word in answer["words"]] == answer["result"].split()
    assert answer["words"][-1]["endTime"] <= answer["duration"] == round(len(pcm) / 32)


def test_what_is_said_is_understood(stack: Stack) -> None:
    if "flite" not in stack.http.get("/health").json()["engines"]["tts"]["model"]:
        pytest.skip("libflite is not on this machine: recognition does not understand espeak-ng's English")
    assert client.speak_and_understand(stack.http) == "what time is it"


def test_a_language_that_cannot_be_recognised_is_refused_with_those_that_can(stack: Stack) -> None:
    sound = client.synthesize(stack.http, "你好", "中文女")
    answer = stack.http.post("/api/transcribe", data={"language": "中文"}, files={"audio": ("a.wav", sound)})
    assert answer.status_code == 400
    assert "英文" in answer.json()["error"]


def test_the_second_port_is_the_same_gateway(stack: Stack) -> None:
    assert httpx.get(f"http://127.0.0.1:{stack.avatar_port}/health").json()["message"] == "ok"


@pytest.mark.parametrize("port", ["voice", "avatar"])
async def test_the_desktop_client_gets_a_video_that_plays(stack: Stack, tmp_path: Path, port: str) -> None:
    url = str(stack.http.base_url) if port == "voice" else f"http://127.0.0.1:{stack.avatar_port}"
    avatar.assert_it_plays(await avatar.video_by_way_of(url, tmp_path))


@pytest.mark.parametrize("engine", ["tts", "asr", "avatar"])
def test_a_killed_engine_shows_in_health_and_comes_back(stack: Stack, engine: str) -> None:
    stack.process(f"engines.{engine}").kill()
    until(lambda: stack.state(engine) != "ready", 5)
    assert stack.http.get("/ready").status_code == 503
    until(lambda: ready(stack.http), 30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_within_five_seconds(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as stack:
        everyone = stack.processes()
        stack.supervisor.send_signal(number)
        _, alive = psutil.wait_procs(everyone, timeout=5)
        assert alive == []


def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        everyone = stack.processes()
        stack.supervisor.kill()
        _, alive = psutil.wait_procs(everyone, timeout=5)
        assert alive == []


def test_voices_survive_a_kill_of_everything(tmp_path: Path) -> None:
    with running(tmp_path / "data") as stack:
        voice = client.train(stack.http, "d", client.reference(stack.http, tmp_path))
        stack.supervisor.kill()
    with running(tmp_path / "data") as stack:
        assert stack.http.get(f"/v1/voices/{voice}", params={"device_id": "d"}).json()["data"]["status"] == "ready"
        assert client.seconds(client.speak(stack.http, "d", voice, "hello")) > 0.2


def ready(http: httpx.Client) -> bool:
    try:
        return http.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], bool], seconds: float) -> None:
    """Waits for a condition; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
