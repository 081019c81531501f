"""WS /v1/realtime as its clients meet it, over real sockets, on a scripted cascade."""

import asyncio
import base64
import json
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from gateway.errors import EngineBroke
from tests.adapters.spoken import World
from tests.conftest import Gateway
from tests.surfaces.realtime_client import MANUAL, Client, cascade, dialled, packed, spoken

pytestmark = pytest.mark.asyncio(loop_scope="module")
ORDER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


@pytest_asyncio.fixture(loop_scope="module")
async def there(gateway: Gateway) -> World:
    return await cascade(gateway)


async def manual(client: Client, **session: Any) -> None:
    audio = {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}
    await client.update(audio=audio, **session)


class TestTheConnection:
    async def test_begins_with_the_session(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway, "/v1/realtime?model=gpt-realtime-mini") as client:
            session = client.events[0]["session"]
        assert (session["type"], session["object"], session["model"]) == (
            "realtime",
            "realtime.session",
            "gpt-realtime-mini",
        )
        assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
        assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        assert session["output_modalities"] == ["audio"]

    async def test_takes_the_subprotocols_of_a_browser(self, gateway: Gateway, there: World) -> None:
        offered = ["realtime", "openai-insecure-api-key.sk-1"]
        async with dialled(gateway, subprotocols=offered) as client:  # type: ignore[arg-type]
            assert client.socket.subprotocol == "realtime"

    @pytest.mark.parametrize(
        "said", ["{", "[]", '"x"', "nul", '{"type": 5}', "{}", '{"type": "session.mend"}', b"\xff"]
    )
    async def test_answers_what_it_cannot_use_and_goes_on(
        self, gateway: Gateway, there: World, said: str | bytes
    ) -> None:
        async with dialled(gateway) as client:
            await client.socket.send(said)
            assert (await client.error())["type"] == "invalid_request_error"
            await client.update(**MANUAL)

    async def test_ends_after_a_hundred_of_those_in_a_row(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            for _ in range(99):
                await client.socket.send("{")
            await client.update(**MANUAL)
            for _ in range(100):
                await client.socket.send("{")
            assert (await client.closed())[0] == 1008


class TestAResponse:
    async def test_comes_in_the_order_that_clients_rely_on(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            since = len(client.events)
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.commit")
            await client.until("conversation.item.input_audio_transcription.completed")
            committed = client.types(since)
            since = len(client.events)
            response = await client.respond()
        assert committed == [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.input_audio_transcription.delta",
            "conversation.item.input_audio_transcription.completed",
        ]
        assert client.types(since) == ORDER
        assert response["status"] == "completed"
        assert "status_details" in response
        assert [one["role"] for one in response["output"]] == ["assistant"]
        assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": "You said heard 1."}]

    async def test_and_its_items_name_the_item_before(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            first = await client.write("one")
            response = await client.respond()
            second = await client.write("two")
            added = client.of("conversation.item.added")
        assert [one["previous_item_id"] for one in added] == [None, first["id"], response["output"][0]["id"]]
        assert added[2]["item"]["id"] == second["id"]

    async def test_counts_its_tokens(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [["Well, hello there."]]
        async with dialled(gateway) as client:
            await manual(client, instructions="Be kind.")
            await client.say(spoken(1.0))
            await client.send("input_audio_buffer.commit")
            usage = (await client.respond())["usage"]
        assert usage["input_token_details"]["audio_tokens"] == 10, "100 ms each"
        assert usage["input_token_details"]["text_tokens"] == 3, "Be kind ."
        assert usage["output_token_details"] == {"text_tokens": 5, "audio_tokens": 6}, "words and marks; 50 ms each"
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] == 13 + 11

    async def test_in_writing_has_no_sound(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            since = len(client.events)
            response = await client.respond(output_modalities=["text"], metadata={"client_event_id": "abc"})
        assert client.types(since) == [
            *ORDER[:4],
            "response.output_text.delta",
            "response.output_text.done",
            *ORDER[8:],
        ]
        assert response["metadata"] == {"client_event_id": "abc"}
        assert response["output"][0]["content"] == [{"type": "output_text", "text": "You said hello."}]
        assert not there.mouth.jobs

    async def test_answers_the_whole_conversation_with_its_own_wishes(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client, instructions="Be brief.")
            await client.write("Rules.", role="system")
            await client.write("one")
            await client.respond()
            await client.write("two")
            await client.respond(instructions="Be long.")
        first, second = there.mind.asked
        assert (first.persona, second.persona) == ("Be brief.", "Be long.")
        assert [str(one.role) for one in second.messages] == ["system", "user", "assistant", "user"]
        assert [one.text for one in second.messages] == ["Rules.", "one", "You said one.", "two"]

    async def test_that_is_still_running_is_the_only_one(self, gateway: Gateway, there: World) -> None:
        going = asyncio.Event()
        there.mind.replies = [["Well. ", going.wait, "Yes."]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            await client.send("response.create")
            name = await client.send("response.create")
            assert (await client.error(name))["code"] == "conversation_already_has_active_response"
            going.set()
            assert (await client.done())["status"] == "completed"

    async def test_that_is_cancelled_says_so_at_once_and_counts(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [["It is a fine day today. ", asyncio.Event().wait]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            await client.send("response.create")
            await client.until("response.output_audio.delta")
            await client.send("response.cancel")
            response = await client.done()
            assert response["status"] == "cancelled"
            assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
            assert response["usage"]["output_tokens"] > 0
            assert response["output"][0]["status"] == "incomplete"
            name = await client.send("response.cancel")
            assert (await client.error(name))["code"] == "response_cancel_not_active"
            assert (await client.respond())["status"] == "completed"
        assert [one.text for one in there.mind.asked[1].messages] == ["hello", "It is a fine day today."]

    async def test_that_fails_says_why_and_counts(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [[EngineBroke("it broke")]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            response = await client.respond()
        assert response["status"] == "failed"
        error = {"type": "server_error", "code": "engine_broke", "message": "it broke"}
        assert response["status_details"] == {"type": "failed", "error": error}
        assert response["usage"]["input_tokens"] == 1

    async def test_waits_for_the_words_of_what_was_said(self, gateway: Gateway, there: World) -> None:
        there.ear.hold = asyncio.Event()
        async with dialled(gateway) as client:
            await manual(client)
            await client.say(spoken(0.5))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            await client.until("response.created")
            assert not there.mind.asked
            there.ear.hold.set()
            assert (await client.done())["output"][0]["content"][0]["transcript"] == "You said heard 1."

    async def test_is_as_long_as_it_may_be(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [["one two three ", "four five six ", asyncio.Event().wait]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            response = await client.respond(max_output_tokens=4, output_modalities=["text"])
        assert response["status"] == "incomplete"
        assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


class TestTheInputBuffer:
    async def test_that_is_empty_is_not_committed(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            name = await client.send("input_audio_buffer.commit")
            assert (await client.error(name))["code"] == "input_audio_buffer_commit_empty"

    async def test_forgets_what_is_cleared(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            await client.say(spoken(1.0, hertz=800))
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            await client.say(spoken(0.5))
            await client.send("input_audio_buffer.commit")
            await client.until("conversation.item.input_audio_transcription.completed")
        assert len(there.ear.heard[-1]) / 2 / 16_000 == pytest.approx(0.5, abs=0.01)

    async def test_takes_bytes_however_they_are_cut(self, gateway: Gateway, there: World) -> None:
        pcm = spoken(0.5)
        async with dialled(gateway) as client:
            await manual(client)
            for at in range(0, len(pcm), 1001):
                await client.send("input_audio_buffer.append", audio=packed(pcm[at : at + 1001]))
            await client.send("input_audio_buffer.commit")
            await client.until("conversation.item.input_audio_transcription.completed")
        heard = there.ear.heard[-1]
        assert len(heard) / 2 / 16_000 == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize("audio", ["***", "ab", 5, None])
    async def test_takes_nothing_but_base64(self, gateway: Gateway, there: World, audio: Any) -> None:
        async with dialled(gateway) as client:
            name = await client.send("input_audio_buffer.append", audio=audio)
            assert (await client.error(name))["param"] == "audio"


class TestTheOpenAiSdk:
    async def test_talks(self, gateway: Gateway, there: World) -> None:
        client = AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none")
        async with client, client.realtime.connect(model="gpt-realtime") as line:
            assert (await line.recv()).type == "session.created"
            detection: Any = {"turn_detection": None, "transcription": {"model": "whisper-1"}}
            await line.session.update(session={"type": "realtime", "audio": {"input": detection}})
            await line.input_audio_buffer.append(audio=packed(spoken(1.0)))
            await line.input_audio_buffer.commit()
            await line.response.create()
            sound, words, heard = b"", "", ""
            async with asyncio.timeout(5):
                async for event in line:
                    if event.type == "response.output_audio.delta":
                        sound += base64.b64decode(event.delta)
                    elif event.type == "response.output_audio_transcript.delta":
                        words += event.delta
                    elif event.type == "conversation.item.input_audio_transcription.completed":
                        heard = event.transcript
                    elif event.type == "response.done":
                        break
        assert (heard, words) == ("heard 1", "You said heard 1.")
        assert len(sound) / 2 / 24_000 == pytest.approx(0.3)
        assert event.response.usage is not None and event.response.usage.total_tokens


async def test_a_client_that_leaves_leaves_nothing(gateway: Gateway, there: World) -> None:
    there.mind.replies = [["It is a fine day today. ", asyncio.Event().wait]]
    async with dialled(gateway) as client:
        await manual(client)
        await client.write("hello")
        await client.send("response.create")
        await client.until("response.output_audio.delta")
    await gateway.idle()
    async with asyncio.timeout(2):
        while not there.idle() or gateway.state["converse"].gate.running:
            await asyncio.sleep(0.005)
    assert b"voxgate_conversations 0.0" in gateway.state["metrics"].exposition()


async def test_json_with_half_a_character_is_no_harm(gateway: Gateway, there: World) -> None:
    async with dialled(gateway) as client:
        await manual(client)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a\ud800b"}]}
        await client.socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        assert (await client.until("conversation.item.done"))["item"]["content"][0]["text"] == "a?b"
        assert (await client.respond())["status"] == "completed"
