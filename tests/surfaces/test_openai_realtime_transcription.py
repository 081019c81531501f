"""Realtime's transcription sessions: what is said comes back as words."""

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI

import gateway.utterances
from gateway.endpointing import Stopped
from gateway.errors import EngineBroke
from tests.conftest import Gateway
from tests.surfaces.realtime_client import RATE, Client, dialled, packed, spoken
from tests.surfaces.talkers import Ears as Engine
from tests.surfaces.talkers import hears
from tests.test_dialogue import Ears

pytestmark = pytest.mark.asyncio(loop_scope="module")
INTENT = "/v1/realtime?intent=transcription"
SILENCE = bytes(2 * 2 * RATE)


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endpointer(Ears):
        def end(self) -> list[Any]:
            began, self._began = self._began, None
            return [] if began is None else [Stopped(self._at / 100)]

    monkeypatch.setattr(gateway.utterances, "Endpointer", Endpointer)


async def transcribes(client: Client, **given: Any) -> dict[str, Any]:
    await client.send("session.update", session={"type": "transcription", "audio": {"input": given}})
    return (await client.until("session.updated"))["session"]  # type: ignore[no-any-return]


class TestByVad:
    async def test_each_turn_is_an_item_with_its_words(self, gateway: Gateway) -> None:
        await hears(gateway, Engine())
        async with dialled(gateway, INTENT) as client:
            assert client.events[0]["session"]["type"] == "transcription"
            for _ in range(2):
                await client.say(spoken(1.5) + SILENCE)
            for _ in range(2):
                await client.until("conversation.item.input_audio_transcription.completed")
            started = client.of("input_audio_buffer.speech_started")
            committed = client.of("input_audio_buffer.committed")
            completed = client.of("conversation.item.input_audio_transcription.completed")
            deltas = client.of("conversation.item.input_audio_transcription.delta")
        ids = [one["item_id"] for one in committed]
        assert [one["item_id"] for one in started] == ids == [one["item_id"] for one in completed]
        assert [one["previous_item_id"] for one in committed] == [None, ids[0]]
        for one in completed:
            assert one["transcript"].startswith("one two")
            assert "".join(d["delta"] for d in deltas if d["item_id"] == one["item_id"]).startswith("one two")
            assert 1.5 <= one["usage"]["seconds"] <= 2.6
        assert started[1]["audio_start_ms"] == pytest.approx(3500, abs=400)
        assert not [kind for kind in client.types() if kind.startswith("response")]


