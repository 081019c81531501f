"""Messages to everybody in a chat: in order, whole in the end, and never waited for."""

import asyncio
from typing import Any

import pytest

from gateway import rooms
from gateway.errors import TooSlow
from gateway.rooms import Outbox, Rooms
from gateway.socket import Socket


class Line:
    """A client's end, which reads as quickly as it is told."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.socket = Socket({"type": "websocket"}, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        raise AssertionError("nobody asks")

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        self.read.append(message["text"])


async def test_messages_leave_in_order_and_what_waits_at_the_end_too() -> None:
    line, outbox = Line(), Outbox()
    for number in range(5):
        outbox.put(str(number))
    outbox.close()
    outbox.put("after the end")
    await asyncio.wait_for(outbox.deliver(line.socket, 1), 1)
    assert line.read == ["0", "1", "2", "3", "4"]


async def test_a_newer_state_takes_the_place_of_one_that_has_not_left() -> None:
    line, outbox = Line(), Outbox()
    outbox.put("a1", "a", grows=True)
    outbox.put("b1", "b", grows=True)
    outbox.put("a2", "a", grows=True)
    outbox.put("a3", "a")
    outbox.put("c")
    outbox.close()
    await outbox.deliver(line.socket, 1)
    assert line.read == ["a3", "b1", "c"]


async def test_states_are_paced_and_whole_messages_are_not() -> None:
    line, outbox = Line(), Outbox()
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        tasks.create_task(outbox.deliver(line.socket, 1))
        for number in range(100):
            outbox.put(str(number), "a", grows=True)
            await asyncio.sleep(0.001)
        assert len(line.read) <= 10
        outbox.put("whole", "a")
        await asyncio.sleep(0.01)
        assert line.read[-1] == "whole"
        outbox.close()


async def test_a_client_that_reads_nothing_is_given_up_after_a_while() -> None:
    line, outbox = Line(), Outbox()
    line.reads.clear()
    outbox.put("hello")
    with pytest.raises(TooSlow, match="nothing for"):
        await asyncio.wait_for(outbox.deliver(line.socket, 0.02), 1)


async def test_a_client_for_whom_too_much_waits_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MOST_WAITING", 3)
    line, outbox = Line(), Outbox()
    line.reads.clear()
    async with asyncio.timeout(1):
        outbox.put("0")
        delivering = asyncio.create_task(outbox.deliver(line.socket, 100))
        await asyncio.sleep(0.01)
        for number in range(5):
            outbox.put(str(number))
        with pytest.raises(TooSlow, match="too many"):
            await delivering


async def test_everybody_in_a_room_is_told_and_nobody_in_another() -> None:
    found = Rooms(keep=1)
    boxes, lines = [Outbox() for _ in range(3)], [Line() for _ in range(3)]
    with found.enter("a", boxes[0]) as room, found.enter("a", boxes[1]), found.enter("b", boxes[2]):
        room.tell("hello")
        for box in boxes:
            box.close()
        for box, line in zip(boxes, lines, strict=True):
            await box.deliver(line.socket, 1)
    assert [line.read for line in lines] == [["hello"], ["hello"], []]
    assert repr(found) == "<0 connected, 0 rooms, 0 to take up again>"


async def test_a_token_is_lent_to_one_at_a_time_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Rooms(keep=0.02)
    assert found.take_token("a") == ""
    found.leave_token("a", "one")
    assert (found.take_token("a"), found.take_token("a")) == ("one", "")
    found.leave_token("a", "two")
    await asyncio.sleep(0.03)
    assert found.take_token("a") == ""
    monkeypatch.setattr(rooms, "MOST_TOKENS", 2)
    for name in ("a", "b", "c"):
        found.leave_token(name, name)
    assert [found.take_token(name) for name in ("a", "b", "c")] == ["", "b", "c"]
