import socket
import struct
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.engines.asr.running import Server, eventually
from tests.engines.asr.sound import as_wav, noise, person_file, say, silence


def test_speech_becomes_text(server: Server) -> None:
    answer = server.transcribe(as_wav(say("the weather is very nice today")))
    assert answer.status_code == 200
    found = answer.json()
    times = found.pop("timestamps")
    assert found == {"text": "the weather is very nice today", "language": "英文", "success": True}
    assert [one["token"] for one in times] == found["text"].split()
    assert all(0 <= one["start_time"] < one["end_time"] < 3 for one in times)


@pytest.mark.parametrize(
    ("asked", "named"), [("", "英文"), ("auto", "英文"), ("EN", "EN"), ("英语", "英语"), ("en-GB", "en-GB")]
)
def test_english_is_understood_however_it_is_spelt(server: Server, asked: str, named: str) -> None:
    answer = server.transcribe(as_wav(silence(0.5)), language=asked)
    assert answer.json() == {"text": "", "language": named, "success": True, "timestamps": []}


@pytest.mark.parametrize(("asked", "named"), [("中文", "中文 (zh)"), ("ja", "日文 (ja)"), ("Klingon", "klingon")])
def test_another_language_is_refused_by_name(server: Server, asked: str, named: str) -> None:
    answer = server.transcribe(as_wav(silence(0.5)), language=asked)
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    assert answer.json()["error"].startswith(f"this engine cannot recognise {named}; it recognises: 英文 (en). ")


def test_health_names_the_model(server: Server) -> None:
    health = httpx.get(f"{server.url}/health")
    assert (health.status_code, health.json()["state"], health.json()["device"]) == (200, "ready", "cpu")
    assert health.json()["model"].startswith("pocketsphinx")


def test_a_person_recorded_at_24_khz_is_understood(server: Server) -> None:
    assert server.transcribe(person_file("hello_world_en.wav")).json()["text"] == "hello world"


def test_hotwords_reach_the_decoder(server: Server) -> None:
    answer = server.transcribe(as_wav(say("the gateway speaks with fun audio chat")), hotwords="你好，Fun Audio Chat")
    assert answer.json()["text"] == "the gateway speaks with Fun Audio Chat"


def test_no_audio_is_said_as_upstream_says_it(server: Server) -> None:
    answer = httpx.post(f"{server.url}/api/transcribe", files={"other": b"x"})
    assert (answer.status_code, answer.json()) == (400, {"error": "No audio file provided", "success": False})


def test_bad_requests_are_refused_with_a_reason(server: Server) -> None:
    url = f"{server.url}/api/transcribe"
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    whole = b'--b\r\ncontent-disposition: form-data; name="audio"; filename="a"\r\n\r\nx'
    cases = [
        (server.transcribe(b"MP3, I promise"), "not a WAV file"),
        (server.transcribe(b""), "not a WAV file"),
        (server.transcribe(as_wav(b""), hotwords=",".join(map(str, range(1001)))), "at most 1000 hotwords"),
        (server.transcribe(as_wav(b""), hotwords="x" * 65), "at most 64 characters"),
        (server.transcribe(as_wav(b""), hotwords="x" * 200_000), "longer than"),
        (httpx.post(url, json={}), "multipart/form-data"),
        (httpx.post(url, content=whole, headers=boundary), "ends before"),
        (httpx.post(url, content=b"nonsense", headers=boundary), "malformed"),
        (httpx.post(url, files=[("audio", b"x"), ("audio", b"y")]), "more than one"),
    ]
    for answer, reason in cases:
        assert (answer.status_code, answer.json()["success"]) == (400, False), reason
        assert reason in answer.json()["error"]
    assert httpx.get(url).status_code == 405
    assert httpx.get(f"{server.url}/nothing").json() == {"error": "Not Found", "success": False}
    assert not server.leftovers()


def test_a_long_recording_is_read_with_flat_memory(server: Server) -> None:
    hour = as_wav(silence(3600) + say("hello world"))
    assert server.transcribe(as_wav(say("hello world"))).json()["text"] == "hello world"
    processes = [*server.workers(), *[worker.parent() for worker in server.workers()]]
    before = [process.memory_info().rss for process in processes if process]
    assert server.transcribe(hour).json()["text"] == "hello world"
    after = [process.memory_info().rss for process in processes if process]
    assert max(now - then for now, then in zip(after, before, strict=True)) < 20 * 2**20
    assert not server.leftovers()


def test_an_upload_above_the_limit_is_refused_whether_or_not_it_says_so(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="audio"\r\n\r\n'
        for _ in range(151):
            yield bytes(2**20)

    boundary = {"content-type": "multipart/form-data; boundary=b"}
    chunked = httpx.post(f"{server.url}/api/transcribe", content=pieces(), headers=boundary)
    assert (chunked.status_code, chunked.json()["success"]) == (413, False)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST /api/transcribe HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n")
        raw.sendall(b"content-type: multipart/form-data; boundary=b\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    assert not server.leftovers()


@pytest.mark.parametrize("sent", ["everything", "half of the audio"])
def test_a_client_that_hangs_up_frees_the_worker_and_leaves_no_file(server: Server, sent: str) -> None:
    body = as_wav(noise(300, -15))
    raw = socket.create_connection(("127.0.0.1", server.port))
    head = b'--b\r\ncontent-disposition: form-data; name="audio"\r\n\r\n'
    length = len(head) + len(body) + 9
    raw.sendall(b"POST /api/transcribe HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % length)
    raw.sendall(b"content-type: multipart/form-data; boundary=b\r\n\r\n" + head)
    if sent == "everything":
        raw.sendall(body + b"\r\n--b--\r\n")
        eventually(server.busy, 10)
        time.sleep(0.5)
        assert server.busy()
    else:
        raw.sendall(body[: len(body) // 2])
        eventually(lambda: bool(server.leftovers()), 10)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()
    eventually(lambda: not server.leftovers(), 0.7)
    assert server.transcribe(as_wav(say("hello world"))).json()["text"] == "hello world"


def test_what_people_say_is_not_in_the_log(server: Server) -> None:
    server.transcribe(as_wav(say("hello world")), hotwords="purple elephants")
    log = server.log.read_text().lower()
    assert "hello" not in log
    assert "purple" not in log
    assert "/api/transcribe" not in log
