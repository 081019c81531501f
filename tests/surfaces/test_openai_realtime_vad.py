"""Realtime's turns that begin and end by themselves."""

import asyncio

import pytest
import pytest_asyncio

import gateway.hearing
from tests.adapters.spoken import World
from tests.conftest import Gateway
from tests.surfaces.realtime_client import RATE, Client, cascade, dialled, spoken
from tests.test_dialogue import Ears

pytestmark = pytest.mark.asyncio(loop_scope="module")
SILENCE = bytes(2 * 2 * RATE)


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.hearing, "Endpointer", Ears)


@pytest_asyncio.fixture(loop_scope="module")
async def there(gateway: Gateway) -> World:
    return await cascade(gateway)


async def detects(client: Client, kind: str = "server_vad", **how: object) -> None:
    detection = {"type": kind, **how}
    await client.update(audio={"input": {"turn_detection": detection, "transcription": {"model": "whisper-1"}}})


async def test_a_turn_is_noticed_committed_and_answered(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await detects(client)
        since = len(client.events)
        await client.say(SILENCE[: 2 * RATE] + spoken(1.0) + SILENCE)
        response = await client.done()
        kinds = client.types(since)
        started, stopped = (
            client.of("input_audio_buffer.speech_started")[0],
            client.of("input_audio_buffer.speech_stopped")[0],
        )
        item = client.of("input_audio_buffer.committed")[0]["item_id"]
    spoken_of = [kind for kind in kinds if not kind.endswith("transcription.delta")]
    assert spoken_of[:6] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert spoken_of[6] == "response.created"
    assert started["item_id"] == stopped["item_id"] == item
    assert 500 <= started["audio_start_ms"] <= 1000, "the padding is before the speech"
    assert 1900 <= stopped["audio_end_ms"] <= 2700
    assert response["output"][0]["content"][0]["transcript"] == "You said heard 1."


async def test_speech_ends_the_reply_that_runs(gateway: Gateway, there: World) -> None:
    there.mind.replies = [["It is a fine day today. ", asyncio.Event().wait]]
    async with dialled(gateway) as client:
        await detects(client)
        await client.write("hello")
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.say(spoken(0.5))
        await client.until("input_audio_buffer.speech_started")
        response = await client.done()
        assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        await client.send(
            "conversation.item.truncate", item_id=response["output"][0]["id"], content_index=0, audio_end_ms=150
        )
        await client.until("conversation.item.truncated")
        await client.say(SILENCE)
        assert (await client.done())["status"] == "completed"
    assert [one.text for one in there.mind.asked[1].messages] == ["hello", "It is a", "heard 1"]


async def test_speech_leaves_the_reply_alone_where_it_may_not_interrupt(gateway: Gateway, there: World) -> None:
    going = asyncio.Event()
    there.mind.replies = [["It is a fine day today. ", going.wait, "Is it not?"]]
    async with dialled(gateway) as client:
        await detects(client, interrupt_response=False)
        await client.write("hello")
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.say(spoken(0.5) + SILENCE)
        await client.until("conversation.item.input_audio_transcription.completed")
        going.set()
        assert (await client.done())["status"] == "completed"
        answer = await client.done()
        assert answer["output"][0]["content"][0]["transcript"] == "You said heard 1.", "and then the turn is answered"


async def test_a_turn_is_not_answered_where_the_client_does_that(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await detects(client, create_response=False)
        await client.say(spoken(0.5) + SILENCE)
        await client.until("conversation.item.input_audio_transcription.completed")
        assert not [one for one in await client.quiet() if one["type"].startswith("response")]
        assert (await client.respond())["status"] == "completed"


async def test_a_noise_without_words_is_not_answered(gateway: Gateway, there: World) -> None:
    there.ear.texts = [" "]
    async with dialled(gateway) as client:
        await detects(client)
        await client.say(spoken(0.5) + SILENCE)
        done = await client.until("conversation.item.input_audio_transcription.completed")
        assert done["transcript"] == ""
        assert not [one for one in await client.quiet() if one["type"].startswith("response")]
    assert not there.mind.asked


async def test_words_that_go_on_after_a_pause_are_answered_together(gateway: Gateway, there: World) -> None:
    there.ear.hold = asyncio.Event()
    async with dialled(gateway) as client:
        await detects(client)
        await client.say(spoken(0.5) + SILENCE)
        await client.until("input_audio_buffer.committed")
        await client.say(spoken(0.5))
        await client.until("input_audio_buffer.speech_started")
        there.ear.hold.set()
        await client.until("conversation.item.input_audio_transcription.completed")
        await client.say(SILENCE)
        assert (await client.done())["status"] == "completed"
    assert [one.text for one in there.mind.asked[0].messages] == ["heard 1\nheard 2"]
    assert len(there.mind.asked) == 1


async def test_semantic_vad_is_silence_as_long_as_its_eagerness_says(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await detects(client, "semantic_vad", eagerness="low")
        assert client.events[-1]["session"]["audio"]["input"]["turn_detection"] == {
            "type": "semantic_vad",
            "eagerness": "low",
            "create_response": True,
            "interrupt_response": True,
        }
        await client.say(spoken(0.5) + SILENCE)
        assert (await client.done())["status"] == "completed"


async def test_silence_that_lasts_is_a_turn_where_the_client_wants_that(gateway: Gateway, there: World) -> None:
    there.mind.replies = [["Hello."], ["Are you there?"]]
    async with dialled(gateway) as client:
        await detects(client, idle_timeout_ms=1000)
        await client.respond()
        triggered = await client.until("input_audio_buffer.timeout_triggered")
        committed = await client.until("input_audio_buffer.committed")
        assert triggered["item_id"] == committed["item_id"]
        assert (await client.done())["output"][0]["content"][0]["transcript"] == "Are you there?"


async def test_turning_it_off_records_from_then_on(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await detects(client)
        await client.say(SILENCE)
        await client.update(audio={"input": {"turn_detection": None}})
        await client.say(spoken(0.5))
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.input_audio_transcription.completed")
        assert (await client.respond())["status"] == "completed"


async def test_a_client_may_be_quicker_and_commit_itself(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await detects(client)
        await client.say(spoken(0.5))
        await client.until("input_audio_buffer.speech_started")
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.input_audio_transcription.completed")
        name = await client.send("input_audio_buffer.commit")
        assert (await client.error(name))["code"] == "input_audio_buffer_commit_empty"


async def test_a_clear_forgets_what_is_being_said(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await detects(client)
        await client.say(spoken(0.5))
        await client.until("input_audio_buffer.speech_started")
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.say(SILENCE)
        assert not [one for one in await client.quiet() if one["type"] == "input_audio_buffer.committed"]
