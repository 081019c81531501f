"""What a client at the other end of a real socket can do to the engine: read slowly, hang up, come in numbers."""

import socket
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep
from urllib.parse import urlencode

import httpx
import pytest

from engines.tts import form, speech
from engines.tts.backends.embedded import Embedded
from engines.tts.backends.espeak import LOCK
from engines.tts.backends.espeak_voices import EspeakVoices
from engines.tts.job import Job
from gateway.wire import cosyvoice as wire

from .conftest import Serving, until
from .puppet import Puppet


class Endless(Puppet):
    """A backend that never stops by itself, and remembers what became of it."""

    model = "endless"

    def __init__(self, stuck: bool = False) -> None:
        """stuck: inside a piece, until it is told to stop."""
        self.stuck, self.made, self.told, self.closed = stuck, 0, Event(), Event()

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        try:
            while True:
                self.made += 1
                yield bytes(500_000)
                while self.stuck and not stopped():
                    sleep(0.01)
        finally:
            if stopped():
                self.told.set()
            self.closed.set()


class Silent(Puppet):
    """A backend that has made nothing yet when it is told to stop."""

    def __init__(self) -> None:
        self.asked, self.told = Event(), Event()

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        self.asked.set()
        while not stopped():
            sleep(0.01)
        self.told.set()
        yield from ()


def asking(port: int, text: str, speaker: str) -> socket.socket:
    """A connection that has asked for speech and read the first bytes of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.connect(("127.0.0.1", port))
    connection.sendall(_request(text, speaker))
    assert connection.recv(200).startswith(b"HTTP/1.1 200")
    return connection


def _request(text: str, speaker: str) -> bytes:
    form = urlencode({"tts_text": text, "spk_id": speaker}).encode()
    head = f"POST {wire.SFT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(form)}\r\n"
    return f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode() + form


@pytest.mark.parametrize("stuck", [False, True])
def test_hanging_up_stops_the_backend_and_closes_its_generator(serving: Serving, stuck: bool) -> None:
    backend = Endless(stuck)
    with serving(backend) as port:
        asking(port, "hi", "one").close()
        assert backend.told.wait(2)
        assert backend.closed.wait(2)


def test_hanging_up_before_the_first_sound_is_no_failure(serving: Serving, capfd: pytest.CaptureFixture[str]) -> None:
    backend = Silent()
    with serving(backend) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200)
        connection.sendall(_request("hi", "one"))
        assert backend.asked.wait(2)
        connection.close()
        assert backend.told.wait(2)
    assert "made no sound" not in capfd.readouterr().err


def test_a_slow_reader_does_not_make_the_engine_run_ahead(serving: Serving) -> None:
    backend = Endless()
    with serving(backend) as port, asking(port, "hi", "one"):
        sleep(0.4)
        made = backend.made
        sleep(0.4)
        assert backend.made == made < 30


def test_hanging_up_frees_the_synthesiser_for_the_next(
    serving: Serving, without_flite: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    say = EspeakVoices.say

    def noted(self: EspeakVoices, text: str, *rest: object) -> object:
        said.append(text)
        return say(self, text, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EspeakVoices, "say", noted)
    with serving(without_flite) as port:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200)
        asking(port, "今天天气很好，我们去公园散步吧。" * 6_000, "中文女").close()
        started = monotonic()
        form = {"tts_text": "你好", "spk_id": "中文女"}
        assert httpx.post(f"http://127.0.0.1:{port}{wire.SFT}", data=form).status_code == 200
        assert monotonic() - started < 1
        until(lambda: not LOCK.locked())
    assert said[-1] == "你好"
    assert len(said) < 600


def test_many_listeners_are_all_served_whole(serving: Serving, embedded: Embedded) -> None:
    def listen(port: int) -> int:
        form = {"tts_text": "今天天气很好。What time is it? 我们走吧。", "spk_id": "中文女"}
        return len(httpx.post(f"http://127.0.0.1:{port}{wire.SFT}", data=form).content)

    with serving(embedded) as port, ThreadPoolExecutor(8) as threads:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200)
        lengths = list(threads.map(listen, [port] * 16))
    assert min(lengths) == pytest.approx(max(lengths), rel=0.02)


def test_the_first_bytes_come_before_the_rest_is_made(serving: Serving, embedded: Embedded) -> None:
    with serving(embedded) as port:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200)
        form = {"tts_text": "今天天气很好。" * 2_000, "spk_id": "中文女"}
        with httpx.stream("POST", f"http://127.0.0.1:{port}{wire.SFT}", data=form) as answer:
            assert len(next(answer.iter_raw())) < 200_000


def test_a_caller_who_never_reads_does_not_keep_the_engine(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "_UNREAD", 0.2)
    backend = Endless()
    with serving(backend) as port, asking(port, "hi", "one"):
        assert backend.closed.wait(5)


def test_a_caller_who_reads_slowly_is_waited_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "_UNREAD", 1.0)
    backend = Endless()
    with serving(backend) as port, asking(port, "hi", "one") as connection:
        read, end = 0, monotonic() + 2
        while monotonic() < end:
            read += len(connection.recv(65_536))
            assert not backend.closed.wait(0.02)
        assert read > 500_000


def test_a_form_that_never_ends_is_refused(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "_PATIENCE", 0.1)
    with serving(Endless()) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        head = f"POST {wire.SFT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        connection.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\ntts_text=".encode())
        assert connection.recv(200).startswith(b"HTTP/1.1 408")
