"""What the command line of an engine server takes, and what its log says."""

import socket
import subprocess
import sys

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from engines import serving

from .tts.conftest import until


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


def test_a_refused_websocket_is_no_error_in_the_log() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", _REFUSING, str(port)], stderr=subprocess.PIPE, text=True) as engine:
        try:
            until(lambda: _refused(port), 15)
        finally:
            engine.terminate()
        assert engine.stderr is not None
        assert engine.stderr.read() == ""


def _refused(port: int) -> bool:
    """False while nobody listens."""
    try:
        with connect(f"ws://127.0.0.1:{port}/"):
            return False
    except ConnectionRefusedError:
        return False
    except InvalidStatus as exc:
        return exc.response.status_code == 503


_REFUSING = """
import sys
from starlette.responses import Response
from engines import serving

async def refuse(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.http.response.start", "status": 503, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

serving.run(refuse, "127.0.0.1", int(sys.argv[1]))
"""
"""An engine that refuses everything."""
