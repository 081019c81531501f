"""`python -m gateway` as an operator meets it: a real process, its exit status and what it writes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway import __version__
from gateway.__main__ import main
from gateway.settings import env_example

ROOT = Path(__file__).resolve().parents[1]


def command(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr)"""
    with command(*arguments, **variables) as process:
        try:
            out, complaint = process.communicate(timeout=30)
        finally:
            process.kill()
        return process.returncode, out, complaint


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_it_tells_its_version() -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


def test_it_prints_every_setting() -> None:
    assert run("env") == (0, env_example(), "")


def test_it_prints_its_api() -> None:
    status, out, complaint = run("openapi")
    assert (status, complaint) == (0, "")
    assert {"/v1/tts", "/api/transcribe", "/health"} <= json.loads(out)["paths"].keys()


def test_without_a_command_it_says_which_there_are() -> None:
    status, out, complaint = run()
    assert (status, out) == (2, "")
    assert "serve" in complaint
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        ([], {"VOXGATE_PORT": "nine"}, "VOXGATE_PORT: "),
        (["--speak-engine", "none"], {}, "speak_engine: no adapter 'none'; there is cosyvoice"),
        (["--ffmpeg", "/nonexistent", "--port", "0", "--avatar-port", "0"], {}, "ffmpeg: "),
        (["--data-dir", "/dev/null/x", "--port", "0", "--avatar-port", "0"], {}, "data_dir: "),
    ],
    ids=["variable", "adapter", "ffmpeg", "folder"],
)
def test_a_wrong_setting_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], says: str
) -> None:
    status, out, complaint = run("serve", "--data-dir", str(tmp_path), *arguments, **variables)
    assert (status, out) == (2, "")
    assert complaint.startswith(f"voxgate: {says}"), complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "run"])
@pytest.mark.parametrize("flags", [["--port", "nine"], ["--config", "/nonexistent.toml"], ["--speak-urls", "nowhere"]])
def test_both_commands_refuse_alike(capsys: pytest.CaptureFixture[str], command: str, flags: list[str]) -> None:
    assert main([command, *flags]) == 2
    found = capsys.readouterr()
    assert (found.out, found.err.count("\n")) == ("", 1)
    assert found.err.startswith("voxgate: ")


@pytest.mark.parametrize("flag", ["--port", "--avatar-port"])
def test_a_port_in_use_is_one_line(tmp_path: Path, taken: int, flag: str) -> None:
    ports = {"--port": "0", "--avatar-port": "0"} | {flag: str(taken)}
    flags = [part for pair in ports.items() for part in pair]
    status, out, complaint = run("serve", "--data-dir", str(tmp_path), "--host", "127.0.0.1", *flags)
    assert (status, out) == (2, "")
    assert complaint == f"voxgate: port {taken} on 127.0.0.1 cannot be opened: Address already in use\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_both_ports_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    flags = ["--data-dir", str(tmp_path), "--host", "127.0.0.1", "--port", "0", "--avatar-port", "0"]
    with command("serve", *flags, "--log-format", "json") as process:
        try:
            assert process.stdout is not None
            listening = json.loads(next(line for line in process.stdout if '"listening"' in line))
            assert len(set(listening["ports"])) == 2
            for port in listening["ports"]:
                assert httpx.get(f"http://127.0.0.1:{port}/health").json()["status"] == "healthy"
            process.send_signal(number)
            told = time.monotonic()
            out, complaint = process.communicate(timeout=10)
        finally:
            process.kill()
    assert time.monotonic() - told < 5
    assert (process.returncode, complaint) == (0, "")
    assert all(json.loads(line) for line in out.splitlines()), "every line is JSON"
    assert not list((tmp_path / "scratch").glob("run-*"))
