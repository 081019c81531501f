"""Keys stay out of the logs: a real process at its most talkative, asked in every way that a key can be shown."""

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.test_cli import command, run

TOKEN = "funspeech-apptoken-of-the-operator"
WRONG = "vg_0123456789ab_wrong-secret-of-somebody"
APPKEY = "app-of-the-operator"
PATHS = ("/", "/nothing", "/v1/tts", "/v1/audio/speech", "/stream/v1/asr", "/api/synthesize", "/files/x", "/metrics")
SOCKETS = ("/ws", "/chatting", "/api/chat", "/ws/v1", "/v1/realtime", "/asr/2pass", "/nothing")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_key_is_ever_logged(tmp_path: Path, form: str) -> None:
    flags = ["--data-dir", str(tmp_path)]
    sent = run("keys", "create", *flags)[1].strip()
    assert run("keys", "create", *flags, "--token", TOKEN, "--appkey", APPKEY)[0] == 0
    flags += ["--host", "127.0.0.1", "--port", "0", "--avatar-port", "0", "--log-level", "debug", "--log-format", form]
    with command("serve", *flags) as process:
        try:
            assert process.stdout is not None
            port = next(found[1] for line in process.stdout if (found := re.search(r"ports.*\[(\d+), \d+\]", line)))
            for key in (sent, TOKEN, WRONG):
                _ask(f"127.0.0.1:{port}", key)
            process.terminate()
            out, complaint = process.communicate(timeout=20)
        finally:
            process.kill()
    said = out + complaint
    assert said.count("refused") > 20, "it is talkative"
    with closing(sqlite3.connect(tmp_path / "voxgate.sqlite3")) as database:
        digests = [digest for (digest,) in database.execute("SELECT digest FROM keys")]
    for secret in (sent, sent.split("_", 2)[2], TOKEN, WRONG, "wrong-secret", APPKEY, *digests):
        assert secret not in said


def _ask(at: str, key: str) -> None:
    """In every way, and with bodies that nobody can read."""
    headers = ({"authorization": f"Bearer {key}"}, {"x-api-key": key}, {"x-nls-token": key})
    with httpx.Client(base_url=f"http://{at}", timeout=20) as client:
        for path in PATHS:
            for method in ("GET", "POST"):
                for header in headers:
                    client.request(method, path, headers=header, content=b"{")
                for name in ("token", "api_key"):
                    client.request(method, path, params={name: key, "appkey": APPKEY}, content=b"{")
    for path in SOCKETS:
        ways: tuple[dict[str, Any], ...] = (
            *({"additional_headers": header} for header in headers),
            {"subprotocols": ["realtime", f"openai-insecure-api-key.{key}"]},
        )
        for way in ways:
            _open(f"ws://{at}{path}", **way)
        _open(f"ws://{at}{path}?token={key}&appkey={APPKEY}")


def _open(url: str, **way: Any) -> None:
    with suppress(WebSocketException, TimeoutError), connect(url, proxy=None, **way) as socket:
        socket.send("{")
        socket.send(b"\x05?")
        socket.recv(timeout=0.2)
