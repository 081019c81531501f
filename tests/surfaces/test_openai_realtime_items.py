"""The items of a Realtime conversation: a client may make, read, cut and delete them; and functions are items too."""

import asyncio
import base64
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from gateway.errors import EngineBroke
from gateway.memory import Call
from gateway.wire import g711
from tests.adapters.spoken import World
from tests.conftest import Gateway
from tests.surfaces.realtime_client import Client, cascade, dialled, packed, spoken
from tests.surfaces.talker import pitch

pytestmark = pytest.mark.asyncio(loop_scope="module")
WEATHER = {"type": "function", "name": "weather", "description": "The weather.", "parameters": {"type": "object"}}


@pytest_asyncio.fixture(loop_scope="module")
async def there(gateway: Gateway) -> World:
    return await cascade(gateway)


async def manual(client: Client, **session: Any) -> None:
    audio = {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}
    await client.update(audio=audio, **session)


class TestItems:
    async def test_go_where_the_client_wants_them(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            second = await client.write("two")
            await client.write("three")
            await client.write("between", previous_item_id=second["id"])
            await client.write("one", previous_item_id="root")
            added = [
                (one["item"]["content"][0]["text"], one["previous_item_id"])
                for one in client.of("conversation.item.added")
            ]
            await client.respond()
        assert added[0] == ("two", None)
        assert added[2] == ("between", second["id"])
        assert added[3] == ("one", None)
        assert there.mind.asked[0].messages[0].text == "one\ntwo\nbetween\nthree"

    async def test_keep_the_id_that_the_client_gives(self, gateway: Gateway, there: World) -> None:
        item = {"id": "msg_001", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        async with dialled(gateway) as client:
            await client.send("conversation.item.create", item=item)
            assert (await client.until("conversation.item.done"))["item"]["id"] == "msg_001"
            name = await client.send("conversation.item.create", item=item)
            assert (await client.error(name))["code"] == "item_exists"
            await client.send("conversation.item.retrieve", item_id="msg_001")
            found = (await client.until("conversation.item.retrieved"))["item"]
            assert found["content"] == [{"type": "input_text", "text": "hi"}]
            await client.send("conversation.item.delete", item_id="msg_001")
            assert (await client.until("conversation.item.deleted"))["item_id"] == "msg_001"
            for kind in ("retrieve", "delete"):
                name = await client.send(f"conversation.item.{kind}", item_id="msg_001")
                assert (await client.error(name))["code"] == f"item_{kind}_invalid_item_id"

    @pytest.mark.parametrize(
        ("item", "param"),
        [
            ({}, "item.type"),
            ({"type": "dance"}, "item.type"),
            ({"type": "message", "role": "user"}, "item.content"),
            ({"type": "message", "role": "king", "content": [{"type": "input_text", "text": ""}]}, "item.role"),
            ({"type": "message", "role": "user", "content": [{"type": "input_text"}]}, "item.content[0].text"),
            ({"type": "message", "role": "user", "content": [{"type": "input_image"}]}, "item.content[0].type"),
            ({"type": "message", "role": "user", "content": [{"type": "input_audio"}]}, "item.content[0].audio"),
            ({"type": "message", "role": "user", "content": ["hi"]}, "item.content[0]"),
            ({"type": "function_call_output", "output": "x"}, "item.call_id"),
            ({"type": "function_call", "name": "f"}, "item.arguments"),
            (
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a" * 20_001}]},
                "item.content[0].text",
            ),
        ],
    )
    async def test_that_are_wrong_are_refused_by_the_field(
        self, gateway: Gateway, there: World, item: Any, param: str
    ) -> None:
        async with dialled(gateway) as client:
            name = await client.send("conversation.item.create", item=item)
            assert (await client.error(name))["param"] == param

    async def test_at_the_limit_are_taken(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            assert (await client.write("a" * 20_000))["status"] == "completed"

    async def test_of_sound_are_recognised(self, gateway: Gateway, there: World) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": packed(spoken(1.0))}]}
        async with dialled(gateway) as client:
            await manual(client)
            await client.send("conversation.item.create", item=item)
            await client.send("response.create")
            done = await client.until("response.done")
            told = client.of("conversation.item.input_audio_transcription.completed")[0]
        assert told["transcript"] == "hello world", "what the scripted engine hears"
        assert told["usage"] == {"type": "duration", "seconds": 1.0}
        assert done["response"]["output"][0]["content"][0]["transcript"] == "You said hello world."

    async def test_that_cannot_be_recognised_are_told_and_waited_for_no_longer(
        self, gateway: Gateway, there: World
    ) -> None:
        there.ear.errors = [EngineBroke("it broke")] * 2
        there.ear.live = False
        async with dialled(gateway) as client:
            await manual(client)
            await client.say(spoken(0.5))
            await client.send("input_audio_buffer.commit")
            failed = await client.until("conversation.item.input_audio_transcription.failed")
            assert failed["error"] == {"type": "server_error", "code": "engine_broke", "message": "it broke"}
            await client.write("hello")
            assert (await client.respond())["status"] == "completed"


class TestTruncation:
    async def said(self, client: Client, there: World) -> Any:
        there.mind.replies = [["One two three four five. ", "Six seven eight nine ten."]]
        await manual(client)
        await client.write("count")
        return (await client.respond())["output"][0]

    @pytest.mark.parametrize(
        ("milliseconds", "left"),
        [
            (0, ""),
            (150, "One two"),
            (300, "One two three four five."),
            (450, "One two three four five. Six seven"),
            (600, "One two three four five. Six seven eight nine ten."),
        ],
    )
    async def test_keeps_the_words_that_were_heard(
        self, gateway: Gateway, there: World, milliseconds: int, left: str
    ) -> None:
        async with dialled(gateway) as client:
            item = await self.said(client, there)
            await client.send(
                "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=milliseconds
            )
            told = await client.until("conversation.item.truncated")
            assert told["audio_end_ms"] == milliseconds
            await client.send("conversation.item.retrieve", item_id=item["id"])
            found = (await client.until("conversation.item.retrieved"))["item"]
            assert found["content"] == [{"type": "output_audio", "transcript": left}]
            await client.write("go on")
            await client.respond()
        said = [one.text for one in there.mind.asked[1].messages]
        assert said == (["count", left, "go on"] if left else ["count\ngo on"])

    async def test_is_not_longer_than_the_sound(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            item = await self.said(client, there)
            name = await client.send(
                "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=602
            )
            assert (await client.error(name))["param"] == "audio_end_ms"

    async def test_is_for_what_was_spoken(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            item = await client.write("hello")
            for name in (item["id"], "nobody"):
                sent = await client.send("conversation.item.truncate", item_id=name, content_index=0, audio_end_ms=0)
                await client.error(sent)
            sent = await client.send("conversation.item.truncate", item_id=item["id"], content_index=0)
            assert (await client.error(sent))["param"] == "audio_end_ms"

    async def test_of_a_reply_that_runs_ends_it(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [["One two three four. ", asyncio.Event().wait]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("count")
            await client.send("response.create")
            item = (await client.until("response.output_item.added"))["item"]["id"]
            for _ in range(3):
                await client.until("response.output_audio.delta")
            await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=150)
            assert (await client.done())["status"] == "cancelled"
            await client.until("conversation.item.truncated")


class TestFunctions:
    async def test_are_called_and_their_results_answered(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [["Let me look. ", Call("call_1", "weather", '{"city": "Paris"}')], ["It rains."]]
        async with dialled(gateway) as client:
            await manual(client, tools=[WEATHER])
            await client.write("How is the weather in Paris?")
            since = len(client.events)
            response = await client.respond()
            kinds = client.types(since)
            result = {"type": "function_call_output", "call_id": "call_1", "output": '{"sky": "rain"}'}
            await client.send("conversation.item.create", item=result)
            added = (await client.until("conversation.item.added"))["item"]
            second = await client.respond()
            arguments = client.of("response.function_call_arguments.done")[0]
        assert kinds[-7:] == [
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        message, call = response["output"]
        assert message["content"][0]["transcript"] == "Let me look. "
        assert (call["type"], call["name"], call["call_id"]) == ("function_call", "weather", "call_1")
        assert call["arguments"] == arguments["arguments"] == '{"city": "Paris"}'
        assert (arguments["item_id"], arguments["output_index"]) == (call["id"], 1)
        assert (added["type"], added["output"]) == ("function_call_output", '{"sky": "rain"}')
        assert second["output"][0]["content"][0]["transcript"] == "It rains."
        asked = there.mind.asked
        function = {name: value for name, value in WEATHER.items() if name != "type"}
        assert asked[0].tools == ({"type": "function", "function": function},)
        assert [(str(one.role), one.text) for one in asked[1].messages] == [
            ("user", "How is the weather in Paris?"),
            ("assistant", "Let me look. "),
            ("tool", '{"sky": "rain"}'),
        ]
        assert asked[1].messages[1].calls == (Call("call_1", "weather", '{"city": "Paris"}'),)

    @pytest.mark.parametrize(
        ("choice", "tools", "wanted"),
        [
            ("auto", 1, ""),
            ("none", 0, ""),
            ("required", 1, "required"),
            ({"type": "function", "name": "weather"}, 1, "weather"),
        ],
    )
    async def test_are_chosen_as_the_client_says(
        self, gateway: Gateway, there: World, choice: Any, tools: int, wanted: str
    ) -> None:
        async with dialled(gateway) as client:
            await manual(client, tools=[WEATHER], tool_choice=choice)
            await client.write("hello")
            await client.respond()
        assert (len(there.mind.asked[0].tools), there.mind.asked[0].tool_choice) == (tools, wanted)

    async def test_have_an_id_each_though_the_model_begins_anew(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [[Call("call_0", "weather", "{}")], [Call("call_0", "weather", "{}")], ["Both."]]
        async with dialled(gateway) as client:
            await manual(client, tools=[WEATHER])
            await client.write("the weather, twice")
            for output in ("rain", "snow"):
                call = (await client.respond())["output"][0]["call_id"]
                result = {"type": "function_call_output", "call_id": call, "output": output}
                await client.send("conversation.item.create", item=result)
            await client.respond()
        said = there.mind.asked[2].messages
        assert [one.text for one in said] == ["the weather, twice", "", "rain", "", "snow"]
        assert said[1].calls[0].id == said[2].call != said[3].calls[0].id == said[4].call

    async def test_are_known_to_one_response_alone(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            await client.respond(tools=[WEATHER])
            await client.respond()
        assert [len(one.tools) for one in there.mind.asked] == [1, 0]


class TestBesideTheConversation:
    async def test_a_response_reads_and_leaves_nothing_there(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            kept = await client.write("remember this")
            since = len(client.events)
            response = await client.respond(
                conversation="none",
                metadata={"topic": "classification"},
                output_modalities=["text"],
                input=[
                    {"type": "item_reference", "id": kept["id"]},
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "classify"}]},
                ],
            )
            assert not [kind for kind in client.types(since) if kind.startswith("conversation")]
            await client.respond()
        assert (response["conversation_id"], response["metadata"]) == (None, {"topic": "classification"})
        assert [one.text for one in there.mind.asked[0].messages] == ["remember this\nclassify"]
        assert [one.text for one in there.mind.asked[1].messages] == ["remember this"]

    async def test_a_response_waits_for_the_one_that_runs(self, gateway: Gateway, there: World) -> None:
        going = asyncio.Event()
        there.mind.replies = [["Well. ", going.wait, "Yes."], ["aside"]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.write("hello")
            await client.send("response.create")
            await client.send("response.create", response={"conversation": "none", "input": []})
            first = (await client.until("response.created"))["response"]["id"]
            second = (await client.until("response.created"))["response"]["id"]
            going.set()
            assert (await client.done())["id"] == first
            done = await client.done()
            assert (done["id"], done["status"]) == (second, "completed")

    async def test_a_response_that_waits_can_be_cancelled_by_its_id(self, gateway: Gateway, there: World) -> None:
        there.mind.replies = [[asyncio.Event().wait]]
        async with dialled(gateway) as client:
            await manual(client)
            await client.send("response.create")
            await client.until("response.created")
            await client.send("response.create", response={"conversation": "none"})
            waiting = (await client.until("response.created"))["response"]["id"]
            await client.send("response.cancel", response_id=waiting)
            assert (await client.done())["id"] == waiting
            name = await client.send("response.cancel", response_id=waiting)
            assert (await client.error(name))["code"] == "response_cancel_not_active"


class TestFormats:
    @pytest.mark.parametrize(
        ("kind", "rate", "pack", "unpack"),
        [
            ({"type": "audio/pcmu"}, 8000, g711.to_mu_law, g711.from_mu_law),
            ({"type": "audio/pcma"}, 8000, g711.to_a_law, g711.from_a_law),
            ({"type": "audio/pcm", "rate": 16000}, 16_000, bytes, bytes),
            ({"type": "audio/pcm", "rate": 48000}, 48_000, bytes, bytes),
        ],
    )
    async def test_are_what_they_are_called(
        self, gateway: Gateway, there: World, kind: Any, rate: int, pack: Any, unpack: Any
    ) -> None:
        tone = spoken(0.1, 24_000, 1000)
        async with dialled(gateway) as client:
            audio = {"input": {"turn_detection": None, "format": kind}, "output": {"format": kind}}
            session = await client.update(audio=audio)
            assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == kind
            await client.send("input_audio_buffer.append", audio=packed(pack(spoken(1.0, rate, 500))))
            await client.send("input_audio_buffer.commit")
            there.mouth.piece = tone
            await client.respond()
        heard = there.ear.heard[-1]
        assert len(heard) / 2 / 16_000 == pytest.approx(1.0, abs=0.01)
        assert pitch(heard, 16_000) == pytest.approx(500, abs=2)
        sound = unpack(client.sound())
        assert len(sound) / 2 / rate == pytest.approx(0.3, abs=0.001)
        assert pitch(sound, rate) == pytest.approx(1000, abs=4)
        level = np.abs(np.frombuffer(sound, "<i2").astype(float)).max()
        assert level == pytest.approx(8000, rel=0.1)


class TestTheBetaDialect:
    @pytest.mark.parametrize(
        "how",
        [
            {"additional_headers": {"OpenAI-Beta": "realtime=v1"}},
            {"subprotocols": ["realtime", "openai-beta.realtime-v1"]},
        ],
    )
    async def test_has_its_own_names(self, gateway: Gateway, there: World, how: Any) -> None:
        there.mind.replies = [["Hello. ", Call("call_1", "weather", "{}")]]
        async with dialled(gateway, **how) as client:
            session = client.events[0]["session"]
            assert session["input_audio_format"] == "pcm16"
            assert session["modalities"] == ["text", "audio"]
            assert session["turn_detection"]["type"] == "server_vad"
            wishes = {
                "modalities": ["text", "audio"],
                "turn_detection": None,
                "input_audio_format": "g711_ulaw",
                "output_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "whisper-1"},
                "temperature": 0.6,
                "max_response_output_tokens": 100,
            }
            await client.send("session.update", session=wishes)
            session = (await client.until("session.updated"))["session"]
            assert wishes.items() <= (session | {"input_audio_transcription": {"model": "whisper-1"}}).items()
            await client.send("input_audio_buffer.append", audio=packed(g711.to_mu_law(spoken(1.0, 8000))))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create", response={"modalities": ["text", "audio"], "max_output_tokens": "inf"})
            response = await client.done()
        kinds = client.types()
        assert {"conversation.item.created", "response.audio.delta", "response.audio_transcript.delta"} <= set(kinds)
        assert not [
            kind
            for kind in kinds
            if "output_audio" in kind
            or kind.endswith(("item.added", "conversation.item.done"))
            and not kind.startswith("response")
        ]
        assert response["output"][0]["content"] == [{"type": "audio", "transcript": "Hello. "}]
        assert response["modalities"] == ["text", "audio"]
        sound = b"".join(base64.b64decode(one["delta"]) for one in client.of("response.audio.delta"))
        assert len(sound) == pytest.approx(0.3 * 8000, abs=8)

    async def test_is_what_the_sdks_beta_client_speaks(self, gateway: Gateway, there: World) -> None:
        client = AsyncOpenAI(websocket_base_url=f"ws://127.0.0.1:{gateway.port}/v1", api_key="none")
        async with client, asyncio.timeout(5), client.beta.realtime.connect(model="gpt-4o-realtime-preview") as line:
            await line.session.update(session={"turn_detection": None, "modalities": ["text", "audio"]})  # type: ignore[typeddict-item]
            content: Any = [{"type": "input_text", "text": "hello"}]
            await line.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await line.response.create()
            words, kinds = "", []
            async for event in line:
                kinds.append(event.type)
                if event.type == "response.audio_transcript.delta":
                    words += event.delta
                elif event.type == "response.done":
                    break
        assert words == "You said hello."
        assert {"session.created", "conversation.item.created", "response.audio.delta"} <= set(kinds)

    async def test_names_a_wrong_field_as_its_client_does(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway, additional_headers={"OpenAI-Beta": "realtime=v1"}) as client:
            for wrong, param in (
                ({"input_audio_format": "mp3"}, "session.input_audio_format"),
                ({"turn_detection": {"type": "telepathy"}}, "session.turn_detection.type"),
                ({"modalities": ["smell"]}, "session.modalities"),
                ({"voice": "nobody"}, "session.voice"),
            ):
                name = await client.send("session.update", session=wrong)
                assert (await client.error(name))["param"] == param

    async def test_has_names_that_the_ga_dialect_refuses(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            name = await client.send("session.update", session={"type": "realtime", "voice": "alloy"})
            error = await client.error(name)
            assert (error["code"], error["param"]) == ("unknown_parameter", "session.voice")


class TestTheSession:
    @pytest.mark.parametrize(
        ("session", "param"),
        [
            ({"output_modalities": []}, "session.output_modalities"),
            ({"output_modalities": ["video"]}, "session.output_modalities"),
            ({"instructions": 5}, "session.instructions"),
            ({"tools": [{"type": "mcp"}]}, "session.tools[0].type"),
            ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
            ({"tools": [WEATHER] * 129}, "session.tools"),
            ({"tool_choice": "maybe"}, "session.tool_choice"),
            ({"max_output_tokens": 0}, "session.max_output_tokens"),
            ({"audio": {"input": {"format": {"type": "audio/mp3"}}}}, "session.audio.input.format.type"),
            ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 7999}}}}, "session.audio.input.format.rate"),
            (
                {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 1.1}}}},
                "session.audio.input.turn_detection.threshold",
            ),
            (
                {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 10_001}}}},
                "session.audio.input.turn_detection.silence_duration_ms",
            ),
            ({"audio": {"output": {"speed": 1.6}}}, "session.audio.output.speed"),
            ({"audio": {"output": {"voice": "nobody"}}}, "session.audio.output.voice"),
            ({"audio": 5}, "session.audio"),
        ],
    )
    async def test_refuses_what_is_wrong_by_the_field_and_stays_as_it_was(
        self, gateway: Gateway, there: World, session: Any, param: str
    ) -> None:
        async with dialled(gateway) as client:
            before = await client.update()
            name = await client.send("session.update", session={"type": "realtime", **session})
            assert (await client.error(name))["param"] == param
            assert await client.update() == before

    async def test_changes_only_what_is_named(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            first = await client.update(instructions="Be brief.", audio={"output": {"speed": 1.5}})
            second = await client.update(audio={"input": {"transcription": {"model": "m", "language": "en"}}})
        assert second["instructions"] == "Be brief."
        assert second["audio"]["output"] == first["audio"]["output"]
        assert second["audio"]["input"]["transcription"] == {"model": "m", "language": "en", "prompt": None}

    async def test_speaks_as_fast_and_by_whom_the_client_wants(self, gateway: Gateway, there: World) -> None:
        async with dialled(gateway) as client:
            await manual(client)
            await client.update(audio={"output": {"speed": 1.5, "voice": "alloy"}})
            await client.write("hello")
            await client.respond()
        assert there.mouth.jobs[0].speed == 1.5
        assert there.mouth.jobs[0].voice.name in gateway.settings.presets  # type: ignore[union-attr]
