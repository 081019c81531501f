"""Any sequence of messages on NLS sockets, of both halves of the protocol: each is answered in its shape, nothing
hangs, and nothing is left."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from websockets.sync.client import connect

from gateway.wire import nls
from tests.conftest import Gateway, running
from tests.surfaces.mouth import Mouth, speaks
from tests.surfaces.talkers import Ears, hears

STARTED = {
    nls.FLOWING: "SynthesisStarted",
    nls.TRANSCRIBER: "TranscriptionStarted",
    nls.RECOGNIZER: "RecognitionStarted",
}
STOPS = {nls.FLOWING: "StopSynthesis", nls.TRANSCRIBER: "StopTranscription", nls.RECOGNIZER: "StopRecognition"}
COMPLETED = {
    nls.FLOWING: "SynthesisCompleted",
    nls.TRANSCRIBER: "TranscriptionCompleted",
    nls.RECOGNIZER: "RecognitionCompleted",
}
NAMESPACES = some.sampled_from(sorted(STARTED))
WRONG = {"volume": [], "sample_rate": 1, "format": "tape", "max_sentence_silence": {}}
"""At least one of which every task's start refuses."""


class Served:
    """A gateway in a thread of its own: state machines are not async."""

    gateway: Gateway
    mouth: Mouth
    ears: Ears

    def left(self) -> tuple[int, int, int]:
        """Sessions at engines, and connections."""
        return self.mouth.open, self.ears.open, len(self.gateway.server.server_state.tasks)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served()
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(tmp_path_factory.mktemp("gateway"), "http://127.0.0.1:9") as gateway:
            found.gateway = gateway
            found.mouth = await speaks(gateway, Mouth(character=0.002))
            found.ears = await hears(gateway, Ears())
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(20)
    yield found
    stop.set()
    thread.join()


class Client(RuleBasedStateMachine):
    """One connection, and what it must be told next."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._served = served
        self._scope = ExitStack()
        self._socket = self._scope.enter_context(connect(f"ws://127.0.0.1:{served.gateway.port}/ws/v1", proxy=None))
        self._running = ""
        """Namespace of the task."""
        self._stray = False
        self._number = 0

    @rule(namespace=NAMESPACES, named=some.booleans())
    def start(self, namespace: str, named: bool) -> None:
        self._number += 1
        self._say(namespace, nls.STARTS[namespace], {}, f"task-{self._number}" if named else None)
        if self._running:
            self._told("TaskFailed")
        else:
            event = self._told(STARTED[namespace])
            assert not named or event["header"]["task_id"] == f"task-{self._number}"
            self._running, self._id = namespace, event["header"]["task_id"]

    @rule(namespace=NAMESPACES)
    def start_wrongly(self, namespace: str) -> None:
        self._say(namespace, nls.STARTS[namespace], WRONG)
        self._told("TaskFailed")

    @rule(text=some.text(alphabet="a。. 好\n🙂<>%", max_size=30))
    def whole(self, text: str) -> None:
        self._say(nls.SYNTHESIZER, "StartSynthesis", {"text": text, "enable_subtitle": True})
        said = any(map(str.isalnum, text)) and not self._running
        self._told("SynthesisCompleted" if said else "TaskFailed", either=said)

    @rule(text=some.text(alphabet="a。. 好\n🙂<>%", max_size=30))
    def run(self, text: str) -> None:
        self._say(nls.FLOWING, "RunSynthesis", {"text": text})
        if self._running != nls.FLOWING or not text:
            self._told("TaskFailed")

    @rule(size=some.integers(0, 5000))
    def audio(self, size: int) -> None:
        self._socket.send(bytes(size))
        if not self._running and not self._stray:
            self._told("TaskFailed")
            self._stray = True
        elif self._running == nls.FLOWING:
            self._told("TaskFailed")

    @rule(namespace=NAMESPACES, named=some.booleans())
    def stop(self, namespace: str, named: bool) -> None:
        self._say(namespace, STOPS[namespace], None, self._id if named and self._running else None)
        if self._running == namespace:
            self._told(COMPLETED[namespace])
            self._running = ""
        else:
            self._told("TaskFailed")

    @rule(namespace=NAMESPACES)
    def stop_another(self, namespace: str) -> None:
        self._say(namespace, STOPS[namespace], None, "another")
        self._told("TaskFailed")

    @rule(
        frame=some.one_of(
            some.text(max_size=50),
            some.sampled_from(["{}", "[]", '{"header": {}}', '{"header": {"namespace": "Default"}}', "[" * 9000]),
        )
    )
    def nonsense(self, frame: str) -> None:
        self._stray = False
        self._socket.send(frame)
        self._told("TaskFailed")

    def teardown(self) -> None:
        self._scope.close()
        ends = time.monotonic() + 10
        while any(self._served.left()):
            assert time.monotonic() < ends, f"left behind: {self._served.left()}"
            time.sleep(0.005)

    # Private

    def _say(self, namespace: str, name: str, payload: Any = None, task_id: str | None = None) -> None:
        self._stray = False
        header = {"message_id": "0" * 32, "task_id": task_id, "namespace": namespace, "name": name}
        self._socket.send(json.dumps({"header": header, "payload": payload}))

    def _told(self, name: str, *, either: bool = False) -> dict[str, Any]:
        """The next event of that name. Those of the task that runs may come before it, but no failure.

        either: whether TaskFailed will do as well.
        """
        while True:
            data = self._socket.recv(timeout=10)
            if isinstance(data, bytes):
                assert self._running == nls.FLOWING or name == "SynthesisCompleted"
                continue
            event: dict[str, Any] = json.loads(data)
            header = event["header"]
            assert {"message_id", "task_id", "namespace", "name", "status"} < header.keys()
            if header["name"] == name or (either and header["name"] == "TaskFailed"):
                return event
            assert header["name"] != "TaskFailed", header


def test_every_sequence_is_answered_and_leaves_nothing(served: Served) -> None:
    limits = hypothesis.settings(
        max_examples=40, stateful_step_count=25, suppress_health_check=list(hypothesis.HealthCheck)
    )
    run_state_machine_as_test(lambda: Client(served), settings=limits)  # type: ignore[no-untyped-call]
