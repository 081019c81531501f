"""`WS /ws` as the voice chat backend's shipped clients use it: over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection

from gateway.errors import EngineBroke, EngineBusy
from tests.conftest import Gateway, ready, running
from tests.engines.asr.running import Server, serving
from tests.engines.asr.sound import say
from tests.surfaces.talkers import STEP, Ears, dial, hears, rest

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRAME = bytes(range(256)) * 75
"""19,200 bytes, as its clients send them."""


async def transcript(gateway: Gateway, audio: bytes, size: int, end: str | bytes = b"") -> str:
    """What a plain client's page shows."""
    async with dial(gateway, "/ws") as socket:
        for at in range(0, len(audio), size):
            await socket.send(audio[at : at + size])
        await socket.send(end)
        page = "".join(await rest(socket))
        assert socket.close_code == 1000
        return page


class TestPlainText:
    async def test_only_what_is_new_comes_as_soon_as_it_is_heard(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        async with dial(gateway, "/ws") as socket:
            assert ears.open == 0, "who says nothing needs no engine"
            await socket.send(FRAME)
            assert await socket.recv() == "one"
            await socket.send(FRAME)
            assert await socket.recv() == " two"
            await socket.send(b"")
            assert await rest(socket) == ["."]
        assert (socket.close_code, ears.open, ears.heard) == (1000, 0, [FRAME * 2])

    @pytest.mark.parametrize(
        "end", [b"", '{"type": "end"}', '{"is_speaking": false}', '{"is_speaking":false,"mode":1}']
    )
    async def test_every_way_to_end_gives_the_rest_and_a_normal_close(self, gateway: Gateway, end: str | bytes) -> None:
        await hears(gateway, Ears())
        assert await transcript(gateway, FRAME * 2 + FRAME[:3200], len(FRAME), end) == "one two three."

    @pytest.mark.parametrize("size", [1, 2, 7, 3201, 19_200, 300_001])
    async def test_frames_may_have_any_size(self, gateway: Gateway, size: int) -> None:
        ears = await hears(gateway, Ears())
        audio = FRAME * (20 if size > 1000 else 1)
        await transcript(gateway, audio, size)
        assert b"".join(ears.heard) == audio

    async def test_half_a_sample_at_the_end_is_nothing(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        assert await transcript(gateway, FRAME + b"\1", 19_201) == "one."
        assert ears.heard == [FRAME]

    async def test_utterances_are_parted(self, gateway: Gateway) -> None:
        await hears(gateway, Ears(("what", "now", "|", "then", "|")))
        assert await transcript(gateway, FRAME * 5, 19_200) == "what now. then."
        await hears(gateway, Ears(("今天", "|", "明天"), partials=False))
        assert await transcript(gateway, FRAME * 2 + FRAME[:2], 19_200) == "今天.明天."

    async def test_an_end_without_a_word_is_a_normal_close(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        assert await transcript(gateway, b"", 1) == ""
        assert ears.heard == []

    async def test_other_text_is_passed_over(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with dial(gateway, "/ws") as socket:
            for text in ("", "hello", "[]", '{"type": "ping"}', '{"is_speaking": true, "mode": "2pass"}', "\0"):
                await socket.send(text)
            await socket.send(FRAME)
            assert await socket.recv() == "one"

    async def test_what_follows_the_end_is_passed_over(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(stuck=asyncio.Event()))
        assert ears.stuck
        async with dial(gateway, "/ws") as socket:
            for frame in (FRAME, b"", FRAME, "{}"):
                await socket.send(frame)
            ears.stuck.set()
            assert await rest(socket) == ["one", "."]
        assert ears.heard == [FRAME]

    async def test_a_language_is_passed_on(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        async with dial(gateway, "/ws?language=%E8%8B%B1%E6%96%87") as socket:
            await socket.send(FRAME)
            await socket.recv()
        assert ears.languages == ["英文"]

    async def test_a_client_that_leaves_frees_the_engine_at_once(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        async with dial(gateway, "/ws") as socket:
            await socket.send(FRAME)
            await socket.recv()
            assert ears.open == 1
            socket.transport.abort()
        async with asyncio.timeout(1):
            while ears.open or gateway.state["rooms"].connections:
                await asyncio.sleep(0.005)

    async def test_after_a_silence_of_the_client_the_engine_is_free_and_the_next_word_is_heard(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.dictation.Microphone.__init__.__defaults__", (0.1,))
        ears = await hears(gateway, Ears())
        async with dial(gateway, "/ws") as socket:
            await socket.send(FRAME)
            assert [await socket.recv(), await socket.recv()] == ["one", "."]
            async with asyncio.timeout(1):
                while ears.open:
                    await asyncio.sleep(0.005)
            await socket.send(FRAME)
            assert await socket.recv() == " one"

    async def test_an_engine_that_fails_closes_with_1011_and_a_reason(self, gateway: Gateway) -> None:
        await hears(gateway, Ears(fails=EngineBroke("the engine died")))
        async with dial(gateway, "/ws") as socket:
            await socket.send(FRAME)
            assert await rest(socket) == ["one"]
        assert (socket.close_code, socket.close_reason) == (1011, "the engine died")

    async def test_a_busy_engine_closes_with_1013_and_a_reason(self, gateway: Gateway) -> None:
        await hears(gateway, Ears(), slots=1, queue=0)
        async with dial(gateway, "/ws") as first, dial(gateway, "/ws") as second:
            await first.send(FRAME)
            await first.recv()
            await second.send(FRAME)
            assert await rest(second) == []
            assert (second.close_code, second.close_reason.split(":")[0]) == (1013, "too many requests")
            await first.send(FRAME)
            assert await first.recv() == " two"

    async def test_an_engine_that_takes_nothing_holds_its_speaker_back(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(stuck=asyncio.Event()))
        assert ears.stuck
        audio = FRAME * 1500
        async with dial(gateway, "/ws", write_limit=1024) as socket:
            sending = asyncio.create_task(send(socket, audio))
            await asyncio.sleep(0.3)
            assert not sending.done(), "29 MB are not read ahead"
            assert (await gateway.client.get("/health")).status_code == 200
            ears.stuck.set()
            await sending
            await socket.send(b"")
            await rest(socket)
        assert b"".join(ears.heard) == audio

    async def test_two_speakers_are_kept_apart(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        tones = [bytes([n, 0]) * STEP for n in range(1, 7)]
        pages = await asyncio.gather(*(transcript(gateway, tone * 3, 1000) for tone in tones))
        assert pages == ["one two three."] * 6
        assert sorted(ears.heard) == [tone * 3 for tone in tones]


async def send(socket: ClientConnection, audio: bytes) -> None:
    for at in range(0, len(audio), 19_200):
        await socket.send(audio[at : at + 19_200])


class TestJson:
    @pytest.mark.parametrize("ask", ["query", "subprotocol"])
    async def test_states_of_an_utterance_share_an_id_and_count_up(self, gateway: Gateway, ask: str) -> None:
        await hears(gateway, Ears(("one", "two", "|", "three")))
        options: dict[str, Any] = {"subprotocols": ["json"]} if ask == "subprotocol" else {}
        async with dial(gateway, "/ws" + ("?format=json" if ask == "query" else ""), **options) as socket:
            await send(socket, FRAME * 4)
            await socket.send(b"")
            said = [json.loads(one) for one in await rest(socket)]
        assert said[0].keys() == {"type", "messageId", "revision", "text", "is_final", "timestamp"}
        assert {one["type"] for one in said} == {"asr_update"}
        assert [(one["text"], one["revision"], one["is_final"]) for one in said] == [
            ("one", 0, False),
            ("one two", 1, False),
            ("one two.", 2, True),
            ("three", 0, False),
            ("three.", 1, True),
        ]
        assert len({one["messageId"] for one in said}) == 2
        assert len({one["messageId"] for one in said[:3]}) == 1
        assert datetime.fromisoformat(said[0]["timestamp"]).tzinfo is None

    async def test_what_cannot_be_read_is_answered_and_the_session_goes_on(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with dial(gateway, "/ws?format=json") as socket:
            for text in ("hello", "[1]", '{"type": "dance"}', "[" * 10_000):
                await socket.send(text)
                assert json.loads(await socket.recv())["type"] == "error"
            await socket.send('{"type": "ping"}')
            assert json.loads(await socket.recv())["type"] == "pong"
            await socket.send(FRAME)
            assert json.loads(await socket.recv())["text"] == "one"

    async def test_a_client_of_another_protocol_is_let_go(self, gateway: Gateway) -> None:
        async with dial(gateway, "/ws?format=json") as socket:
            for _ in range(200):
                await socket.send("GET / HTTP/1.1")
            await rest(socket)
        assert socket.close_code == 1008

    async def test_a_failure_is_said_before_the_close(self, gateway: Gateway) -> None:
        await hears(gateway, Ears(refuses=EngineBusy("come back")))
        async with dial(gateway, "/ws?format=json") as socket:
            await socket.send(FRAME)
            (said,) = [json.loads(one) for one in await rest(socket)]
        assert (said["type"], said["code"], said["retry_after"]) == ("error", "engine_busy", 5)
        assert socket.close_code == 1013


class TestEnginesWithoutLiveRecognition:
    async def test_each_utterance_is_recognised_whole_once_it_has_ended(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(live=False))
        silence = bytes(2 * 16_000)
        audio = silence + say("stop the music") + silence + say("what time is it") + silence[:8000]
        assert await transcript(gateway, audio, 19_200) == "utterance 1. utterance 2."
        assert [len(one) > 16_000 for one in ears.heard] == [True, True]
        assert not gateway.scratch()

    async def test_an_utterance_that_never_ends_is_cut(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.dictation.LONGEST", 3.0)
        ears = await hears(gateway, Ears(live=False))
        speech = say("what time is it") + say("how are you today") + say("the weather is very nice today")
        await transcript(gateway, speech, 19_200)
        assert len(ears.heard) >= 2
        assert max(map(len, ears.heard)) <= 2 * 16_000 * 3
        assert sum(map(len, ears.heard)) > 0.8 * len(speech)

    async def test_silence_asks_no_engine(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(live=False))
        assert await transcript(gateway, bytes(2 * 16_000 * 20), 19_200) == ""
        assert ears.heard == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded engine, as a process of its own."""
    with serving(tmp_path_factory.mktemp("engine")) as server:
        yield server


class TestTheEmbeddedEngine:
    @pytest_asyncio.fixture(loop_scope="module", params=["funasr", "funasr_http"])
    async def speaking(self, server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
        async with running(tmp_path, server.url, transcribe_engine=request.param) as gateway:
            yield await ready(gateway)

    async def test_what_was_said_is_on_the_page(self, speaking: Gateway) -> None:
        """Live, and utterance by utterance."""
        assert (await transcript(speaking, say("stop the music"), 19_200)).split() == ["stop", "the", "music"]
        await speaking.idle()
