"""The CPU stack in Docker, brought up and down as an operator does it: with make.

One stack serves the whole file, in the order of the file: a test that takes something away brings it back.
"""

import json
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from gateway.wire import opus, turns
from tests.e2e import client, talk
from tests.e2e.stack import Stack, docker, no_docker, wait_until

pytestmark = pytest.mark.docker

ENGINES = {"tts": 50000, "asr": 8003}
RECORDED = Path(__file__).parents[2].parent / "shared" / "audio" / "weather_question_en.wav"
VOICE = f"voice={client.ENGLISH_MALE}"
FORECAST = "i cannot look outside"
"""How the reply to a question about the weather begins."""
DOCUMENTATION_ADDRESS = "192.0.2.1"  # RFC 5737: nobody's

KILL_THE_SERVER = """
import os, pathlib, signal
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    if stat.read_text().rsplit(")")[1].split()[1] == "1":
        os.kill(int(stat.parent.name), signal.SIGKILL)
"""
GO_OUTSIDE = f"import socket; socket.create_connection(('{DOCUMENTATION_ADDRESS}', 80), timeout=2)"  # raises OSError


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if reason := no_docker():
        pytest.skip(reason)
    stack = Stack()
    try:
        stack.make("build")
        stack.make("up")
        yield stack
    finally:
        stack.try_make("down", "-v")
        # Without --no-prune the layers would go too, and the next run would build them again.
        subprocess.run(["docker", "rmi", "--no-prune", *stack.images.values()], capture_output=True)


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with client.connect(stack.url) as http:
        yield http


def test_a_client_clones_a_voice_and_speaks_with_it(http: httpx.Client, tmp_path: Path) -> None:
    client.clone_a_voice_and_speak(http, tmp_path)


def test_recognition_understands_what_synthesis_says(http: httpx.Client) -> None:
    assert client.speak_and_understand(http, "what time is it") == "what time is it"


def test_a_spoken_question_gets_a_spoken_answer(stack: Stack, http: httpx.Client) -> None:
    with talk.connected(stack.url, VOICE) as talker:
        reply = talker.ask(_question(http))
    assert reply.done and reply.done.status == "completed" and reply.done.timings["first_audio"] < 10
    assert client.transcribe(http, reply.recording, client.ENGLISH).startswith(FORECAST)


def test_three_turns_of_which_one_is_interrupted(stack: Stack, http: httpx.Client) -> None:
    with talk.connected(stack.url, VOICE) as talker:
        first = talker.ask(_spoken(http, "how are you today"))
        assert "i am fine" in client.transcribe(http, first.recording, client.ENGLISH)

        talker.start()
        talker.say(_question(http))
        talker.pause()
        following = _spoken(http, "what time is it")
        second = talker.reply(2, until=lambda reply: len(reply.pcm) > opus.RATE)
        interrupted = time.monotonic()
        talker.start()
        talker.say(following)
        talker.pause()
        third = talker.reply(3)

        assert second.done and second.done.status == "cancelled"
        assert second.last_sound - interrupted < 1 and len(second.pcm) < 2 * 5 * opus.RATE, "of ten seconds"
        assert "what time is it" in talker.heard(3) and third.text.startswith("It is ")
        assert third.done and third.done.status == "completed" and len(third.pcm) > 2 * opus.RATE
        assert not talker.errors


def test_a_question_without_any_button_is_answered(stack: Stack, http: httpx.Client) -> None:
    with talk.connected(stack.url, f"{VOICE}&hands_free=1") as talker:
        talker.say_slowly(_question(http) + talk.silence(1.5))
        reply = talker.reply(1, until=lambda reply: len(reply.pcm) > 2 * 4 * opus.RATE)  # all of it takes ten seconds
        kinds = [type(event) for event in talker.events]
    assert turns.SpeechStarted in kinds and turns.SpeechStopped in kinds
    assert client.transcribe(http, reply.recording, client.ENGLISH).startswith(FORECAST)


