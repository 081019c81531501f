"""What dies, and who notices."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.engines.asr.running import Server, eventually, ready, serving
from tests.engines.asr.sound import as_wav, noise, say

LIVE = "engines.asr.live.worker"
LONG = as_wav(noise(120, -15))
"""Takes a worker many seconds."""


@contextmanager
def decoding(server: Server) -> Iterator[Future[httpx.Response]]:
    """A request in the middle of its decode."""
    with ThreadPoolExecutor() as threads:
        request = threads.submit(server.transcribe, LONG)
        eventually(server.busy, 10)
        time.sleep(0.3)
        yield request


def gone(process: psutil.Process) -> bool:
    """Ended, whether or not its parent, or who inherited it, has taken notice."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_worker_killed_in_its_work_costs_that_request_only(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "1") as server:
        with decoding(server) as request:
            server.workers()[0].kill()
            answer = request.result(5)
        assert (answer.status_code, answer.json()["success"]) == (502, False)
        assert "worker died" in answer.json()["error"]
        assert not server.leftovers()
        eventually(lambda: ready(server), 10)
        assert server.transcribe(as_wav(say("hello world"))).json()["text"] == "hello world"


def test_a_worker_killed_while_idle_is_replaced_before_anybody_asks(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "1") as server:
        (victim,) = server.workers()
        victim.kill()
        eventually(lambda: not ready(server), 2)
        refused = server.transcribe(as_wav(b""))
        assert refused.status_code == 200 or (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        eventually(lambda: ready(server), 10)
        assert server.workers() != [victim]
        assert server.transcribe(as_wav(say("hello world"))).json()["text"] == "hello world"


def test_a_server_killed_in_the_middle_of_a_decode_leaves_no_worker_and_no_file(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        workers = server.workers() + server.workers(LIVE)
        assert len(workers) == 3
        with decoding(server) as request:
            server.process.kill()
            eventually(lambda: all(map(gone, workers)), 1)
            assert isinstance(request.exception(5), httpx.TransportError)
        assert not list(server.scratch.iterdir())


def test_sigterm_ends_the_server_with_its_workers_soon_even_in_the_middle_of_a_decode(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        workers = server.workers() + server.workers(LIVE)
        with decoding(server) as request:
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(5)
            assert time.monotonic() - began < 2
            request.exception(5)
        assert all(map(gone, workers))
        assert not list(server.scratch.iterdir())


def test_more_requests_than_may_wait_are_asked_to_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "1", "--waiting", "0") as server, decoding(server) as request:
        refused = server.transcribe(LONG)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "wait already" in refused.json()["error"]
        assert httpx.get(f"{server.url}/health", timeout=0.5).status_code == 200
        server.workers()[0].kill()
        request.result(5)


def test_two_workers_decode_at_the_same_time(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server, decoding(server):
        assert server.transcribe(as_wav(say("hello world"))).json()["text"] == "hello world"
        for worker in server.workers():
            worker.kill()
