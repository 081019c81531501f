"""NLS recognition of whole recordings, as FunSpeech's and Alibaba's clients ask for it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import numpy as np
import pytest

from engines.scripted import End, Script, ScriptedEngine
from gateway.surfaces import nls_asr
from gateway.wire import engine_health, wav
from tests import hostile
from tests.conftest import Gateway, ready, running
from tests.elsewhere import elsewhere
from tests.tiny.speech import pcm as joined
from tests.tiny.speech import say, silence

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/stream/v1/asr"


def samples(seconds: float = 1.0, sample_rate: int = 16000, pitch: float = 440) -> bytes:
    """Headerless."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return (8000 * np.sin(2 * np.pi * pitch * t)).astype("<i2").tobytes()


async def ask(gateway: Gateway, body: bytes | None = None, **query: Any) -> httpx.Response:
    return await gateway.client.post(PATH, params=query, content=samples() if body is None else body)


def done(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["message"]) == (200, 20000000, "SUCCESS"), body
    assert answer.headers["task_id"] == body["task_id"]
    assert len(body["task_id"]) == 32
    return body


def refused(answer: httpx.Response, http: int, status: int, says: str = "") -> None:
    body = answer.json()
    assert (answer.status_code, body["status"], body["result"]) == (http, status, ""), body
    assert says in body["message"]
    assert set(body) == {"task_id", "result", "status", "message"}
    assert answer.headers.get("task_id", "") == body["task_id"]


def heard(engine: ScriptedEngine) -> tuple[bytes, int]:
    """(PCM, its rate) that reached the engine last."""
    body = engine.seen.asked[-1][1]
    file = body[body.index(b"RIFF") : body.rindex(b"\r\n--")]
    head = wav.read_header(file[:4096], len(file))
    return file[head.start : head.start + 2 * head.frames], head.sample_rate


def pitch(pcm: bytes, sample_rate: int) -> float:
    found = np.frombuffer(pcm, "<i2").astype(np.float64)
    middle = found[len(found) // 8 : -len(found) // 8]
    return float(np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 10 * sample_rate))) / 10)


