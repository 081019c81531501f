"""The embedded digital human over its wire, in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.supervise import free_port

from .media import film, recording, template


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "temp").mkdir()
    recording(folder / "temp" / "short.wav", 0.6)
    recording(folder / "temp" / "long.wav", 900)
    template(folder / "temp" / "face.mp4")
    recording(folder.parent / "outside.wav")
    (folder / "temp" / "link.wav").symlink_to(folder.parent / "outside.wav")
    (folder / "temp" / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", "engines.avatar", "--port", str(port), "--data", str(folder)]
    process = subprocess.Popen(command)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    assert client.get("/health").json()["state"] == "ready"
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(10)


def submit(client: httpx.Client, code: str, audio: str = "short.wav", video: str = "face.mp4", **more: Any) -> Any:
    body = {"audio_url": audio, "video_url": video, "code": code, "chaofen": 0, "watermark_switch": 0, "pn": 1} | more
    return client.post("/easy/submit", content=json.dumps(body)).json()


def outcome(client: httpx.Client, code: str) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = client.get("/easy/query", params={"code": code}).json()["data"]
        if found["status"] != 1:
            return found
        assert found["result"] == "", "nothing is named before it is whole"
        time.sleep(0.05)
    raise AssertionError("no outcome")


def test_a_job_becomes_a_video_whose_outcome_can_be_read_again(client: httpx.Client, folder: Path) -> None:
    assert submit(client, "first") == {"code": 10000, "data": {}, "msg": 10000, "success": True}
    found = outcome(client, "first")
    assert (found["status"], found["progress"], found["result"]) == (2, 100, "/first-r.mp4")
    assert film(folder / "temp" / "first-r.mp4").seconds == pytest.approx(0.6, abs=1.1 / 25)
    assert client.get("/easy/query", params={"code": "first"}).json()["data"] == found
    assert submit(client, "first")["code"] == 10000, "the same code again is the same job"
    assert client.get("/easy/query", params={"code": "first"}).json()["data"] == found
    assert [path.name for path in (folder / "temp").iterdir() if path.is_dir()] == []


def test_one_job_at_a_time_and_it_can_be_cancelled(client: httpx.Client, folder: Path) -> None:
    assert submit(client, "long", "long.wav")["code"] == 10000
    busy = submit(client, "other")
    assert (busy["code"], busy["success"]) == (10001, True)
    assert client.delete("/easy/query", params={"code": "long"}).json()["code"] == 10000
    assert client.get("/easy/query", params={"code": "long"}).json()["data"]["status"] == 3
    assert client.delete("/easy/query", params={"code": "long"}).json()["code"] == 10004
    assert not (folder / "temp" / "long-r.mp4").exists()
    assert submit(client, "long")["code"] == 10000, "one that failed may be tried again"
    assert outcome(client, "long")["status"] == 2


def test_who_is_unknown_is_told_so(client: httpx.Client) -> None:
    found = client.get("/easy/query", params={"code": "health_check"}).json()
    assert (found["code"], found["success"]) == (10004, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"audio": "../../outside.wav"}, "audio_url: outside"),
        ({"audio": "/etc/passwd"}, "audio_url: outside"),
        ({"audio": "link.wav"}, "audio_url: outside"),
        ({"audio": "http://127.0.0.1/a.wav"}, "audio_url: this engine fetches nothing"),
        ({"video": "file:///etc/passwd"}, "video_url: this engine fetches nothing"),
        ({"video": "nothing.mp4"}, "video_url: there is no such file"),
        ({"video": ""}, "video_url is missing"),
        ({"code": "a;reboot"}, "code: letters"),
        ({"code": "../up"}, "code: letters"),
        ({"code": "a" * 101}, "code: letters"),
    ],
)
def test_a_job_that_names_what_it_may_not_is_refused(client: httpx.Client, given: dict[str, str], words: str) -> None:
    answer = submit(client, **({"code": "refused"} | given))
    assert (answer["code"], answer["success"]) == (10002, False)
    assert answer["msg"].startswith(words)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"code": 1}', b"x" * 70_000])
def test_a_body_that_is_no_job_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/easy/submit", content=body)
    assert answer.status_code == 200
    assert answer.json()["code"] == 10002


def test_a_job_that_fails_says_why(client: httpx.Client) -> None:
    assert submit(client, "broken", video="text.mp4")["code"] == 10000
    found = outcome(client, "broken")
    assert (found["status"], found["result"]) == (3, "")
    assert found["msg"]
