from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from time import monotonic, sleep

import pytest
import uvicorn

from engines.tts.backends import Backend
from engines.tts.backends.embedded import Embedded
from engines.tts.server import create_app
from engines.tts.source import Threads

Serving = Callable[[Backend], AbstractContextManager[int]]


@pytest.fixture(scope="session")
def embedded() -> Embedded:
    """As this machine has it: with flite where it is installed."""
    backend = Embedded()
    backend.load()
    return backend


@pytest.fixture(scope="session")
def with_flite(embedded: Embedded) -> Embedded:
    if "flite" not in embedded.model:
        pytest.skip("libflite with the voices rms and awb is not installed")
    return embedded


@pytest.fixture(scope="session")
def without_flite() -> Embedded:
    backend = Embedded(flite=False)
    backend.load()
    return backend


@pytest.fixture
def serving() -> Serving:
    """A real server on a real socket, in a thread: `with serving(backend) as port`."""

    @contextmanager
    def serve(backend: Backend) -> Iterator[int]:
        app = create_app(Threads(backend))
        config = uvicorn.Config(app, port=0, log_level="error", loop="uvloop", http="httptools")
        config.timeout_graceful_shutdown = 1
        server = uvicorn.Server(config)
        thread = Thread(target=server.run)
        thread.start()
        until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        thread.join()

    return serve


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end, "it never came true"
        sleep(0.01)
