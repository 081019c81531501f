"""What the command line of an engine server takes."""

import subprocess
import sys

import pytest

from engines import serving


@pytest.mark.parametrize(
    ("module", "options", "reason"),
    [
        ("engines.tts", ["--port", "70000"], "argument --port: '70000' is not a whole number from 0 to 65535"),
        ("engines.tts", ["--grpc-port", "99999"], "argument --grpc-port: '99999' is not"),
        ("engines.tts", ["--waiting", "-5"], "argument --waiting: '-5' is not a whole number of at least 0"),
        ("engines.asr", ["--port", "http"], "argument --port: 'http' is not"),
        ("engines.asr", ["--workers", "-3"], "argument --workers: '-3' is not a whole number of at least 1"),
        ("engines.asr", ["--scratch", "/nowhere"], "/nowhere is not a folder that can be written to"),
    ],
)
def test_an_option_that_cannot_be_meant_ends_the_start(module: str, options: list[str], reason: str) -> None:
    ended = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert reason in ended.stderr.splitlines()[-1]


def test_a_port_may_be_left_to_the_system() -> None:
    assert (serving.a_port("0"), serving.a_port("65535")) == (0, 65_535)