def test_the_command_line_is_in_the_image(stack: Stack, http: httpx.Client) -> None:
    """A question goes in and an answer comes out, by way of the container's only place to write."""
    container, recording = stack.container("gateway"), client.synthesize(http, "how are you today", client.ENGLISH_MALE)
    put = ["docker", "exec", "-i", container, "sh", "-c", "cat >/tmp/question.wav"]
    subprocess.run(put, input=client.closed(recording), check=True)
    command = [
        "python",
        "-m",
        "gateway",
        "talk",
        "--voice",
        client.ENGLISH_MALE,
        "/tmp/question.wav",
        "-o",
        "/tmp/answer.wav",
    ]
    done = subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True)
    assert done.returncode == 0 and "turn 1 completed" in done.stderr, done.stdout + done.stderr
    fetch = ["docker", "exec", container, "cat", "/tmp/answer.wav"]
    answer = subprocess.run(fetch, check=True, capture_output=True).stdout
    assert "i am fine" in client.transcribe(http, answer, client.ENGLISH)


def test_chats_outlive_a_restart_of_the_gateway(stack: Stack, http: httpx.Client) -> None:
    chat, user = uuid.uuid4().hex, uuid.uuid4().hex
    with _chatting(stack, chat, user) as socket:
        socket.send(json.dumps({"type": "message", "content": "what is two plus three"}))
        said = [_until(socket, type="new_message", speaker="user", is_partial=False)["content"]]
        said.append(_until(socket, type="new_message", speaker="assistant", is_partial=False)["content"])
        assert "five" in said[1].lower()
    before = http.get(f"/chat/{chat}").json()
    assert [message["content"] for message in before["messages"]] == said

    docker("restart", stack.container("gateway"))
    wait_until(lambda: _is_ready(stack), "the gateway to be ready again")

    assert http.get(f"/chat/{chat}").json() == before
    (listed,) = http.get("/chat/list", params={"id": user}).json()["chat_list"]
    assert listed["chat_id"] == chat and listed["message_count"] == 2
    with _chatting(stack, chat, user) as socket:
        assert [_until(socket, type="message_history")["content"] for _ in said] == said
        socket.send(json.dumps({"type": "message", "content": "hello"}))
        assert _until(socket, type="new_message", speaker="assistant", is_partial=False)["content"]


def test_a_setting_of_the_environment_reaches_the_gateway(http: httpx.Client) -> None:
    client.synthesize(http, "a " * 249, client.ENGLISH_MALE)
    assert http.post("/api/synthesize", json={"text": "a " * 251, "speaker_id": client.ENGLISH_MALE}).is_client_error


def test_the_gateway_alone_publishes_ports(stack: Stack) -> None:
    published = {name: _published(stack.inspect(name)) for name in ("gateway", *ENGINES)}
    avatar_port = int(stack.environment["VOXGATE_AVATAR_PORT"])
    assert published == {"gateway": {9090: stack.port, 8383: avatar_port}, "tts": {}, "asr": {}}
    assert httpx.get(f"http://127.0.0.1:{avatar_port}/health", trust_env=False).status_code == 200


