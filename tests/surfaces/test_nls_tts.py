"""NLS synthesis over HTTP as FunSpeech's and Alibaba's clients use it, judged by ear."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from engines.scripted import ScriptedEngine
from gateway.errors import EngineBroke, EngineBusy, EngineTimeout, GatewayError
from gateway.surfaces.nls_tts import LONGEST_TEXT
from gateway.wire import nls_tts as wire
from tests.conftest import Gateway, ready, register, running
from tests.sound import cents, decoded, described, hertz, samples
from tests.surfaces.mouth import Mouth, speaks

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/stream/v1/tts"


async def said(gateway: Gateway, text: str = "二十个字符的一句话，用来听音高是不是对。", **ask: Any) -> httpx.Response:
    answer = await gateway.client.post(PATH, json={"text": text} | ask)
    assert answer.headers["content-type"] == "audio/mpeg", answer.text
    return answer


async def refused(gateway: Gateway, status: int = 200, **ask: Any) -> dict[str, Any]:
    """FunSpeech's envelope of a failure."""
    answer = await gateway.client.post(PATH, json={"text": "你好。"} | ask)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"task_id", "result", "status", "message"}
    assert answer.headers.get("task_id", "") == body["task_id"]
    assert body["result"] == ""
    return body


class TestSpeaking:
    async def test_an_answer_is_as_clients_know_it(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        answer = await said(gateway)
        task = answer.headers["task_id"]
        assert len(task) == 32
        assert answer.headers["content-disposition"] == f'attachment; filename="tts_{task}.wav"'
        assert answer.headers["x-sample-rate"] == "22050"
        assert "22050 Hz, mono" in described(answer.content)

    @pytest.mark.parametrize("rate", wire.RATES)
    async def test_the_sample_rate_is_true(self, gateway: Gateway, rate: int) -> None:
        """W1: audio of another rate was given under the name of the one asked for."""
        await speaks(gateway, Mouth())
        answer = await said(gateway, sample_rate=rate)
        assert f"{rate} Hz, mono" in described(answer.content)
        sound = samples(answer.content[44:])
        assert len(sound) == rate
        assert cents(hertz(sound, rate), 440) < 1

    @pytest.mark.parametrize(
        ("name", "codec"),
        [
            ("wav", "pcm_s16le"),
            ("mp3", "mp3"),
            ("opus", "opus"),
            ("ogg", "opus"),
            ("aac", "aac"),
            ("m4a", "aac"),
            ("flac", "flac"),
        ],
    )
    async def test_every_format_is_truly_written(self, gateway: Gateway, name: str, codec: str) -> None:
        await speaks(gateway, Mouth(character=0.1))
        answer = await said(gateway, format=name, sample_rate=24000)
        assert described(answer.content).startswith(f"Audio: {codec}")
        assert answer.headers["content-disposition"].endswith(f'.{name}"')
        sound = decoded(answer.content, 24000)
        assert len(sound) / 24000 == pytest.approx(2.0, abs=0.1)
        assert cents(hertz(sound[4800:-4800], 24000), 440) < 2

    async def test_pcm_is_nothing_but_samples(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        answer = await said(gateway, format="pcm", sample_rate=8000)
        assert len(answer.content) == 16000
        assert cents(hertz(samples(answer.content), 8000), 440) < 1

    async def test_volume_pitch_and_speed_act(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth(loudness=0.2))
        answer = await said(gateway, volume=100, pitch_rate=250, speech_rate=-500, sample_rate=24000)
        sound = samples(answer.content[44:])
        assert len(sound) == 48000
        assert np.abs(sound[4800:-4800]).max() == pytest.approx(0.4, abs=0.02)
        assert cents(hertz(sound[4800:-4800], 24000), 440 * 2**0.5) < 3

    async def test_the_first_bytes_leave_before_the_last_are_made(self, gateway: Gateway) -> None:
        mouth = await speaks(gateway, Mouth(stuck=asyncio.Event()))
        ask = {"text": "第一句话。", "format": "mp3", "sample_rate": 24000}
        async with gateway.client.stream("POST", PATH, json=ask) as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces)
            assert mouth.stuck is not None
            mouth.stuck.set()
            assert len(b"".join([piece async for piece in pieces])) > 500

    async def test_signs_are_kept_and_tags_are_not(self, gateway: Gateway) -> None:
        """W11: the cleaner deleted %, $, ￥, /, ℃, ~, quotes, and read tags aloud."""
        mouth = await speaks(gateway, Mouth(character=0.01))
        await said(gateway, "don't pay 50% or $5/day，￥3，温度-5℃~10℃“好”，<strong>重点</strong>")
        assert mouth.texts == ["don't pay 50% or $5/day，￥3，温度-5℃~10℃“好”，重点"]

    async def test_null_is_as_if_it_was_left_out(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        names = (
            "appkey",
            "voice",
            "speech_rate",
            "volume",
            "pitch_rate",
            "format",
            "sample_rate",
            "prompt",
            "device_id",
        )
        answer = await said(gateway, **dict.fromkeys(names))
        assert len(answer.content) == 44 + 2 * 22050

    async def test_voices_have_names(self, gateway: Gateway) -> None:
        voice = await register(gateway, gateway.settings.nls_device, "小红")
        mouth = await speaks(gateway, Mouth(character=0.01))
        for name in ("", "中文男", "xiaogang", "小红", voice):
            await said(gateway, voice=name, prompt="慢一点")
        spoken = [getattr(job.voice, "name", "a recording") for job in mouth.asked]
        assert spoken == ["中文女", "中文男", "中文男", "a recording", "a recording"]
        assert [job.instruction for job in mouth.asked] == ["", "", "", "慢一点", "慢一点"]
        body = await refused(gateway, voice="谁")
        assert (body["status"], "no such voice" in body["message"]) == (40000003, True)

    async def test_users_who_speak_in_the_same_second_get_their_own_audio(self, gateway: Gateway) -> None:
        """W2: two requests of one second shared a file."""
        await speaks(gateway, Mouth(hertz=lambda text: 300.0 + 40 * int(text)), slots=4, queue=64)

        async def one(number: int) -> None:
            answer = await said(gateway, f"{number:020}")
            assert cents(hertz(samples(answer.content[44:]), 22050), 300 + 40 * number) < 2

        async with asyncio.TaskGroup() as tasks:
            for number in range(16):
                tasks.create_task(one(number))
        assert not gateway.scratch(), "nor is there a file at all"


async def test_the_type_can_be_honest(tmp_path_factory: pytest.TempPathFactory, engine: ScriptedEngine) -> None:
    path = tmp_path_factory.mktemp("gateway")
    async with running(path, engine, nls_honest_types=True) as gateway:
        await ready(gateway)
        for name, kind in (("wav", "audio/wav"), ("ogg", "audio/ogg"), ("pcm", "audio/pcm"), ("mp3", "audio/mpeg")):
            answer = await gateway.client.post(PATH, json={"text": "hi", "format": name})
            assert answer.headers["content-type"] == kind


class TestRefusing:
    @pytest.mark.parametrize(
        "ask",
        [
            {"text": ""},
            {"text": 1},
            {"text": "a" * (LONGEST_TEXT + 1)},
            {"format": "tape"},
            {"sample_rate": 12345},
            {"volume": 101},
            {"volume": -1},
            {"speech_rate": 501},
            {"pitch_rate": -501},
            {"appkey": ""},
            {"appkey": "x" * 65},
            {"voice": "x" * 201},
            {"prompt": "x" * 501},
        ],
    )
    async def test_a_wrong_body_begins_no_task(self, gateway: Gateway, ask: dict[str, Any]) -> None:
        body = await refused(gateway, 400, **ask)
        assert (body["status"], body["task_id"]) == (40000003, "")
        assert next(iter(ask)) in body["message"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"text": "\\ud800"}'])
    async def test_a_body_that_is_no_json_has_the_familys_shape(self, gateway: Gateway, body: bytes) -> None:
        answer = await gateway.client.post(PATH, content=body)
        assert (answer.status_code, answer.json()["status"]) == (400, 40000003)

    async def test_a_body_that_is_too_large(self, gateway: Gateway) -> None:
        answer = await gateway.client.post(PATH, content=b" " * 65537)
        assert (answer.status_code, answer.json()["status"]) == (413, 40000002)

    async def test_what_is_at_its_limit_is_taken(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth(character=0.001))
        for ask in (
            {"volume": 100, "speech_rate": 500, "pitch_rate": 500, "appkey": "x" * 64, "prompt": "x" * 500},
            {"volume": 0, "speech_rate": -500, "pitch_rate": -500, "voice": " " * 197 + "中文女"},
        ):
            await said(gateway, "a" * LONGEST_TEXT, **ask)

    @pytest.mark.parametrize("text", ["🙂", " ", "。。！", "<b></b>"])
    async def test_of_nothing(self, gateway: Gateway, text: str) -> None:
        """W11: emoji became an empty text, and a failure without a reason."""
        body = await refused(gateway, text=text)
        assert (body["status"], body["message"]) == (40000003, "there is nothing to say in this text")

    @pytest.mark.parametrize("name", ["speex", "amr"])
    async def test_a_format_that_cannot_be_written_is_named(self, gateway: Gateway, name: str) -> None:
        body = await refused(gateway, format=name)
        assert (body["status"], body["message"].startswith("this format cannot be written; there are pcm")) == (
            40000003,
            True,
        )

    @pytest.mark.parametrize(
        ("exc", "status", "code"),
        [
            (EngineBroke("it died"), 502, 50000000),
            (EngineTimeout("silent"), 504, 50000000),
            (EngineBusy("full"), 503, 40000005),
        ],
    )
    async def test_a_failure_of_ours_is_seen_by_load_balancers(
        self, gateway: Gateway, exc: GatewayError, status: int, code: int
    ) -> None:
        """W18: failures of the server were HTTP 200 or 400."""
        await speaks(gateway, Mouth(refuses=exc))
        body = await refused(gateway, status)
        assert (body["status"], body["message"], len(body["task_id"])) == (code, str(exc), 32)

    async def test_an_engine_that_dies_later_breaks_the_answer_off(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth(fails=EngineBroke("it died")))
        with pytest.raises(httpx.RemoteProtocolError):
            await gateway.client.post(PATH, json={"text": "this will fail"})

    async def test_a_client_that_leaves_cancels_the_engine(self, gateway: Gateway) -> None:
        mouth = await speaks(gateway, Mouth(stuck=asyncio.Event()))
        async with gateway.client.stream("POST", PATH, json={"text": "第一句话。"}) as answer:
            assert answer.status_code == 200
            assert mouth.open == 1
        await gateway.idle(5)
        assert mouth.open == 0


class TestVoices:
    async def test_are_the_presets_and_those_registered_for_everybody(self, gateway: Gateway) -> None:
        """W22: voices could not be managed through the product's port."""
        await register(gateway, gateway.settings.nls_device, "小蓝")
        await register(gateway, "somebody-else", "hidden")
        body = (await gateway.client.get(f"{PATH}/voices")).json()
        assert body["voices"][:7] == list(gateway.settings.presets)
        assert "小蓝" in body["voices"]
        assert "hidden" not in body["voices"]
        assert body["total"] == len(body["voices"])
        refreshed = (await gateway.client.post(f"{PATH}/voices/refresh")).json()
        assert refreshed == {"message": "音色配置已刷新"} | body

    async def test_are_described(self, gateway: Gateway) -> None:
        await speaks(gateway, Mouth())
        await register(gateway, gateway.settings.nls_device, "小绿")
        body = (await gateway.client.get(f"{PATH}/voices/info")).json()
        assert body["voices"]["粤语女"] == {
            "name": "粤语女",
            "type": "preset",
            "language": "zh-HK",
            "gender": "female",
            "description": "预设音色：粤语女",
            "sample_rate": 22050,
            "available": True,
        }
        clone = body["voices"]["小绿"]
        assert (clone["type"], clone["language"], "added_at" in clone, "reference_text" in clone) == (
            "clone",
            "unknown",
            True,
            False,
        )
        assert body["total"] == body["preset_count"] + body["clone_count"] == len(body["voices"])
        assert body["preset_count"] == 7

    async def test_one_with_a_presets_name_does_not_hide_it(self, gateway: Gateway) -> None:
        await register(gateway, gateway.settings.nls_device, "中文女")
        body = (await gateway.client.get(f"{PATH}/voices/info")).json()
        assert body["voices"]["中文女"]["type"] == "preset"


class TestHealth:
    async def test_is_of_the_engine(self, gateway: Gateway) -> None:
        """W18: it was healthy whatever was down."""
        await speaks(gateway, Mouth())
        body = (await gateway.client.get(f"{PATH}/health")).json()
        assert (body["status"], body["tts_model_loaded"], body["device"]) == ("healthy", True, "cpu")
        assert body["preset_voices"] == list(gateway.settings.presets)

    async def test_says_when_it_is_down(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        async with running(tmp_path_factory.mktemp("gateway"), "http://127.0.0.1:9") as gateway:
            answer = await gateway.client.get(f"{PATH}/health")
            assert answer.status_code == 200
            assert answer.json()["status"] in ("unhealthy", "error")
            assert answer.json()["sft_model_loaded"] is False
