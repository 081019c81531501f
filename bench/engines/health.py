"""Asks /health every 20 ms from a process of its own, so that what else the client does cannot be heard in the times.

`python -m bench.engines.health PORT`: until its stdin ends; then the seconds of each answer, as JSON.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY = 0.02


@contextmanager
def watched(port: int) -> Iterator[list[float]]:
    """The list fills when the block ends."""
    command = [sys.executable, "-m", "bench.engines.health", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    times: list[float] = []
    try:
        yield times
    finally:
        said, _ = process.communicate(timeout=60)
        times += json.loads(said)


def main() -> None:
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    times = []
    print("begun", flush=True)
    while not over.is_set():
        started = time.perf_counter()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        took = time.perf_counter() - started
        assert answer.status == 200, answer.status
        times.append(took)
        over.wait(max(0.0, _EVERY - took))
    print(json.dumps(times))


if __name__ == "__main__":
    main()
