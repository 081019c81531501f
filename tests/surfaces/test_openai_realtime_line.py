"""What a Realtime client is told, on its way: in order, bounded, and sound that was not sent can be taken back."""

import asyncio
import json
from typing import Any

import pytest

from gateway.errors import BadRequest, EngineBusy, TooSlow
from gateway.surfaces.openai_realtime_line import MOST_BYTES, Line
from gateway.wire.openai_realtime_beta import Dialect
from gateway.wire.openai_realtime_fields import Wrong

DELTA = "response.output_audio.delta"


class Socket:
    """Takes a message for each `ticket`."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.tickets = asyncio.Semaphore(0)

    async def send(self, data: str) -> None:
        await self.tickets.acquire()
        self.sent.append(json.loads(data))


def line(socket: Socket, patience: float = 5.0, dialect: Dialect = Dialect.GA) -> Line:
    return Line(socket, dialect, patience)  # type: ignore[arg-type]


async def sent(socket: Socket, told: Line, count: int) -> list[dict[str, Any]]:
    sending = asyncio.create_task(told.run())
    for _ in range(count):
        socket.tickets.release()
    async with asyncio.timeout(1):
        while len(socket.sent) < count:
            await asyncio.sleep(0)
    sending.cancel()
    return socket.sent


async def test_events_leave_in_order_each_with_an_id_of_its_own() -> None:
    socket = Socket()
    told = line(socket)
    told.emit("session.created", session={})
    told.emit_delta(DELTA, "resp_1", seconds=0.1, delta="x")
    told.emit("response.done", response={})
    found = await sent(socket, told, 3)
    assert [one["type"] for one in found] == ["session.created", DELTA, "response.done"]
    assert len({one["event_id"] for one in found}) == 3
    assert found[1]["response_id"] == "resp_1"


async def test_what_was_not_sent_of_a_reply_is_taken_back_and_nothing_else() -> None:
    socket = Socket()
    told = line(socket)
    told.emit_delta(DELTA, "resp_1", seconds=0.5, delta="sent")
    await sent(socket, told, 1)
    told.emit_delta(DELTA, "resp_1", seconds=0.25, delta="x")
    told.emit("input_audio_buffer.speech_started")
    told.emit_delta("response.output_audio_transcript.delta", "resp_1", letters=7, delta="seven..")
    told.emit_delta(DELTA, "resp_2", seconds=9.0, delta="another's")
    assert told.take_back("resp_1") == (0.25, 7)
    assert told.take_back("resp_1") == (0.0, 0)
    found = await sent(socket, told, 3)
    assert [one["type"] for one in found[1:]] == ["input_audio_buffer.speech_started", DELTA]


async def test_whoever_brings_more_than_the_client_reads_waits() -> None:
    socket = Socket()
    told = line(socket)
    told.emit_delta(DELTA, "resp_1", delta="x" * (MOST_BYTES - 500))
    async with asyncio.timeout(1):
        await told.room()
    told.emit_delta(DELTA, "resp_1", delta="x" * 500)
    waiting = asyncio.create_task(told.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    told.take_back("resp_1")
    async with asyncio.timeout(1):
        await waiting
    assert repr(told) == "<line: 0 events, 0 bytes>"


async def test_a_client_that_reads_nothing_is_too_slow() -> None:
    told = line(Socket(), patience=0.01)
    told.emit("session.created", session={})
    with pytest.raises(TooSlow):
        await told.run()


@pytest.mark.parametrize(
    ("exc", "kind", "code", "param"),
    [
        (Wrong("no", "invalid_type", "session.voice"), "invalid_request_error", "invalid_type", "session.voice"),
        (BadRequest("no", code="nothing_recorded"), "invalid_request_error", "nothing_recorded", None),
        (EngineBusy("later"), "server_error", "engine_busy", None),
    ],
)
async def test_what_fails_is_told_in_openai_s_words(exc: Any, kind: str, code: str, param: str | None) -> None:
    socket = Socket()
    told = line(socket)
    told.fail(exc, "mine")
    error = (await sent(socket, told, 1))[0]["error"]
    assert error == {"type": kind, "code": code, "message": str(exc), "param": param, "event_id": "mine"}


async def test_what_the_beta_has_no_name_for_is_not_told() -> None:
    socket = Socket()
    told = line(socket, dialect=Dialect.BETA)
    told.emit("conversation.item.done", item={})
    told.emit_delta(DELTA, "resp_1", delta="x")
    assert [one["type"] for one in await sent(socket, told, 1)] == ["response.audio.delta"]
