"""NLS sockets: several tasks one after another, what a client does wrong, silence, and leaving; with tasks of a test's
own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.errors import BadRequest, EngineBroke, EngineBusy
from gateway.surfaces import nls_socket
from gateway.surfaces.nls_socket import Begin, Line
from gateway.surfaces.voicechat import MOST_MISTAKES
from gateway.wire import nls as wire
from tests.surfaces.nls_client import NlsClient
from tests.test_socket import Place, serving


class Echo:
    """A task that says again what it is told, until its Stop."""

    running = 0

    def __init__(self, line: Line, start: wire.Message) -> None:
        self._line, self._fails = line, wire.text(start.payload, "fails")
        self._said: asyncio.Queue[str] = asyncio.Queue()
        if wire.number(start.payload, "volume", 50) > 100:
            raise BadRequest("volume is not of 0 to 100")

    async def run(self) -> None:
        Echo.running += 1
        try:
            await self._line.say("SynthesisStarted", {"session_id": self._line.session_id, "index": 1})
            while text := await self._said.get():
                if self._fails:
                    raise {"broke": EngineBroke("it died"), "busy": EngineBusy("full"), "bug": ZeroDivisionError()}[
                        text
                    ]
                await self._line.play(text.encode())
            await self._line.complete("SynthesisCompleted")
        finally:
            Echo.running -= 1

    async def command(self, message: wire.Message) -> None:
        self._said.put_nowait(wire.text(message.payload, "text") if message.name == "RunSynthesis" else "")

    async def audio(self, data: bytes) -> None:
        raise BadRequest("this task takes no audio")


KINDS: dict[str, Begin] = {wire.FLOWING: Echo, wire.SYNTHESIZER: Echo}


@asynccontextmanager
async def nls(**settings: Any) -> AsyncIterator[tuple[Place, NlsClient]]:
    async with serving(partial(nls_socket.serve, kinds=KINDS), **settings) as place, place.connect() as socket:
        yield place, NlsClient(socket, wire.FLOWING)


async def completes(client: NlsClient, text: str = "hello") -> None:
    """One whole task."""
    client.forget()
    await client.send("StartSynthesis", {})
    await client.until("SynthesisStarted")
    await client.send("RunSynthesis", {"text": text})
    await client.send("StopSynthesis")
    await client.until("SynthesisCompleted")
    assert bytes(client.audio) == text.encode()


async def test_tasks_run_one_after_another_on_one_connection() -> None:
    async with nls() as (_, client):
        for number in range(5):
            client.task_id = f"task-{number}"
            await completes(client, str(number))
            assert {event["header"]["task_id"] for event in client.events} == {client.task_id}
        assert Echo.running == 0


async def test_a_task_without_an_id_gets_one_and_a_stop_need_not_name_it() -> None:
    async with nls() as (_, client):
        await client.send("StartSynthesis", {}, task_id=None)
        started = await client.until("SynthesisStarted")
        assert len(started["header"]["task_id"]) == 32
        await client.send("StopSynthesis", task_id=None)
        done = await client.until("SynthesisCompleted")
        assert done["header"]["task_id"] == started["header"]["task_id"]


class TestWhatIsWrong:
    """TaskFailed, and everything goes on."""

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ("no JSON", "Message Not Json"),
            ('{"header": {"namespace": "Nobody", "name": "Start"}}', "Invalid namespace"),
            ('{"header": {"name": "StartSynthesis"}}', "Invalid namespace"),
            ('{"header": {"namespace": "FlowingSpeechSynthesizer", "name": "Sing"}}', "Invalid message name: Sing"),
            (
                '{"header": {"namespace": "FlowingSpeechSynthesizer", "name": "StopSynthesis"}}',
                "Connection not started",
            ),
            (b"\0\0", "Connection not started"),
        ],
    )
    async def test_before_a_task(self, message: str | bytes, reason: str) -> None:
        async with nls() as (_, client):
            await client.socket.send(message)
            assert await client.refused() == reason
            header = client.events[0]["header"]
            assert (header["status"], header["namespace"], len(header["task_id"])) == (40000000, "Default", 32)
            await completes(client)

    async def test_in_a_task(self) -> None:
        async with nls() as (_, client):
            await client.send("StartSynthesis", {})
            await client.until("SynthesisStarted")
            for reason, send in (
                ("Connection already started", partial(client.send, "StartSynthesis", {})),
                ("Task ID not match", partial(client.send, "RunSynthesis", {"text": "a"}, task_id="another")),
                ("Invalid namespace", partial(client.send, "StartRecognition", namespace="SpeechRecognizer")),
                (
                    "Invalid message name: StopSynthesis",
                    partial(client.send, "StopSynthesis", namespace="SpeechSynthesizer"),
                ),
                ("this task takes no audio", partial(client.socket.send, b"\0\0")),
                ("text is not a text", partial(client.send, "RunSynthesis", {"text": 1})),
            ):
                await send()
                assert await client.refused() == reason
                assert client.events[-1]["header"]["task_id"] == client.task_id
            await client.send("StopSynthesis")
            await client.until("SynthesisCompleted")

    async def test_wrong_parameters_begin_no_task(self) -> None:
        async with nls() as (_, client):
            await client.send("StartSynthesis", {"volume": 101})
            assert await client.refused() == "volume is not of 0 to 100"
            header = client.events[-1]["header"]
            assert (header["task_id"], header["namespace"]) == (client.task_id, "Default"), (
                "of the task that it is about"
            )
            await client.send("StartSynthesis", {"volume": 101}, namespace=wire.SYNTHESIZER)
            await client.refused()
            assert client.events[-1]["header"]["namespace"] == wire.SYNTHESIZER
            await completes(client)

    async def test_what_was_on_its_way_when_a_task_failed_is_no_mistake(self) -> None:
        async with nls() as (_, client):
            await client.send("StartSynthesis", {"fails": "yes"})
            await client.send("RunSynthesis", {"text": "broke"})
            await client.refused()
            await client.socket.send(b"\0\0")
            await client.send("StopSynthesis")
            await completes(client)
            assert "TaskFailed" not in client.order

    async def test_audio_that_nobody_asked_for_is_answered_once(self) -> None:
        async with nls() as (_, client):
            for _ in range(3 * MOST_MISTAKES):
                await client.socket.send(b"\0\0")
            assert await client.refused() == "Connection not started"
            await completes(client)
            await client.socket.send(b"\0\0")
            assert await client.refused() == "Connection not started", "and again after a task"

    async def test_again_and_again_ends_the_connection(self) -> None:
        async with nls() as (_, client):
            for _ in range(MOST_MISTAKES):
                await client.socket.send("{}")
                await client.refused()
            await completes(client)
            for _ in range(MOST_MISTAKES + 1):
                await client.socket.send("{}")
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await client.next()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008

    async def test_a_message_that_is_too_large_ends_the_connection(self) -> None:
        async with nls(socket_max_bytes=1000) as (_, client):
            await client.socket.send(" " * 1000)
            assert await client.refused() == "Message Not Json"
            await client.socket.send(" " * 1001)
            with pytest.raises(ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


@pytest.mark.parametrize(("kind", "status"), [("broke", 50000000), ("busy", 40000005), ("bug", 50000000)])
async def test_a_task_that_fails_says_so_and_the_next_one_is_taken(kind: str, status: int) -> None:
    async with nls() as (_, client):
        await client.send("StartSynthesis", {"fails": "yes"})
        await client.send("RunSynthesis", {"text": kind})
        assert await client.refused()
        header = client.events[-1]["header"]
        assert (header["status"], header["task_id"], header["namespace"]) == (status, client.task_id, "Default")
        assert "ZeroDivision" not in json.dumps(client.events)
        await completes(client)


class TestSilence:
    async def test_between_two_tasks_closes_normally(self) -> None:
        async with nls(nls_idle_timeout=1.0) as (place, client):
            await completes(client)
            with pytest.raises(ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
            await place.idle()

    async def test_in_a_task_is_told_before_it_closes(self) -> None:
        async with nls(nls_task_timeout=0.3) as (place, client):
            await client.send("StartSynthesis", {})
            await client.until("SynthesisStarted")
            assert "IDLE_TIMEOUT" in await client.refused()
            assert client.events[-1]["header"]["status"] == 40000004
            with pytest.raises(ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
            await place.idle()
            assert Echo.running == 0

    async def test_that_is_filled_with_stray_audio_is_silence(self) -> None:
        async with nls(nls_idle_timeout=0.3) as (_, client):

            async def stray() -> None:
                with suppress(ConnectionClosed):
                    while True:
                        await client.socket.send(b"\0\0")
                        await asyncio.sleep(0.02)

            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(stray())
                with pytest.raises(ConnectionClosed):
                    while True:
                        await client.next()
                sending.cancel()

    async def test_begins_anew_with_every_word(self) -> None:
        async with nls(nls_task_timeout=2.5) as (_, client):
            await client.send("StartSynthesis", {})
            for _ in range(9):
                await asyncio.sleep(0.35)
                await client.send("RunSynthesis", {"text": "a"})
            await client.send("StopSynthesis")
            await client.until("SynthesisCompleted")


async def test_a_client_that_leaves_ends_its_task() -> None:
    async with nls() as (place, client):
        await client.send("StartSynthesis", {})
        await client.until("SynthesisStarted")
        assert Echo.running == 1
        client.socket.transport.abort()
        await place.idle()
        assert Echo.running == 0