@pytest.mark.parametrize("port", ENGINES.values())
def test_no_engine_port_answers_from_the_host(stack: Stack, port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


@pytest.mark.parametrize("service", ["gateway", *ENGINES])
def test_a_service_has_no_rights_and_writes_nowhere_but_to_its_volume(stack: Stack, service: str) -> None:
    stack.check_rights(service)


def test_the_gateway_image_is_small_and_has_no_torch(stack: Stack) -> None:
    assert (
        int(docker("image", "inspect", "-f", "{{.Size}}", stack.images["gateway"])) < 740e6
    )  # the ffmpeg program and libraries are a third of it
    assert stack.python("gateway", "import torch").returncode != 0


def test_without_a_gpu_the_cascade_converses_and_up_says_so(stack: Stack) -> None:
    gateway = stack.container("gateway")
    done = stack.try_make("up", COMPOSE_PROFILES="s2s", S2S_IMAGE="registry.invalid/never-pulled:1")
    assert done.returncode == 0 and "the cascade converses" in done.stdout, done.stdout
    assert stack.container("gateway") == gateway, "nothing has changed for it"
    assert not docker("ps", "-aq", "--filter", stack.filter, "--filter", "label=com.docker.compose.service=s2s")


def test_sealed_engines_reach_nothing_outside(stack: Stack, http: httpx.Client) -> None:
    assert stack.ways_out("tts") == ["downloads"]
    assert "SEALED has changed" in stack.make("up", SEALED="true")
    for engine in ENGINES:
        assert stack.ways_out(engine) == []
        assert "Error" in stack.python(engine, GO_OUTSIDE).stderr
    assert client.speak_and_understand(http, "hello world") == "hello world"


def test_a_killed_engine_is_reported_and_comes_back(stack: Stack, http: httpx.Client) -> None:
    restarts = stack.inspect("tts")["RestartCount"]
    stack.python("tts", KILL_THE_SERVER)
    wait_until(lambda: _told(http) == 503 and stack.state("tts") != "ready", "the loss to be told")
    wait_until(lambda: stack.state("tts") == "ready", "the engine to come back")
    assert stack.inspect("tts")["RestartCount"] > restarts
    client.synthesize(http, "hello world", client.ENGLISH_MALE)


def test_clients_outlive_the_swap_of_an_engine(stack: Stack, http: httpx.Client, tmp_path: Path) -> None:
    voice = client.train(http, "swap", client.reference(http, tmp_path))
    gateway, engine = stack.container("gateway"), stack.container("tts")
    other = f"{stack.images['tts']}-b"
    docker("tag", stack.images["tts"], other)
    stack.images["tts-b"] = other

    with client.Callers(stack.url, voice) as callers:
        stack.make("up", TTS_IMAGE=other)
        swapped = time.monotonic()
        wait_until(lambda: callers.served_since(swapped), "a caller to be served by the new engine")

    assert stack.container("gateway") == gateway and stack.container("tts") != engine
    assert stack.inspect("tts")["Config"]["Image"] == other
    assert not callers.wronged, callers.wronged


def test_up_names_the_service_that_is_not_ready(stack: Stack) -> None:
    """The stack stays as this leaves it: what comes after takes it down."""
    broken = f"{stack.images['tts']}-broken"
    recipe = f'FROM {stack.images["tts"]}\nCMD ["python", "-c", "raise SystemExit(\'no model here\')"]\n'
    subprocess.run(["docker", "build", "-qt", broken, "-"], input=recipe, text=True, check=True, capture_output=True)
    stack.images["tts-broken"] = broken
    done = stack.try_make("up", TTS_IMAGE=broken)
    assert done.returncode != 0
    assert "waiting: tts is " in done.stdout
    assert "tts is not ready" in done.stdout and "no model here" in done.stdout
    assert "asr is not ready" not in done.stdout


def test_down_leaves_nothing(stack: Stack) -> None:
    assert stack.leftovers()
    stack.make("down", "-v")
    assert not stack.leftovers()


# Private


def _published(inspected: dict[str, Any]) -> dict[int, int]:
    ports = inspected["NetworkSettings"]["Ports"]
    return {int(inner.split("/")[0]): int(outer[0]["HostPort"]) for inner, outer in ports.items() if outer}


def _told(http: httpx.Client) -> int:
    return http.post("/api/synthesize", json={"text": "hello", "speaker_id": client.ENGLISH_MALE}).status_code


def _spoken(http: httpx.Client, text: str) -> bytes:
    return talk.sound(client.synthesize(http, text, client.ENGLISH_MALE))


def _question(http: httpx.Client) -> bytes:
    """About the weather; a person's, or our own voice where there is no recording."""
    if RECORDED.exists():
        return talk.sound(RECORDED.read_bytes())
    return _spoken(http, "the weather is very nice today")


@contextmanager
def _chatting(stack: Stack, chat: str, user: str) -> Iterator[ClientConnection]:
    address = f"ws://127.0.0.1:{stack.port}/chatting?id={chat}&user={user}"
    with connect(address, proxy=None) as socket:
        assert json.loads(socket.recv(timeout=30))["type"] == "connection_established"
        yield socket


def _until(socket: ClientConnection, **fields: object) -> dict[str, Any]:
    """The next message with these fields."""
    for _ in range(1000):
        message: dict[str, Any] = json.loads(socket.recv(timeout=30))
        if fields.items() <= message.items():
            return message
    raise AssertionError(f"no message with {fields}")


def _is_ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/ready", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
