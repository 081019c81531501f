"""Whatever a client of NLS recognition sends, in whatever order: it is answered in this protocol, nothing hangs, and
nothing is left."""

import asyncio
import re
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.surfaces import nls_listening
from gateway.surfaces.voicechat import MOST_MISTAKES
from gateway.wire import nls as wire
from tests.adapters.spoken import silence, tone
from tests.surfaces.nls_client import Event
from tests.surfaces.test_nls_listening import STARTS, Ears, Engine, listening

ON_THE_WAY = {"SentenceBegin", "TranscriptionResultChanged", "SentenceEnd", "RecognitionResultChanged"}
NAMESPACES = st.sampled_from([wire.TRANSCRIBER, wire.RECOGNIZER])
RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from(["pcm", "PCM", "wav", "", None]),
        "sample_rate": st.sampled_from([8000, "16000", 48000, None, 16000.0]),
        "enable_intermediate_result": st.sampled_from([True, 0, "true", None]),
        "enable_punctuation_prediction": st.booleans(),
        "enable_inverse_text_normalization": st.booleans(),
        "enable_words": st.booleans(),
        "disfluency": st.booleans(),
        "max_sentence_silence": st.sampled_from([200, 6000, "800", None]),
        "speech_noise_threshold": st.sampled_from([-1, 0.5, "1", None]),
        "nobody_knows": st.one_of(st.text(), st.integers(), st.none()),
    },
)
WRONG = st.sampled_from(
    [
        {"format": "mp3"},
        {"format": []},
        {"sample_rate": 1},
        {"sample_rate": float("inf")},
        {"max_sentence_silence": -1},
        {"max_sentence_silence": True},
        {"speech_noise_threshold": 2},
        {"enable_words": "maybe"},
        {"customization_id": "nobody"},
        {"vocabulary_id": 5},
        "no object",
        ["no object"],
    ]
)
AUDIO = st.one_of(
    st.binary(max_size=2000),
    st.sampled_from([b"", tone(0.3), tone(1) + silence(0.5), silence(1), b"\xff" * 9999]),
)
JUNK = st.one_of(
    st.text(max_size=50),
    st.sampled_from(["{}", "[]", "null", '{"header": 5}', '{"header": {"name": 1}}', "[" * 9000, '{"header": {}}']),
)


class Client(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner, self.stack, self.patch = asyncio.Runner(), AsyncExitStack(), pytest.MonkeyPatch()
        self.patch.setattr(nls_listening, "Endpointer", Ears)
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        _, self.client = self.runner.run(self.stack.enter_async_context(listening(folder, Engine())))
        self.task = ""
        """Namespace of the one that runs."""
        self.mistakes = 0
        self.stray = False

    def teardown(self) -> None:
        try:
            self.runner.run(asyncio.wait_for(self.stack.aclose(), 20))
        finally:
            self.patch.undo()
            self.runner.close()

    @rule(namespace=NAMESPACES, payload=RIGHT)
    def start(self, namespace: str, payload: dict[str, Any]) -> None:
        self._send(STARTS[namespace][0], payload, namespace)
        if self.task:
            self._refused()
        else:
            self._answered(STARTS[namespace][1])
            self.task = namespace

    @precondition(lambda self: self.mistakes < MOST_MISTAKES - 1)
    @rule(namespace=NAMESPACES, payload=WRONG)
    def start_wrong(self, namespace: str, payload: Any) -> None:
        self._send(STARTS[namespace][0], payload, namespace)
        self._refused()

    @rule(audio=AUDIO)
    def say(self, audio: bytes) -> None:
        self.runner.run(self.client.socket.send(audio))
        if self.task:
            self.mistakes = 0
        elif not self.stray:
            self.stray = True
            self._refused()

    @precondition(lambda self: self.task)
    @rule(named=st.booleans())
    def stop(self, named: bool) -> None:
        self._send(STARTS[self.task][2], None, self.task, **({} if named else {"task_id": None}))
        self._answered(STARTS[self.task][3])
        self.task = ""

    @precondition(lambda self: self.mistakes < MOST_MISTAKES - 1)
    @rule(namespace=NAMESPACES, name=st.sampled_from(["StopTranscription", "StopRecognition", "Sing", ""]))
    def command_that_is_not_meant_now(self, namespace: str, name: str) -> None:
        self._send(name, None, namespace, task_id="another")
        self._refused()

    @precondition(lambda self: self.task == wire.TRANSCRIBER)
    @rule(payload=RIGHT)
    def control(self, payload: dict[str, Any]) -> None:
        self._send("ControlTranscriber", payload, self.task)
        self.mistakes = 0

    @precondition(lambda self: self.mistakes < MOST_MISTAKES - 1)
    @rule(text=JUNK)
    def junk(self, text: str) -> None:
        self.runner.run(self.client.socket.send(text))
        self.stray = False
        self._refused()

    # Private

    def _send(self, name: str, payload: Any, namespace: str, **header: Any) -> None:
        self.client.forget()
        self.stray = False
        self.runner.run(self.client.send(name, payload, namespace=namespace, **header))

    def _refused(self) -> None:
        event = self._until("TaskFailed")
        assert 40000000 <= event["header"]["status"] < 50000000
        assert event["header"]["status_text"]
        self.mistakes += 1

    def _answered(self, name: str) -> None:
        event = self._until(name)
        assert (event["header"]["status"], event["header"]["task_id"]) == (20000000, self.client.task_id)
        self.mistakes = 0

    def _until(self, name: str) -> Event:
        while True:
            event = self.runner.run(self.client.next(10))
            assert isinstance(event, dict), "recognition sends no audio"
            header = event["header"]
            assert re.fullmatch("[0-9a-f]{32}", header["message_id"])
            assert header["namespace"] in (wire.TRANSCRIBER, wire.RECOGNIZER, wire.DEFAULT)
            if header["name"] == name:
                return event
            assert header["name"] in ON_THE_WAY, event


Client.TestCase.settings = hypothesis.settings(max_examples=12, stateful_step_count=25, deadline=None)
TestAnyOrder = Client.TestCase
