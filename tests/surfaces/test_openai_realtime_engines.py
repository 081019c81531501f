"""Realtime on an engine that remembers the conversation itself, and with clients that read nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.scripted import ScriptedEngine
from gateway.errors import EngineBroke
from gateway.events import Audio, Conversed, ReplyAudio, ReplyText, ToolCall
from gateway.verbs import ToolResult, Write
from tests.conftest import Gateway, ready, running
from tests.surfaces.realtime_client import RATE, cascade, dialled, spoken
from tests.surfaces.talker import Heard, Talker, pitch, speaks, talks, tone
from tests.test_dialogue import Ears

pytestmark = pytest.mark.asyncio(loop_scope="module")
MANUAL = {"input": {"turn_detection": None, "transcription": {"model": "m"}}}


async def says(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
    yield ReplyText(turn, "Some ")
    yield ReplyText(turn, "words.")
    yield ReplyAudio(turn, Audio(tone(0.5), RATE))


class TestAnEngineThatRemembers:
    async def test_answers_what_was_committed(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker(says))
        async with dialled(gateway) as client:
            await client.update(audio=MANUAL, instructions="Be brief.")
            for _ in range(2):
                await client.say(spoken(0.5))
                await client.send("input_audio_buffer.commit")
                response = await client.respond()
                assert response["status"] == "completed"
                assert response["output"][0]["content"][0]["transcript"] == "Some words."
            heard = client.of("conversation.item.input_audio_transcription.completed")
            committed = client.of("input_audio_buffer.committed")
        assert [one["item_id"] for one in heard] == [one["item_id"] for one in committed]
        assert len(talker.heard(1)) == len(talker.heard(2)) == len(spoken(0.5))
        assert talker.changes()[-1].persona == "Be brief."
        assert pitch(client.sound()) == pytest.approx(440, abs=2)

    async def test_answers_turns_by_itself(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.hearing.Endpointer", Ears)
        await talks(gateway, Talker(speaks(5.0, pause=0.05)))
        async with dialled(gateway) as client:
            await client.say(spoken(0.5) + bytes(4 * RATE))
            await client.until("response.output_audio.delta")
            await client.say(spoken(0.5))
            await client.until("input_audio_buffer.speech_started")
            response = await client.done()
            assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            await client.say(bytes(4 * RATE))
            await client.until("response.created")

    async def test_answers_what_was_written(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker(says))
        async with dialled(gateway) as client:
            await client.update(audio=MANUAL)
            await client.write("hello")
            assert (await client.respond())["status"] == "completed"
        assert Write("hello") in talker.said

    async def test_is_given_what_its_calls_gave(self, gateway: Gateway) -> None:
        async def calls(talker: Talker, turn: int, heard: Heard) -> AsyncIterator[Conversed]:
            if turn == 1:
                yield ToolCall(turn, "call-7", "weather", "{}")
            else:
                yield ReplyText(turn, "It rains.")

        talker = await talks(gateway, Talker(calls))
        async with dialled(gateway) as client:
            await client.update(audio=MANUAL, output_modalities=["text"])
            await client.write("the weather")
            call = (await client.respond())["output"][0]
            result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
            await client.send("conversation.item.create", item=result)
            assert (await client.respond())["output"][0]["content"][0]["text"] == "It rains."
        assert ToolResult("call-7", "rain") in talker.said

    async def test_that_fails_fails_the_response_and_the_next_is_answered(self, gateway: Gateway) -> None:
        talker = await talks(gateway, Talker(says, fails=EngineBroke("it broke")))
        async with dialled(gateway) as client:
            await client.update(audio=MANUAL)
            await client.write("hello")
            assert (await client.respond())["status_details"]["error"]["code"] == "engine_broke"
            talker.fails = None
            await client.write("hello")
            assert (await client.respond())["status"] == "completed"

    async def test_refuses_what_it_cannot_do(self, gateway: Gateway) -> None:
        await talks(gateway, Talker(says))
        async with dialled(gateway) as client:
            await client.update(audio=MANUAL)
            item = (await client.write("hello"))["id"]
            refused = [
                await client.send("conversation.item.delete", item_id=item),
                await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0),
                await client.send(
                    "conversation.item.create",
                    item={"type": "message", "role": "system", "content": [{"type": "input_text", "text": "a"}]},
                ),
                await client.send(
                    "session.update",
                    session={"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}},
                ),
            ]
            for name in refused:
                assert (await client.error(name))["code"] == "engine_unsupported"
            for asked in ({"conversation": "none"}, {"input": []}):
                response = await client.respond(**asked)
                assert response["status_details"]["error"]["code"] == "engine_unsupported"
            await client.say(spoken(0.5))
            name = await client.send("input_audio_buffer.clear")
            assert (await client.error(name))["code"] == "engine_unsupported"


async def test_a_client_that_reads_nothing_is_given_up_and_holds_no_engine(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine, client_idle_timeout=0.3) as gateway:
        there = await cascade(await ready(gateway))
        there.mouth.pieces = 20_000
        async with dialled(gateway, max_queue=1) as client:
            await client.update(audio=MANUAL)
            await client.write("hello")
            await client.send("response.create")
            async with asyncio.timeout(10):
                while gateway.server.server_state.tasks or gateway.state["converse"].gate.running:
                    await asyncio.sleep(0.01)
        assert len(there.mouth.jobs) == 1


async def test_a_message_that_is_too_large_ends_it_and_one_at_the_limit_does_not(gateway: Gateway) -> None:
    await cascade(gateway)
    most = gateway.settings.socket_max_bytes
    async with dialled(gateway) as client:
        await client.update(audio=MANUAL)
        empty = len('{"type": "input_audio_buffer.append", "event_id": "mine_2", "audio": ""}')
        await client.send("input_audio_buffer.append", audio="A" * ((most - empty) // 4 * 4))
        await client.update()
        await client.send("input_audio_buffer.append", audio="A" * most)
        assert (await client.closed())[0] == 1009


async def test_more_audio_than_the_engine_takes_is_refused_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.surfaces.openai_realtime_input._HELD_SECONDS", 0.05)
    await talks(gateway, Talker(says, never_opens=True))
    async with dialled(gateway) as client:
        await client.update(audio=MANUAL)
        for _ in range(8):
            await client.say(bytes(2 * RATE * 10), step=10.0)
        assert (await client.error())["code"] == "too_far_ahead"
        assert not [one for one in await client.quiet() if one["type"] == "error"]
