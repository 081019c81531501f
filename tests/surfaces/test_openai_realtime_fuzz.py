"""Whatever a Realtime client says, in whatever order: it is answered in Realtime's own shape, and leaves nothing."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import connect

import gateway.hearing
from engines.scripted import ScriptedEngine
from gateway.errors import EngineBroke
from gateway.memory import Call
from tests.adapters.spoken import World
from tests.conftest import Gateway, ready, running
from tests.surfaces.realtime_client import PATH, RATE, Client, cascade, packed, spoken
from tests.test_dialogue import Ears

SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
OUR_REPLIES: list[list[Any]] = [
    ["Hello there. ", "How are you?"],
    [Call("call_1", "weather", '{"city": "Paris"}')],
    ["Let me look. ", Call("call_2", "weather", "{}")],
    [EngineBroke("it broke")],
    ["A beginning. ", EngineBroke("it broke")],
    [],
    ["It takes a while. ", lambda: asyncio.sleep(0.05), "But it ends."],
]
PCM = {"speech": spoken(0.3), "silence": bytes(2 * RATE), "odd": spoken(0.1)[:-1], "nothing": b""}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("type", "id", "text")), inner),
    max_leaves=4,
)
EVENTS = (
    *("session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear"),
    *("conversation.item.create", "conversation.item.retrieve", "conversation.item.truncate"),
    *("conversation.item.delete", "response.create", "response.cancel", "output_audio_buffer.clear", "what.is.this"),
)
FIELDS = ("session", "audio", "item", "item_id", "content_index", "audio_end_ms", "response", "event_id")
TURNS = (
    None,
    {"type": "server_vad"},
    {"type": "server_vad", "create_response": False, "interrupt_response": False},
    {"type": "semantic_vad", "eagerness": "high"},
)


class Place:
    """A gateway that every example talks to, in one event loop."""

    def __init__(self, folder: Path) -> None:
        self.runner, self._stack, self._folder = asyncio.Runner(), AsyncExitStack(), folder
        self.gateway: Gateway
        self.there: World

    def open(self) -> None:
        self.runner.run(self._open())

    async def _open(self) -> None:
        engine = await self._stack.enter_async_context(ScriptedEngine())
        self.gateway = await ready(await self._stack.enter_async_context(running(self._folder, engine)))
        self.there = await cascade(self.gateway)
        self.there.mind.replies = [reply for _ in range(2000) for reply in OUR_REPLIES]

    def close(self) -> None:
        self.runner.run(self._stack.aclose())
        self.runner.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(gateway.hearing, "Endpointer", Ears)
    place = Place(tmp_path)
    place.open()
    yield place
    place.close()


class Talk(RuleBasedStateMachine):
    """One client."""

    place: Place
    kind = "realtime"

    def __init__(self) -> None:
        super().__init__()
        self._run = self.place.runner.run
        self.client: Client = self._run(self._dial())

    async def _dial(self) -> Client:
        address = f"ws://127.0.0.1:{self.place.gateway.port}{PATH}&intent={self.kind}"
        return Client(await connect(address, proxy=None, compression=None))

    # What it does

    @rule(sound=st.sampled_from(sorted(PCM)))
    def appends(self, sound: str) -> None:
        self._send("input_audio_buffer.append", audio=packed(PCM[sound]))

    @rule()
    def commits(self) -> None:
        self._send("input_audio_buffer.commit")

    @rule()
    def clears(self) -> None:
        self._send("input_audio_buffer.clear")

    @rule(turns=st.sampled_from(TURNS), speech=st.booleans())
    def updates(self, turns: Any, speech: bool) -> None:
        heard = {"turn_detection": turns, "transcription": {"model": "m"}}
        modalities = ["audio"] if speech else ["text"]
        session = {"type": self.kind, "output_modalities": modalities, "audio": {"input": heard}}
        self._send("session.update", session=session)

    @rule(role=st.sampled_from(("user", "system", "assistant")), place=st.integers(0, 5))
    def writes(self, role: str, place: int) -> None:
        part = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": part, "text": "Some words."}]}
        self._send("conversation.item.create", item=item, previous_item_id=self._item(place))

    @rule()
    def says_an_item(self) -> None:
        content = [{"type": "input_audio", "audio": packed(PCM["speech"])}]
        self._send("conversation.item.create", item={"type": "message", "role": "user", "content": content})

    @rule(call=st.sampled_from(("call_1", "call_2", "nobody's")))
    def gives_a_result(self, call: str) -> None:
        self._send("conversation.item.create", item={"type": "function_call_output", "call_id": call, "output": "rain"})

    @rule(verb=st.sampled_from(("retrieve", "delete")), place=st.integers(0, 5))
    def reads_or_deletes(self, verb: str, place: int) -> None:
        self._send(f"conversation.item.{verb}", item_id=self._item(place))

    @rule(place=st.integers(0, 5), milliseconds=st.integers(0, 700))
    def truncates(self, place: int, milliseconds: int) -> None:
        item = self._item(place)
        self._send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=milliseconds)

    @rule(kept=st.booleans(), most=st.sampled_from((None, 1, 5)))
    def asks_for_a_response(self, kept: bool, most: int | None) -> None:
        self._send("response.create", response={"conversation": "auto" if kept else "none", "max_output_tokens": most})

    @rule()
    def cancels(self) -> None:
        self._send("response.cancel")

    @rule(kind=st.sampled_from(EVENTS), fields=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3))
    def says_anything(self, kind: str, fields: dict[str, Any]) -> None:
        self._run(self.client.socket.send(json.dumps({"type": kind} | fields)))

    @rule(message=st.text(max_size=10) | st.binary(max_size=10))
    def says_nonsense(self, message: str | bytes) -> None:
        self._run(self.client.socket.send(message))

    @rule()
    def waits(self) -> None:
        self._run(asyncio.sleep(0.01))

    # What must be true

    @invariant()
    def it_is_told_what_realtime_tells(self) -> None:
        self._run(self._read())
        for event in self.client.events[getattr(self, "_checked", 0) :]:
            SERVER_EVENT.validate_python(event)
            assert event["event_id"]
        self._checked = len(self.client.events)

    def teardown(self) -> None:
        self._run(self._leave())

    async def _leave(self) -> None:
        await self.client.send(
            "session.update", session={"type": self.kind, "audio": {"input": {"turn_detection": None}}}
        )
        await self.client.until("session.updated")
        async with asyncio.timeout(10):
            while len(self.client.of("response.created")) > len(self.client.of("response.done")):
                await self.client.next(10)
        _check(self.client.events)
        await self.client.socket.close()
        await self.place.gateway.idle(5)
        async with asyncio.timeout(5):
            while not self.place.there.idle() or self.place.gateway.state["converse"].gate.running:
                await asyncio.sleep(0.005)
        assert b"voxgate_conversations 0.0" in self.place.gateway.state["metrics"].exposition()

    # Private

    def _send(self, kind: str, **fields: Any) -> None:
        self._run(self.client.send(kind, **{name: value for name, value in fields.items() if value is not None}))

    async def _read(self) -> None:
        """What is there already."""
        while True:
            try:
                await self.client.next(0.001)
            except TimeoutError:
                return

    def _item(self, place: int) -> str:
        known = [one["item"]["id"] for one in self.client.of("conversation.item.added")]
        return known[-1 - place] if place < len(known) else "nobody"


def _check(events: list[dict[str, Any]]) -> None:
    """One conversation, from its beginning."""
    assert events[0]["type"] == "session.created"
    running, items = dict[str, set[str]](), set[str]()
    for event in events:
        kind = event["type"]
        if kind == "response.created":
            running[event["response"]["id"]] = set()
        elif kind == "response.done":
            opened = running.pop(event["response"]["id"])
            assert not opened, "each of its items has ended"
            assert event["response"]["usage"]["total_tokens"] >= 0
            assert event["response"]["status"] in ("completed", "cancelled", "failed", "incomplete")
        elif kind == "response.output_item.added":
            running[event["response_id"]].add(event["item"]["id"])
        elif kind == "response.output_item.done":
            running[event["response_id"]].remove(event["item"]["id"])
        elif kind.startswith("response."):
            assert event["item_id"] in running[event["response_id"]]
        elif kind == "conversation.item.added":
            assert event["previous_item_id"] is None or event["previous_item_id"] in items
            assert event["item"]["id"] not in items
            items.add(event["item"]["id"])
    assert not running


@pytest.mark.parametrize("session", ["realtime", "transcription"])
def test_whatever_a_client_says_is_answered_and_leaves_nothing(place: Place, session: str) -> None:
    class Here(Talk):
        pass

    Here.place, Here.kind = place, session
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
