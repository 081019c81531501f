"""Provisioning as it is started: two at once, killed at any point, and without a network."""

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.provision import record, source
from engines.settings import Engines
from tests.engines.provision.conftest import MODEL
from tests.engines.provision.hub import FakeHub
from tests.engines.provision.test_source import FILES, MATTERS, archive, checkout
from tests.engines.provision.wheels import wheel

ROOT = Path(__file__).resolve().parents[3]
SEALED = """
import sys
def guard(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn", "os.fork"):
        raise SystemExit(f"sealed, but: {event}")
sys.addaudithook(guard)
sys.argv = ["provision", *sys.argv[1:]]
import runpy
runpy.run_module("engines.provision", run_name="__main__")
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(settings: Callable[..., Engines], tmp_path: Path) -> dict[str, str]:
    """What makes a process of the settings of the tests."""
    fields = {name.upper(): str(value) for name, value in settings() if value not in (None, "", False)}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | fields


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Start:
    def made(
        *arguments: str, python: tuple[str, ...] = ("-m", "engines.provision"), **more: str
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *python, *arguments],
            env=environment | more,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    return made


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """With its whole group: pip has left with it, as in a container."""
    try:
        yield process
    finally:
        process.kill()
        with process:
            pass


def said(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=30)
    return output


def kill(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def leftovers(volume: Path) -> list[Path]:
    return [path for path in volume.rglob("*") if path.name.endswith((".part", ".etag")) or "staging" in path.name]


def test_two_at_once_fetch_once(start: Start, hub: FakeHub, volume: Path) -> None:
    hub.bad["model.pt"] = [("hold", 100_000)]
    with ended(start("asr")) as first, ended(start("asr")) as second:
        assert hub.held.wait(20)
        # one holds the turn and hangs in the middle of the file: the other says that it waits
        _await_one_that_waits(first, second)
        hub.released.set()
        for process in (first, second):
            output = said(process)
            assert process.returncode == 0, output
    assert len(hub.asked("model.pt")) == 1
    assert len([one for one in hub.seen if "/repo/files" in one.path]) == 1
    assert (volume / MODEL / record.NAME).exists()


def _await_one_that_waits(*processes: "subprocess.Popen[str]") -> None:
    with selectors.DefaultSelector() as selector:
        for process in processes:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
        while ready := selector.select(20):
            for key, _ in ready:
                line = os.read(key.fd, 65536).decode()
                if f"waiting for another container: model {MODEL}" in line:
                    return
                assert line, "it ended"
    raise AssertionError("neither waits")


@pytest.mark.parametrize("after", [0, 599_999])
def test_killed_while_a_model_comes_the_next_start_goes_on(
    after: int, start: Start, hub: FakeHub, volume: Path
) -> None:
    hub.bad["model.pt"] = [("hold", after)]
    with ended(start("asr")) as process:
        assert hub.held.wait(20)
        kill(process)
    hub.released.set()
    assert not (volume / MODEL / record.NAME).exists()
    with ended(start("asr")) as process:
        output = said(process)
        assert process.returncode == 0, output
    for name, content in hub.models[MODEL].items():
        assert (volume / MODEL / name).read_bytes() == content
    assert leftovers(volume) == []
    assert not hub.asked("config.yaml")[1:], "what was whole was not fetched again"


def test_killed_while_the_source_comes_the_next_start_goes_on(
    start: Start, hub: FakeHub, volume: Path, tmp_path: Path
) -> None:
    hub.documents["/source"] = archive(tmp_path / "source.tar.gz", FILES).read_bytes()
    hub.bad["/source"] = [("hold", 100)]
    lock = tmp_path / "models.lock"
    text = Engines().models_lock.read_text()
    lock.write_text(re.sub('digest = ".*"', f'digest = "{source.digest(checkout(tmp_path / "pin"), MATTERS)}"', text))
    voice = tmp_path / "voice"
    voice.mkdir()
    for name in ("cosyvoice.yaml", "llm.pt", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v1.onnx"):
        (voice / name).write_bytes(b"x")
    (voice / "spk2info.pt").write_bytes(b"x")
    asked = {"MODELS_LOCK": str(lock), "COSYVOICE_SOURCE": f"{hub.url}/source", "TTS_MODEL_MODE": "sft"}
    asked |= {"SFT_MODEL_ID": str(voice)}
    with ended(start("tts", **asked)) as process:
        assert hub.held.wait(20)
        kill(process)
    hub.released.set()
    assert leftovers(volume) != []
    with ended(start("tts", **asked)) as process:
        output = said(process)
        assert process.returncode == 0, output
    assert leftovers(volume) == []


HANGING_PIP = """
import os, socket, sys
target = sys.argv[sys.argv.index("--target") + 1]
open(target + "/half.py", "w").close()
socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))).recv(1)
"""


def test_killed_while_packages_are_installed_the_next_start_does_it_anew(
    start: Start, volume: Path, tmp_path: Path, vad: Path
) -> None:
    wheels, pins = tmp_path / "wheels", tmp_path / "pins.lock"
    pins.write_text(wheel(wheels, "voxgate-test-one"))
    asked = {"PACKAGES_LOCK": str(pins), "WHEELS_DIR": str(wheels), "ASR_MODEL_ID": str(vad)}
    (tmp_path / "slow" / "pip").mkdir(parents=True)
    (tmp_path / "slow" / "pip" / "__init__.py").touch()
    (tmp_path / "slow" / "pip" / "__main__.py").write_text(HANGING_PIP)
    with socket.create_server(("127.0.0.1", 0)) as half:
        half.settimeout(20)
        hanging = {"PYTHONPATH": f"{tmp_path / 'slow'}:{ROOT}", "PORT": str(half.getsockname()[1])}
        with ended(start("asr", **asked, **hanging)) as process:
            connection, _ = half.accept()
            kill(process)
            connection.close()
    assert list((volume / "packages").glob(".staging-*/site/half.py"))
    with ended(start("asr", **asked)) as process:
        output = said(process)
        assert process.returncode == 0, output
    (folder,) = (volume / "packages").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"voxgate_test_one"}
    assert not (folder / "half.py").exists()


def test_with_everything_there_a_sealed_network_is_enough(start: Start, hub: FakeHub, volume: Path) -> None:
    with ended(start("asr")) as process:
        said(process)
        assert process.returncode == 0
    hub.seen.clear()
    for arguments in (["asr"], ["asr", "--check"]):
        with ended(start(*arguments, python=("-c", SEALED))) as process:
            output = said(process)
            assert process.returncode == 0, output
            assert f"everything is in {volume}" in output
    assert not hub.seen


def test_the_seal_of_these_tests_holds(start: Start) -> None:
    with ended(start("asr", python=("-c", SEALED))) as process:
        assert "sealed, but: socket" in said(process)


def test_a_check_names_everything_that_is_missing_and_fetches_nothing(start: Start, hub: FakeHub, volume: Path) -> None:
    with ended(start("all", "--check", "--no-packages", TTS_MODEL_MODE="clone")) as process:
        output = said(process)
        assert process.returncode == 1
    assert f"voxgate: {volume / MODEL} is not there" in output
    assert "Fun-CosyVoice3-0.5B-2512 is not there" in output
    assert "CosyVoice-ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40 is not there" in output
    assert not hub.seen
    assert not volume.exists()


def test_a_refusal_is_one_line_and_no_trace(start: Start, hub: FakeHub) -> None:
    hub.bad["model.pt"] = [404]
    with ended(start("asr")) as process:
        lines = said(process).splitlines()
        assert process.returncode == 1
    assert lines[-1].startswith("voxgate: model tiny: model.pt cannot be had from 127.0.0.1")
    assert not any("Traceback" in line for line in lines)


def test_a_setting_that_is_none_is_refused_in_one_line(start: Start) -> None:
    for name, value in (("MODEL_HUB", "elsewhere"), ("HF_ENDPOINT", "ftp://x")):
        with ended(start("asr", **{name: value})) as process:
            assert said(process).startswith(f"voxgate: {name}: ")
            assert process.returncode == 1