class TestAudio:
    @pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
    async def test_headerless_pcm_is_heard_at_the_rate_that_is_stated(
        self, gateway: Gateway, engine: ScriptedEngine, rate: int
    ) -> None:
        body = done(await ask(gateway, samples(1, rate), sample_rate=rate))
        pcm, sent = heard(engine)
        assert (sent, len(pcm) / 2 / sent) == (16000, pytest.approx(1, abs=0.01))
        assert pitch(pcm, sent) == pytest.approx(440, abs=0.25)
        assert body["duration"] == pytest.approx(1000, abs=10)

    async def test_pcm_at_16_khz_is_what_is_meant_without_a_word(self, gateway: Gateway) -> None:
        answer = await gateway.client.post(PATH, content=samples(2))
        assert done(answer)["result"] == "hello world"
        assert answer.json()["duration"] == 2000

    async def test_a_file_is_heard_whatever_it_is_called(
        self, gateway: Gateway, engine: ScriptedEngine, tmp_path: Path
    ) -> None:
        sounds = hostile.sounds(imageio_ffmpeg.get_ffmpeg_exe(), tmp_path)
        kinds = ("stereo_44k.wav", "voice.mp3", "voice.m4a", "voice.aac", "voice.amr", "voice.flac", "opus.ogg")
        for form in ("pcm", *{name.rpartition(".")[2] for name in kinds}, "speex", "opus"):
            for name in kinds if form == "pcm" else kinds[:1]:
                done(await ask(gateway, sounds[name].read_bytes(), format=form, sample_rate=8000))
                pcm, rate = heard(engine)
                assert len(pcm) / 2 / rate == pytest.approx(hostile.SECONDS, rel=0.03), name
                assert pitch(pcm, rate) == pytest.approx(440, abs=1), name

    async def test_what_is_named_wav_and_is_none_is_refused(self, gateway: Gateway) -> None:
        refused(await ask(gateway, samples(), format="wav"), 200, 40000002)

    async def test_an_empty_body_is_refused(self, gateway: Gateway) -> None:
        refused(await ask(gateway, b""), 200, 40000002, "empty")
        refused(await ask(gateway, wav.header(16000, 0)), 200, 40000002)

    @pytest.mark.parametrize("page", [b"<html><body>not found</body></html>", b'{"error": "not found, sorry"}'])
    async def test_a_page_is_not_heard_as_noise(self, gateway: Gateway, page: bytes) -> None:
        refused(await ask(gateway, page), 200, 40000002)

    @pytest.mark.parametrize("ours", [True, False])
    async def test_the_upload_limit(
        self, tmp_path: Path, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, ours: bool
    ) -> None:
        """100 MiB, or what the setting says where that is less."""
        assert nls_asr.MOST_BYTES == 104857600
        if ours:
            monkeypatch.setattr(nls_asr, "MOST_BYTES", 32000)
        async with running(tmp_path, engine, **({} if ours else {"upload_max_bytes": 32000})) as small:
            await ready(small)
            done(await ask(small, samples(1)))
            refused(await ask(small, samples(1) + b"\0"), 200, 40000002, "32000")
            await small.idle()

    async def test_w19_a_minute_is_no_limit_and_the_limit_is_a_setting(
        self, gateway: Gateway, tmp_path: Path, engine: ScriptedEngine
    ) -> None:
        """W19: one-shot recognition is not capped at 60 s; transcribe_max_seconds caps it."""
        spoken = joined(say("the weather is very nice today", voice="en-us"), silence(1.5))
        body = done(await ask(gateway, spoken * 30))
        assert body["duration"] > 90_000
        assert body["result"].split() == ["hello", "world"] * (len(body["result"].split()) // 2), "piece by piece"
        assert len(body["result"].split()) > 4
        async with running(tmp_path, engine, transcribe_max_seconds=2) as short:
            await ready(short)
            done(await ask(short, samples(2)))
            refused(await ask(short, samples(2.01)), 200, 40000003, "longer than 2 seconds")


class TestAddress:
    async def test_audio_may_come_from_an_address(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with elsewhere() as host, running(tmp_path, engine, fetch_allow="127.0.0.0/8") as gateway:
            await ready(gateway)
            host.gives(samples(1, 8000))
            url = host.url()
            done(await ask(gateway, b"", audio_address=url, sample_rate=8000))
            pcm, rate = heard(engine)
            assert (len(pcm) / 2 / rate, pitch(pcm, rate)) == (pytest.approx(1, abs=0.01), pytest.approx(440, abs=0.3))
            host.gives(b"<html>not found, or gone for ever</html>")
            refused(await ask(gateway, b"", audio_address=url), 200, 40000002)
            host.gives(b"")
            refused(await ask(gateway, b"", audio_address=url), 200, 40000002)
            await gateway.idle()

    async def test_w21_an_address_in_the_operators_network_is_refused(self, gateway: Gateway) -> None:
        """W21: audio_address leads nobody into the network behind the gateway."""
        for url in ("http://127.0.0.1:9/x", "http://169.254.169.254/latest", "file:///etc/passwd", "http://localhost/"):
            refused(await ask(gateway, b"", audio_address=url), 200, 40000003)


class TestQuery:
    @pytest.mark.parametrize(
        "query",
        [
            {"format": "midi"},
            {"format": ""},
            {"sample_rate": "16001"},
            {"sample_rate": "fast"},
            {"enable_words": "perhaps"},
            {"disfluency": ""},
            {"appkey": ""},
            {"appkey": "a" * 65},
            {"vocabulary_id": "v" * 33},
            {"customization_id": "c" * 65},
            {"audio_address": "http://example.com/" + "a" * 494},
            {"dolphin_lang_sym": "l" * 9},
            {"dolphin_region_sym": "r" * 17},
        ],
    )
    async def test_a_wrong_parameter_is_an_http_400_without_a_task(
        self, gateway: Gateway, engine: ScriptedEngine, query: dict[str, str]
    ) -> None:
        refused(await ask(gateway, **query), 400, 40000003, next(iter(query)))
        assert not engine.seen.asked

    async def test_parameters_at_their_limits_and_unknown_ones_pass(self, gateway: Gateway) -> None:
        more = {"enable_voice_detection": "false", "tea": "green", "dolphin_region_sym": "r" * 16}
        done(await ask(gateway, appkey="a" * 64, customization_id="paraformer-large", **more))
        long = "http://example.invalid/" + "a" * 489
        assert len(long) == 512
        refused(await ask(gateway, b"", audio_address=long), 200, 40000003)

    async def test_a_language_that_is_named_reaches_the_engine(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        done(await ask(gateway, dolphin_lang_sym="ja", dolphin_region_sym="SHANGHAI"))
        assert b'name="language"\r\n\r\nja\r\n' in engine.seen.asked[-1][1]
        done(await ask(gateway))
        assert b'name="language"' not in engine.seen.asked[-1][1]


class TestText:
    SAID = "嗯，他有一百二十三块钱。"

    @pytest.mark.parametrize(
        ("wishes", "text"),
        [
            ((), "嗯他有一百二十三块钱"),
            (("enable_punctuation_prediction",), "嗯，他有一百二十三块钱。"),
            (("enable_punctuation_prediction", "enable_inverse_text_normalization"), "嗯，他有123块钱。"),
            (("enable_inverse_text_normalization", "disfluency"), "他有123块钱"),
        ],
    )
    async def test_w13_every_switch_acts(
        self, gateway: Gateway, engine: ScriptedEngine, wishes: tuple[str, ...], text: str
    ) -> None:
        """W13: disfluency is not dropped; nor are punctuation and ITN."""
        engine.script = Script(text=self.SAID)
        assert done(await ask(gateway, **dict.fromkeys(wishes, "true")))["result"] == text

    async def test_w13_times_of_words_are_given_where_they_are_known(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        """W13: word timing is not dropped, and nothing is invented."""
        engine.script = Script(text="hello world", times=[("hello", 0.1, 0.42), ("world", 0.5, 0.9)])
        words = [
            {"text": "hello", "startTime": 100, "endTime": 420},
            {"text": "world", "startTime": 500, "endTime": 900},
        ]
        assert done(await ask(gateway, enable_words="true"))["words"] == words
        assert "words" not in done(await ask(gateway))
        engine.script = Script()
        assert "words" not in done(await ask(gateway, enable_words="true"))

    async def test_w13_a_vocabulary_is_a_list_of_hotwords(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        """W13: vocabulary_id is not dropped: it acts, or is refused."""
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists" / "names.txt").write_text("通义千问\n\n New York \n通义千问\n")
        (tmp_path / "secret.txt").write_text("secret")
        async with running(tmp_path, engine, vocabulary_dir=tmp_path / "lists") as gateway:
            await ready(gateway)
            done(await ask(gateway, vocabulary_id="names"))
            assert 'name="hotwords"\r\n\r\n通义千问,New York\r\n'.encode() in engine.seen.asked[-1][1]
            for unknown in ("others", "../secret", ".", "/etc/passwd"):
                refused(await ask(gateway, vocabulary_id=unknown), 200, 40000003, "vocabulary_id")

    async def test_w13_without_lists_a_vocabulary_is_refused(self, gateway: Gateway) -> None:
        """W13: as above."""
        refused(await ask(gateway, vocabulary_id="names"), 200, 40000003, "vocabulary_id")


class TestVoiceDetection:
    async def test_silence_is_not_recognised(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        body = done(await ask(gateway, bytes(64000), enable_voice_detection="true"))
        assert (body["result"], body["duration"], engine.seen.asked) == ("", 2000, [])

    async def test_silence_around_speech_is_cut_off_and_times_stay_true(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        engine.script = Script(times=[("hello", 0.5, 1.0)])
        spoken = joined(say("the weather is very nice today", voice="en-us"))
        audio = joined(silence(2)) + spoken + joined(silence(3))
        body = done(await ask(gateway, audio, enable_voice_detection="true", enable_words="true"))
        pcm, rate = heard(engine)
        at = audio.index(pcm) / 2 / rate
        assert 1.5 < at < 2.2
        assert len(pcm) / 2 / rate == pytest.approx(len(spoken) / 2 / rate, abs=0.8)
        assert body["duration"] == round(len(audio) / 32)
        assert body["words"][0]["startTime"] == pytest.approx(500 + at * 1000, abs=1)


class TestModels:
    async def test_w8_a_name_is_never_answered_by_another_model_unsaid(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        """W8: every answer, and the list, name the model that really recognises."""
        listed = (await gateway.client.get(f"{PATH}/models")).json()
        assert [one["id"] for one in listed["models"]] == [
            "qwen3-asr-flash",
            "paraformer-large",
            "sensevoice-small",
            "dolphin-small",
        ]
        assert (listed["total"], listed["loaded_count"], listed["models"][0]["default"]) == (4, 4, True)
        for one in listed["models"]:
            assert one["offline_model"] == {"path": "scripted", "exists": True}
            assert "scripted" in one["description"]
            assert done(await ask(gateway, customization_id=one["id"]))["model"] == "scripted"

    async def test_an_unknown_name_is_refused_with_those_there_are(self, gateway: Gateway) -> None:
        answer = await ask(gateway, customization_id="whisper")
        refused(answer, 200, 40000003, "qwen3-asr-flash, paraformer-large, sensevoice-small, dolphin-small")

    async def test_w18_health_is_honest(self, tmp_path: Path) -> None:
        """W18: an engine that is down is not healthy, and nothing counts as loaded."""
        async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
            await ready(gateway)
            found = (await gateway.client.get(f"{PATH}/health")).json()
            assert (found["status"], found["model_loaded"], found["loaded_models"]) == ("healthy", True, ["scripted"])
            assert set(found) == {
                "status",
                "model_loaded",
                "device",
                "version",
                "message",
                "loaded_models",
                "asr_model_mode",
            }
            engine.script = Script(health=engine_health.Report("failed", "scripted", reason="no memory"))
            async with asyncio.timeout(5):
                while found["status"] != "error":
                    found = (await gateway.client.get(f"{PATH}/health")).json()
                    await asyncio.sleep(0.02)
            assert (found["message"], found["model_loaded"]) == ("no memory", False)
            listed = (await gateway.client.get(f"{PATH}/models")).json()
            assert (listed["loaded_count"], listed["models"][0]["loaded"]) == (0, False)


class TestFailures:
    async def test_w18_failures_of_ours_have_a_status_that_load_balancers_see(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        """W18: 5xx are not reported as HTTP 200 or 400, and say when to come again."""
        engine.script = Script(end=End.DIE)
        refused(await ask(gateway), 503, 50000000)
        engine.script = Script(status=500, error="a bug")
        refused(await ask(gateway), 502, 50000000)
        engine.script = Script(status=503, error="loading")
        answer = await ask(gateway)
        refused(answer, 503, answer.json()["status"])
        assert int(answer.headers["retry-after"]) > 0

    async def test_w18_more_than_may_wait_are_refused_at_once(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        """W18: the queue is bounded; 40000005 is sent."""
        engine.script = Script(pause=60)
        held = [asyncio.create_task(ask(gateway)) for _ in range(36)]
        async with asyncio.timeout(20):
            while repr(gateway.state["transcribe"].gate) != "<asr: 4/4 running, 32/32 waiting>":
                await asyncio.sleep(0.01)
        answer = await ask(gateway)
        refused(answer, 503, 40000005, "too many requests")
        for task in held:
            task.cancel()
        await asyncio.wait(held)

    async def test_w15_recordings_are_recognised_at_the_same_time(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        """W15: as many as the engine has slots; no lock lets one wait for another."""
        engine.script = Script(pause=60)
        held = [asyncio.create_task(ask(gateway)) for _ in range(4)]
        async with asyncio.timeout(20):
            while engine.seen.running < 4:
                await asyncio.sleep(0.01)
        for task in held:
            task.cancel()
        await asyncio.wait(held)

    async def test_a_long_recognition_keeps_its_client_and_a_late_failure_is_told_too(
        self, tmp_path: Path, engine: ScriptedEngine
    ) -> None:
        async with running(tmp_path, engine, answer_pulse=0.1) as slow:
            await ready(slow)
            for end, status in ((End.WHOLE, 20000000), (End.DIE, 50000000)):
                engine.script = Script(pause=0.5, end=end)
                answer = await ask(slow)
                assert answer.content.startswith(b"  ")
                assert (answer.status_code, answer.json()["status"]) == (200, status)
            await slow.idle()

    async def test_w20_nothing_of_an_upload_is_left_or_served(self, gateway: Gateway) -> None:
        """W20: no file of a user's can be had by anybody, nor stays."""
        done(await ask(gateway))
        await gateway.idle()
        assert gateway.scratch() == []
        assert (await gateway.client.get("/tmp/upload")).status_code == 404

    async def test_a_client_that_leaves_frees_its_place(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pause=60)
        asking = asyncio.create_task(ask(gateway))
        async with asyncio.timeout(10):
            while not engine.seen.running:
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        await gateway.idle(5)
        assert repr(gateway.state["transcribe"].gate) == "<asr: 0/4 running, 0/32 waiting>"

    async def test_other_methods_are_refused_in_this_familys_shape(self, gateway: Gateway) -> None:
        answer = await gateway.client.get(PATH)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert set(answer.json()) == {"task_id", "result", "status", "message"}


async def test_w16_a_slow_address_stalls_nobody(tmp_path: Path, engine: ScriptedEngine) -> None:
    """W16: downloads, decoding and ITN leave the event loop alone: others are served while an address is slow."""
    async with elsewhere() as host, running(tmp_path, engine, fetch_allow="127.0.0.0/8") as gateway:
        await ready(gateway)
        host.answers["/slow"] = [60.0]
        slow = asyncio.create_task(ask(gateway, b"", audio_address=host.url("/slow")))
        for _ in range(3):
            done(await ask(gateway, enable_inverse_text_normalization="true"))
        assert not slow.done()
        slow.cancel()
        await asyncio.wait([slow])
        await gateway.idle(5)