class TestByHand:
    async def test_what_is_committed_is_an_item(self, gateway: Gateway) -> None:
        await hears(gateway, Engine())
        async with dialled(gateway, INTENT) as client:
            await transcribes(client, turn_detection=None, transcription={"model": "m", "language": "en"})
            await client.say(spoken(1.3))
            await client.send("input_audio_buffer.commit")
            first = await client.until("conversation.item.input_audio_transcription.completed")
            await client.say(spoken(0.7))
            await client.send("input_audio_buffer.commit")
            second = await client.until("conversation.item.input_audio_transcription.completed")
            assert "input_audio_buffer.speech_started" not in client.types()
        assert first["transcript"].startswith("one two")
        assert first["item_id"] != second["item_id"]
        assert first["usage"] == {"type": "duration", "seconds": 1.3}

    async def test_nothing_is_not_committed_and_what_is_cleared_is_gone(self, gateway: Gateway) -> None:
        await hears(gateway, Engine())
        async with dialled(gateway, INTENT) as client:
            await transcribes(client, turn_detection=None)
            name = await client.send("input_audio_buffer.commit")
            assert (await client.error(name))["code"] == "input_audio_buffer_commit_empty"
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            name = await client.send("input_audio_buffer.commit")
            assert (await client.error(name))["code"] == "input_audio_buffer_commit_empty"
            await client.say(spoken(0.7))
            await client.send("input_audio_buffer.commit")
            done = await client.until("conversation.item.input_audio_transcription.completed")
        assert done["usage"]["seconds"] == pytest.approx(0.7, abs=0.01)

    async def test_words_that_were_cut_for_their_length_are_one_item(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.surfaces.openai_realtime_transcription.LONGEST", 2.0)
        await hears(gateway, Engine())
        async with dialled(gateway, INTENT) as client:
            await transcribes(client, turn_detection=None)
            await client.say(spoken(5.0))
            await client.send("input_audio_buffer.commit")
            done = await client.until("conversation.item.input_audio_transcription.completed")
            assert len(client.of("input_audio_buffer.committed")) == 1
        assert done["transcript"].count(".") >= 2, "of each piece"

    async def test_a_failure_is_of_its_item_alone(self, gateway: Gateway) -> None:
        engine = await hears(gateway, Engine(fails=EngineBroke("it broke"), live=True))
        async with dialled(gateway, INTENT) as client:
            await transcribes(client, turn_detection=None)
            engine.refuses = EngineBroke("it broke")
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.commit")
            failed = await client.until("conversation.item.input_audio_transcription.failed")
            assert failed["error"]["code"] == "engine_broke"
            engine.fails = engine.refuses = None
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.commit")
            await client.until("conversation.item.input_audio_transcription.completed")


class TestTheSession:
    async def test_can_become_one_before_anything_was_said(self, gateway: Gateway) -> None:
        await hears(gateway, Engine())
        async with dialled(gateway) as client:
            session = await transcribes(client, turn_detection=None)
            assert session["object"] == "realtime.transcription_session"
            await client.say(spoken(1.0))
            name = await client.send("session.update", session={"type": "realtime"})
            assert (await client.error(name))["param"] == "session.type"

    async def test_has_no_responses(self, gateway: Gateway) -> None:
        async with dialled(gateway, INTENT) as client:
            name = await client.send("response.create")
            assert (await client.error(name))["code"] == "not_in_transcription_session"
            await client.send("output_audio_buffer.clear")
            await transcribes(client)

    async def test_changes_how_it_hears_from_the_next_sound_on(self, gateway: Gateway) -> None:
        engine = await hears(gateway, Engine())
        async with dialled(gateway, INTENT) as client:
            await transcribes(client, turn_detection=None)
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.commit")
            await transcribes(
                client,
                transcription={"language": "de"},
                format={"type": "audio/pcm", "rate": 8000},
                turn_detection=None,
            )
            await client.send("input_audio_buffer.append", audio=packed(spoken(1.0, 8000)))
            await client.send("input_audio_buffer.commit")
            for _ in range(2 - len(client.of("conversation.item.input_audio_transcription.completed"))):
                await client.until("conversation.item.input_audio_transcription.completed")
        assert engine.languages == ["", "de"]
        assert [len(one) / 2 / 16_000 for one in engine.heard] == pytest.approx([1.0, 1.0], abs=0.05)

    async def test_of_the_beta_has_its_own_events(self, gateway: Gateway) -> None:
        await hears(gateway, Engine())
        async with dialled(gateway, INTENT, additional_headers={"OpenAI-Beta": "realtime=v1"}) as client:
            assert client.events[0]["type"] == "transcription_session.created"
            session = {"input_audio_format": "pcm16", "turn_detection": None}
            await client.send("transcription_session.update", session=session)
            told = await client.until("transcription_session.updated")
            assert told["session"]["turn_detection"] is None
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.commit")
            await client.until("conversation.item.created")
            await client.until("conversation.item.input_audio_transcription.completed")


async def test_the_openai_sdk_transcribes(gateway: Gateway) -> None:
    await hears(gateway, Engine())
    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none")
    query = {"intent": "transcription"}
    async with client, asyncio.timeout(5), client.realtime.connect(extra_query=query) as line:
        audio: Any = {"input": {"transcription": {"model": "gpt-4o-transcribe"}, "turn_detection": None}}
        await line.session.update(session={"type": "transcription", "audio": audio})
        await line.input_audio_buffer.append(audio=packed(spoken(1.0)))
        await line.input_audio_buffer.commit()
        async for event in line:
            if event.type == "conversation.item.input_audio_transcription.completed":
                assert event.transcript.startswith("one")
                break


async def test_a_client_that_leaves_leaves_nothing(gateway: Gateway) -> None:
    engine = await hears(gateway, Engine(stuck=asyncio.Event()))
    async with dialled(gateway, INTENT) as client:
        await transcribes(client, turn_detection=None)
        await client.say(spoken(1.0))
        await client.send("input_audio_buffer.commit")
        await client.until("input_audio_buffer.committed")
    await gateway.idle()
    async with asyncio.timeout(2):
        while engine.open:
            await asyncio.sleep(0.005)
