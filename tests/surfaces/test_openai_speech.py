"""`POST /v1/audio/speech` as OpenAI's own SDK uses it, and what other clients of that API add."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from engines.scripted import End, Script, ScriptedEngine
from gateway.encoding import FORMATS
from gateway.wire import openai_audio as wire
from gateway.wire import wav
from tests.conftest import Gateway, ready, register, running
from tests.sound import cents, decoded, described, hertz, tone

"""Formats that OpenAI names."""
pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/audio/speech"
ASK = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello there."}
PIECE = tone(24000, 0.1)
"""44 whole waves, so that pieces join without a click."""


@pytest.fixture(autouse=True)
def script(engine: ScriptedEngine) -> None:
    """Two seconds of a tone."""
    engine.script = Script(piece=PIECE, pieces=20)


def raw(name: str, rate: int = 24000) -> list[str]:
    return ["-f", "s16le", "-ar", str(rate), "-ac", "1"] if name == "pcm" else []


def asked(engine: ScriptedEngine) -> dict[str, str]:
    """The form that the engine was sent."""
    return {name: value[0] for name, value in parse_qs(engine.seen.asked[-1][1].decode()).items()}


async def spoken(gateway: Gateway, **more: Any) -> httpx.Response:
    return await gateway.client.post(PATH, json=ASK | more)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


class TestFormats:
    @pytest.mark.parametrize("name", wire.FORMATS)
    async def test_the_sdk_streams_each_into_a_file(self, sdk: AsyncOpenAI, tmp_path: Path, name: Any) -> None:
        path = tmp_path / f"speech.{name}"
        async with sdk.audio.speech.with_streaming_response.create(
            input="Hello.", model="tts-1", voice="alloy", response_format=name
        ) as answer:
            await answer.stream_to_file(path)
        assert answer.headers["content-type"] == FORMATS[name].content_type.decode()
        assert answer.headers["x-sample-rate"] == "24000"
        data = path.read_bytes()
        assert name[:3] in described(data, *raw(name)) or name == "wav"
        sound = decoded(data, 24000, *raw(name))
        assert len(sound) / 24000 == pytest.approx(2.0, abs=0.1)
        assert cents(hertz(sound[12000:36000], 24000), 440) < 1
        assert np.abs(sound[-4800:]).max() > 0.4, "the end of it"

    async def test_it_is_mp3_unless_another_is_asked_for(self, sdk: AsyncOpenAI) -> None:
        answer = await sdk.audio.speech.create(input="Hello.", model="tts-1", voice="alloy")
        assert "mp3, 24000 Hz, mono" in described(answer.content).replace(" (mp3float)", "")

    async def test_pcm_is_24_khz_whatever_the_engine_has(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(sample_rate=22050, piece=tone(22050, 0.1), pieces=20)
        answer = await sdk.audio.speech.create(input="Hi.", model="tts-1", voice="alloy", response_format="pcm")
        sound = decoded(answer.content, 24000, *raw("pcm"))
        assert len(sound) == pytest.approx(48000, abs=2)
        assert cents(hertz(sound[12000:36000], 24000), 440) < 1

    @pytest.mark.parametrize(
        ("name", "rate", "got"), [("wav", 8000, 8000), ("pcm", 48000, 48000), ("mp3", 23000, 24000)]
    )
    async def test_another_sample_rate_is_made_and_stated(
        self, gateway: Gateway, name: str, rate: int, got: int
    ) -> None:
        answer = await spoken(gateway, response_format=name, sample_rate=rate)
        assert answer.headers["x-sample-rate"] == str(got)
        sound = decoded(answer.content, got, *raw(name, got))
        assert cents(hertz(sound[got // 2 : got * 3 // 2], got), 440) < 1

    @pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
    async def test_the_first_bytes_do_not_wait_for_the_second_piece(
        self, gateway: Gateway, engine: ScriptedEngine, sdk: AsyncOpenAI, name: Any
    ) -> None:
        engine.script = Script(piece=PIECE, pieces=1, end=End.HANG)
        async with asyncio.timeout(5):
            async with sdk.audio.speech.with_streaming_response.create(
                input="Hi.", model="tts-1", voice="alloy", response_format=name
            ) as answer:
                async for first in answer.iter_bytes():
                    assert first
                    break
            while not engine.seen.abandoned:  # whoever left has left the engine too
                await asyncio.sleep(0.01)
        await gateway.idle()


class TestWishes:
    @pytest.mark.parametrize(
        ("speed", "at_engine", "seconds"), [(0.25, "0.5", 4), (0.5, "0.5", 2), (1.5, "1.5", 2), (4, "2", 1)]
    )
    async def test_what_is_beyond_the_engine_s_speeds_the_gateway_does(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine, speed: float, at_engine: str, seconds: float
    ) -> None:
        """The scripted engine always speaks for two seconds."""
        answer = await sdk.audio.speech.create(
            input="Hi.", model="tts-1", voice="alloy", response_format="wav", speed=speed
        )
        assert asked(engine)["speed"] == at_engine
        sound = decoded(answer.content, 24000)
        assert len(sound) / 24000 == pytest.approx(seconds, abs=0.03)
        assert cents(hertz(sound[len(sound) // 4 : -len(sound) // 4], 24000), 440) < 1

    @pytest.mark.parametrize("speed", [0.24, 4.01])
    async def test_a_speed_beyond_openai_s_is_refused(self, sdk: AsyncOpenAI, speed: float) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.audio.speech.create(input="Hi.", model="tts-1", voice="alloy", speed=speed)
        assert refused.value.param == "speed"

    async def test_how_to_say_it_reaches_the_engine(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        await sdk.audio.speech.create(input="Hi.", model="gpt-4o-mini-tts", voice="alloy", instructions="Whisper.")
        assert engine.seen.asked[-1][0] == "/inference_instruct"
        assert asked(engine)["instruct_text"] == "Whisper."

    @pytest.mark.parametrize(("language", "tag"), [("Chinese", "<|zh|>"), ("en", "<|en|>"), ("Auto", ""), (None, "")])
    async def test_a_language_is_taken_by_code_and_by_name(
        self, gateway: Gateway, engine: ScriptedEngine, language: str | None, tag: str
    ) -> None:
        assert (await spoken(gateway, language=language)).status_code == 200
        assert asked(engine)["tts_text"] == f"{tag}Hello there."

    async def test_null_is_as_if_it_was_left_out_and_unknown_fields_are_ignored(
        self, gateway: Gateway, sdk: Any
    ) -> None:
        nothing = dict.fromkeys(
            ("speed", "instructions", "response_format", "stream_format", "sample_rate", "language")
        )
        answer = await spoken(gateway, **nothing, task_type="CustomVoice", volume_multiplier=2)
        assert answer.headers["content-type"] == "audio/mpeg"

    async def test_a_text_longer_than_openai_allows_is_spoken(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        text = "word " * 4000
        await sdk.audio.speech.create(input=text, model="tts-1", voice="alloy")
        assert asked(engine)["tts_text"] == text.strip()

    async def test_a_text_is_refused_one_character_over_the_limit(self, gateway: Gateway, sdk: AsyncOpenAI) -> None:
        most = gateway.settings.text_max_chars
        assert (await spoken(gateway, input="a" * most)).status_code == 200
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.audio.speech.create(input="a" * (most + 1), model="tts-1", voice="alloy")
        assert (refused.value.param, refused.value.code) == ("input", "string_above_max_length")


class TestVoices:
    @pytest.mark.parametrize(
        ("voice", "speaker"),
        [("alloy", "中文女"), ("coral", "英文女"), ("onyx", "中文男"), ("日语男", "日语男"), ("default", "中文女")],
    )
    async def test_openai_s_names_and_the_presets_own_are_known(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine, voice: str, speaker: str
    ) -> None:
        await sdk.audio.speech.create(input="Hi.", model="tts-1", voice=voice)
        assert asked(engine)["spk_id"] == speaker

    async def test_a_voice_may_be_an_object(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        await sdk.audio.speech.create(input="Hi.", model="tts-1", voice={"id": "ash"})
        assert asked(engine)["spk_id"] == "中文男"

    async def test_a_registered_voice_is_known_by_its_id_and_its_name(
        self, gateway: Gateway, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        voice = await register(gateway, device="openai", name="Ann of the id")
        for name in (voice, {"id": voice}, "Ann of the id"):
            await sdk.audio.speech.create(input="Hi.", model="tts-1", voice=name)  # type: ignore[arg-type]
            assert engine.seen.asked[-1][0] == "/inference_cross_lingual"

    async def test_a_device_s_voice_is_known_to_whoever_names_the_device(
        self, gateway: Gateway, sdk: AsyncOpenAI, device: str
    ) -> None:
        voice = await register(gateway, device=device)
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.audio.speech.create(input="Hi.", model="tts-1", voice=voice)
        assert (refused.value.param, refused.value.code) == ("voice", "voice_not_found")
        assert "alloy" in refused.value.message, "it says which there are"
        body = {"device_id": device}
        assert (await sdk.audio.speech.create(input="Hi.", model="tts-1", voice=voice, extra_body=body)).content

    async def test_a_preset_that_is_gone_leaves_the_default(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, presets="Sue,Tom", default_voice="Tom") as other:
            assert (await spoken(await ready(other), voice="nova")).status_code == 200
        assert asked(engine)["spk_id"] == "Tom"


class TestEvents:
    async def test_the_same_audio_comes_as_events_with_what_it_took(self, gateway: Gateway) -> None:
        answer = await spoken(gateway, stream_format="sse", response_format="opus", instructions="Slowly.")
        assert answer.headers["content-type"].startswith("text/event-stream")
        *deltas, (last, done) = events(answer.text)
        assert {kind for kind, _ in deltas} == {"speech.audio.delta"}
        assert all(data["type"] == kind for kind, data in deltas)
        sound = decoded(b"".join(base64.b64decode(data["audio"]) for _, data in deltas), 24000)
        assert len(sound) == 48000
        assert cents(hertz(sound, 24000), 440) < 1
        assert (last, done["type"]) == ("speech.audio.done", "speech.audio.done")
        assert done["usage"] == {"input_tokens": 12 + 7, "output_tokens": 40, "total_tokens": 59}

    @pytest.mark.parametrize("name", wire.FORMATS)
    async def test_every_format_can_come_as_events(self, gateway: Gateway, name: str) -> None:
        answer = await spoken(gateway, stream_format="sse", response_format=name)
        deltas = [data["audio"] for kind, data in events(answer.text) if kind == "speech.audio.delta"]
        sound = decoded(b"".join(map(base64.b64decode, deltas)), 24000, *raw(name))
        assert len(sound) / 24000 == pytest.approx(2.0, abs=0.1)

    async def test_what_fails_in_the_middle_is_an_event_and_breaks_the_transfer_off(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(piece=PIECE, pieces=3, end=End.DIE)
        got = b""
        with pytest.raises(httpx.RemoteProtocolError):
            async with gateway.client.stream("POST", PATH, json=ASK | {"stream_format": "sse"}) as answer:
                async for piece in answer.aiter_bytes():
                    got += piece
        *_, (kind, data) = events(got.decode())
        assert kind == "error"
        assert data["error"]["type"] == "server_error"
        assert data["error"]["code"] == "engine_broke"
        await gateway.idle()


class TestFailures:
    async def test_audio_that_breaks_is_broken_off(
        self, gateway: Gateway, sdk: AsyncOpenAI, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(piece=PIECE, pieces=3, end=End.DIE)
        with pytest.raises(openai.APIConnectionError):
            await sdk.audio.speech.create(input="Hi.", model="tts-1", voice="alloy")
        await gateway.idle()

    @pytest.mark.parametrize("text", ["", " \n", "!?…"])
    async def test_a_text_without_a_word_is_refused(self, sdk: AsyncOpenAI, text: str) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.audio.speech.create(input=text, model="tts-1", voice="alloy")
        assert (refused.value.param, refused.value.type) == ("input", "invalid_request_error")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("input", None),
            ("input", 7),
            ("voice", "nobody"),
            ("voice", {"name": "alloy"}),
            ("voice", {"id": ["alloy"]}),
            ("voice", ""),
            ("response_format", "ogg"),
            ("stream_format", "ws"),
            ("sample_rate", 7999),
            ("sample_rate", 48001),
            ("instructions", "a" * 4097),
            ("language", "中文"),
            ("speed", "fast"),
        ],
    )
    async def test_what_is_wrong_is_named(self, gateway: Gateway, field: str, value: Any) -> None:
        answer = await spoken(gateway, **{field: value})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("invalid_request_error", field)

    async def test_an_engine_that_fails_is_a_server_error(self, sdk: AsyncOpenAI, engine: ScriptedEngine) -> None:
        engine.script = Script(status=500, error="no")
        with pytest.raises(openai.InternalServerError) as failed:
            await sdk.audio.speech.create(input="Hi.", model="tts-1", voice="alloy")
        assert failed.value.type == "server_error"

    async def test_a_full_engine_asks_for_patience(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        engine.script = Script(piece=PIECE, pieces=1, end=End.HANG)
        async with running(tmp_path, engine, speak_slots=1, speak_queue=0) as full:
            await ready(full)
            async with full.client.stream("POST", PATH, json=ASK) as busy:
                assert busy.status_code == 200
                refused = await spoken(full)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_busy")
        assert refused.headers["retry-after"]

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v1/audio/speech", 405),
            ("DELETE", "/v1/models", 405),
            ("POST", "/v1/audio/nothing", 404),
            ("GET", "/v1/audio", 404),
            ("GET", "/v1/realtime/nothing", 404),
        ],
    )
    async def test_every_path_below_openai_s_answers_in_its_shape(
        self, gateway: Gateway, method: str, path: str, status: int
    ) -> None:
        answer = await gateway.client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert answer.headers["x-request-id"].startswith("req_")

    @pytest.mark.parametrize("path", ["/v1/audiobooks", "/v1/voices", "/v1/tts"])
    async def test_a_path_beside_openai_s_does_not(self, gateway: Gateway, path: str) -> None:
        answer = await gateway.client.get(path)
        assert isinstance(answer.json()["error"], str)
        assert "x-request-id" not in answer.headers


async def test_every_answer_says_its_id_and_how_long_it_took(gateway: Gateway) -> None:
    began = time.perf_counter()
    answers = [await spoken(gateway), await spoken(gateway, input="")]
    most = (time.perf_counter() - began) * 1000
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2
    assert all(0 <= int(answer.headers["openai-processing-ms"]) <= most for answer in answers)


async def test_a_page_may_read_what_the_answer_says(gateway: Gateway) -> None:
    answer = await gateway.client.post(PATH, json=ASK, headers={"origin": "https://app.example"})
    exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"x-request-id", "openai-processing-ms", "x-sample-rate"} <= exposed


async def test_many_streams_at_once_are_each_whole(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.script = Script(piece=PIECE, pieces=10, pause=0.01)
    async with running(tmp_path, engine, speak_slots=20) as gateway:
        await ready(gateway)
        answers = await asyncio.gather(*(spoken(gateway, response_format="flac") for _ in range(20)))
    assert {decoded(answer.content, 24000).tobytes() for answer in answers} == {
        decoded(wav.header(24000, 24000) + PIECE * 10, 24000).tobytes()
    }
