"""Recognition and synthesis as curl and the Fun-Audio-Chat page ask for them."""

import asyncio
import json
import logging
import time
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import pytest
import pytest_asyncio

from engines.scripted import End, Script, ScriptedEngine
from gateway import logs
from gateway.wire import wav
from tests.conftest import SHARED_AUDIO, Gateway, speech
from tests.surfaces.conftest import Desktop

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def transcribe(gateway: Gateway, audio: bytes | None = None, **fields: str) -> httpx.Response:
    """curl -F audio=@a.wav -F language=…"""
    files = {"audio": ("a.wav", speech() if audio is None else audio, "audio/wav")}
    return await gateway.client.post("/api/transcribe", data=fields, files=files)


async def say(gateway: Gateway, text: Any = "Hello.", **more: Any) -> httpx.Response:
    return await gateway.client.post("/api/synthesize", json={"text": text} | more)


def assert_refused(answer: httpx.Response, status: int, says: str) -> None:
    assert answer.status_code == status
    body = answer.json()
    assert body["success"] is False
    assert says in body["error"]


class TestTranscribe:
    async def test_a_recording_becomes_words(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        answer = await transcribe(gateway)
        assert answer.json() == {"text": "hello world", "language": "en", "success": True}

    async def test_the_engine_gets_mono_16_khz_whatever_was_sent(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        await transcribe(gateway, speech(2.0, 44100))
        body = engine.seen.asked[0][1]
        file = body[body.index(b"RIFF") :]
        found = wav.read_header(file[:4096], len(file))
        assert found.sample_rate == 16000
        assert abs(found.frames - 32000) < 200

    async def test_language_and_hotwords_pass_through(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        answer = await transcribe(gateway, language=" 中文 ", hotwords="通义，New York,")
        assert answer.json()["language"] == "中文"
        body = engine.seen.asked[0][1]
        assert 'name="language"\r\n\r\n中文\r\n'.encode() in body
        assert 'name="hotwords"\r\n\r\n通义,New York\r\n'.encode() in body

    async def test_without_them_the_engine_gets_none(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        await transcribe(gateway, language="", hotwords="")
        body = engine.seen.asked[0][1]
        assert b"language" not in body
        assert b"hotwords" not in body

    async def test_an_upload_of_5_mb_is_taken(self, gateway: Gateway) -> None:
        assert (await transcribe(gateway, speech(165))).json()["success"] is True

    async def test_real_speech_passes(self, gateway: Gateway) -> None:
        path = SHARED_AUDIO / "hello_world_en.wav"
        if not path.exists():
            pytest.skip("no recordings here")
        assert (await transcribe(gateway, path.read_bytes())).json()["success"] is True

    async def test_silence_is_for_the_engine_to_judge(self, gateway: Gateway) -> None:
        answer = await transcribe(gateway, wav.header(16000, 16000) + bytes(32000))
        assert answer.status_code == 200

    async def test_without_a_file_it_says_so_in_the_words_of_the_contract(self, gateway: Gateway) -> None:
        answer = await gateway.client.post("/api/transcribe", files={"language": (None, "en")})
        assert_refused(answer, 400, "No audio file provided")

    @pytest.mark.parametrize(("audio", "says"), [(b"", "empty"), (b"junk" * 100, "cannot be decoded")])
    async def test_audio_that_cannot_be_used_is_refused(self, gateway: Gateway, audio: bytes, says: str) -> None:
        assert_refused(await transcribe(gateway, audio), 422, says)

    async def test_json_is_no_upload(self, gateway: Gateway) -> None:
        assert_refused(await gateway.client.post("/api/transcribe", json={}), 400, "multipart/form-data")

    @pytest.mark.parametrize(
        ("script", "status"),
        [
            (Script(status=400, error="no such language"), 400),
            (Script(status=500, error="CUDA"), 502),
            (Script(end=End.DIE), 503),
        ],
    )
    async def test_the_engine_s_refusal_is_told(
        self, gateway: Gateway, engine: ScriptedEngine, script: Script, status: int
    ) -> None:
        engine.script = script
        assert_refused(await transcribe(gateway), status, script.error)

    async def test_a_busy_engine_says_when_to_come_back(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(status=503)
        answer = await transcribe(gateway)
        assert_refused(answer, 503, "engine")
        assert answer.headers["retry-after"] == "5"


class TestSynthesize:
    async def test_a_text_becomes_a_wav(self, gateway: Gateway) -> None:
        answer = await say(gateway)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
        assert answer.headers["x-sample-rate"] == "24000"
        assert wav.read_header(answer.content[:44], len(answer.content)) == wav.Header(24000, 44, 24000)

    async def test_the_first_bytes_leave_with_the_first_piece(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pieces=5, pause=0.15)
        began = time.monotonic()
        async with gateway.client.stream("POST", "/api/synthesize", json={"text": "Hello."}) as answer:
            pieces = answer.aiter_raw()
            first = await anext(pieces)
            waited = time.monotonic() - began
            assert first[:4] == b"RIFF"
            assert not engine.seen.finished
            rest = b"".join([piece async for piece in pieces])
        assert waited < 0.45 < time.monotonic() - began
        assert len(first + rest) == 44 + 5 * 4800

    @pytest.mark.parametrize(
        ("speaker", "preset"),
        [
            ({}, "中文女"),
            ({"speaker_id": "default"}, "中文女"),
            ({"speaker_id": ""}, "中文女"),
            ({"speaker_id": "英文男"}, "英文男"),
        ],
    )
    async def test_a_preset_is_one_of_the_engine_s_own_voices(
        self, gateway: Gateway, engine: ScriptedEngine, speaker: dict[str, str], preset: str
    ) -> None:
        assert (await say(gateway, **speaker)).status_code == 200
        path, body = engine.seen.asked[0]
        assert path == "/inference_sft"
        assert dict(httpx.QueryParams(body.decode())) == {"tts_text": "Hello.", "spk_id": preset}

    async def test_a_registered_voice_needs_its_device(
        self, gateway: Gateway, engine: ScriptedEngine, desktop: Desktop
    ) -> None:
        voice = await desktop.train()
        assert (await say(gateway, speaker_id=voice, device_id=desktop.device)).status_code == 200
        assert engine.seen.asked[0][0] == "/inference_cross_lingual"
        assert_refused(await say(gateway, speaker_id=voice), 400, "unknown speaker_id")
        assert_refused(await say(gateway, speaker_id=voice, device_id="another"), 404, "no such voice")

    async def test_an_unknown_speaker_is_told_who_there_is(self, gateway: Gateway) -> None:
        assert_refused(await say(gateway, speaker_id="Bob"), 400, "中文女, 中文男, 日语男")

    async def test_language_and_speed_reach_the_engine(
        self, gateway: Gateway, engine: ScriptedEngine, desktop: Desktop
    ) -> None:
        voice = await desktop.train()
        await say(gateway, speaker_id=voice, device_id=desktop.device, language="EN", speed=1.5)
        body = engine.seen.asked[0][1]
        assert b"<|en|>Hello." in body
        assert b'name="speed"\r\n\r\n1.5\r\n' in body

    @pytest.mark.parametrize(
        ("ask", "says"),
        [
            ({}, "text: Field required"),
            ({"text": 5}, "text: "),
            ({"text": ""}, "nothing to say"),
            ({"text": "a" * 20_001}, "limit is 20000"),
            ({"text": "Hi.", "speed": 0.4}, "speed: "),
            ({"text": "Hi.", "speed": "fast"}, "speed: "),
            ({"text": "Hi.", "language": "en|>"}, "language: "),
            ({"text": "Hi.", "speaker_id": ["x"]}, "speaker_id: "),
            ([], "object"),
        ],
    )
    async def test_a_wrong_request_says_what_is_wrong(self, gateway: Gateway, ask: Any, says: str) -> None:
        answer = await gateway.client.post("/api/synthesize", json=ask)
        assert_refused(answer, 413 if "limit" in says else 400, says)

    async def test_a_number_that_is_none_is_refused(self, gateway: Gateway) -> None:
        answer = await gateway.client.post("/api/synthesize", content=b'{"text": "Hi.", "speed": NaN}')
        assert_refused(answer, 400, "speed: ")

    @pytest.mark.parametrize(("asked", "tag"), [("zh-CN", b"<|zh|>"), ("FR", b"<|fr|>"), ("english", b"<|en|>")])
    async def test_a_language_reaches_the_engine_for_a_preset_too(
        self, gateway: Gateway, engine: ScriptedEngine, asked: str, tag: bytes
    ) -> None:
        await say(gateway, language=asked)
        assert unquote_to_bytes(engine.seen.asked[0][1]).startswith(b"tts_text=" + tag)

    async def test_a_full_engine_refuses_the_next_one(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pause=60)
        held = [asyncio.create_task(say(gateway)) for _ in range(36)]
        async with asyncio.timeout(10):
            while repr(gateway.state["speak"].gate) != "<tts: 4/4 running, 32/32 waiting>":
                await asyncio.sleep(0.01)
        refused = await say(gateway)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        for task in held:
            task.cancel()
        await asyncio.wait(held)

    async def test_other_methods_are_told_which_one(self, gateway: Gateway) -> None:
        for path in ("/api/transcribe", "/api/synthesize"):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
            assert answer.json() == {"error": "use POST", "success": False}


@pytest.mark.parametrize("language", ["auto", "Auto", "自动", " "])
async def test_a_language_left_to_the_engine_is_not_sent_to_it(
    gateway: Gateway, engine: ScriptedEngine, language: str
) -> None:
    answer = await transcribe(gateway, language=language)
    assert answer.status_code == 200
    assert answer.json()["language"] != language
    assert b'name="language"' not in engine.seen.asked[-1][1]


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest_asyncio.fixture(loop_scope="module")
async def heard(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every line at info or above, as the operator's collector gets it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure("info", "json")
    handler = Heard()
    handler.setFormatter(root.handlers[0].formatter)
    root.handlers = [handler]
    yield handler.lines
    root.handlers, root.level = before, level


async def test_what_users_say_is_never_logged(
    gateway: Gateway, engine: ScriptedEngine, desktop: Desktop, heard: list[str]
) -> None:
    secret = "xyzzy"
    engine.script = Script(text=f"{secret} heard")
    assert secret in (await transcribe(gateway, hotwords=secret)).text
    voice = await desktop.train(f"{secret} name", prompt_text=f"{secret} words")
    await desktop.tts(voice, f"{secret} said")
    await say(gateway, f"{secret} said")
    await say(gateway, f"{secret} said", speaker_id=secret)
    await say(gateway, [secret])
    engine.script = Script(end=End.DIE)
    with pytest.raises(httpx.RemoteProtocolError):
        await say(gateway, f"{secret} said again")
    engine.script = Script(status=400, error=f"cannot say {secret}")
    assert secret in (await say(gateway, secret)).text
    engine.script = Script(status=500, error=f"cannot say {secret}")
    await say(gateway, secret)
    await transcribe(gateway)
    assert any("broken off" in line for line in heard), "lines do arrive here"
    assert not [line for line in heard if secret in line]
    assert all(json.loads(line) for line in heard)
