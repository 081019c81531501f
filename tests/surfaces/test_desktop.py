"""The desktop voice client's contract, each row of it as the shipped client does it."""

import asyncio
import contextlib
import re
from collections import Counter
from typing import Any

import httpx
import pytest

from engines.scripted import End, Script, ScriptedEngine
from gateway.verbs import State
from gateway.wire import wav
from gateway.wire.engine_health import Report
from tests.conftest import Gateway, ready, running, speech
from tests.surfaces.conftest import Desktop, Shown

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS = "00000000-0000-4000-8000-000000000000"


def paths(engine: ScriptedEngine) -> list[str]:
    return [path for path, _ in engine.seen.asked]


class TestRows:
    async def test_health_says_ok(self, desktop: Desktop) -> None:
        assert await desktop.health() == "ok"

    async def test_a_new_device_has_no_voices(self, desktop: Desktop) -> None:
        assert await desktop.voices() == []

    async def test_a_voice_is_trained_listed_read_and_spoken_with(self, desktop: Desktop) -> None:
        voice = await desktop.train("安")
        listed = await desktop.voices()
        assert [(one["id"], one["name"], one["status"]) for one in listed] == [(voice, "安", "ready")]
        assert await desktop.voice(voice) == listed[0]
        spoken = await desktop.download(await desktop.tts(voice))
        assert wav.read_header(spoken[:100], len(spoken)) == wav.Header(24000, 44, 24000)

    async def test_a_voice_is_ready_when_its_training_is_answered(self, desktop: Desktop) -> None:
        """The client polls until `status` is ready or failed; there is nothing to wait for."""
        assert (await desktop.voice(await desktop.train()))["status"] == "ready"

    async def test_the_fields_of_a_voice_are_the_ones_that_the_client_reads(self, desktop: Desktop) -> None:
        found = await desktop.voice(await desktop.train(prompt_text="words"))
        assert {"id", "name", "status", "createdAt", "updatedAt", "promptText"} <= found.keys()
        assert found["promptText"] == "words"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", found["createdAt"])

    async def test_the_address_of_the_audio_is_relative_and_needs_no_header(self, desktop: Desktop) -> None:
        url = await desktop.tts(await desktop.train())
        assert re.fullmatch(r"/files/[A-Za-z0-9_-]{32}\.wav", url)
        assert (await desktop.download(url))[:4] == b"RIFF"

    async def test_a_text_of_5000_characters_is_spoken(self, desktop: Desktop, engine: ScriptedEngine) -> None:
        text = "你好，世界。" * 833 + "好。"
        assert len(text) == 5000
        assert await desktop.download(await desktop.tts(await desktop.train(), text))
        assert text.encode() in engine.seen.asked[0][1]

    async def test_an_upload_of_5_mb_is_taken(self, desktop: Desktop) -> None:
        assert await desktop.train(audio=speech(165))

    @pytest.mark.parametrize(
        "name", ["Ann", "a" * 200, "安 的 声音", "../../etc", "<script>", "'; drop table voices;--", "😀"]
    )
    async def test_a_name_is_kept_as_it_is(self, desktop: Desktop, name: str) -> None:
        assert (await desktop.voice(await desktop.train(name)))["name"] == name

    @pytest.mark.parametrize("filename", ["../../../x", "C:\\a.wav", "安.m4a", "x" * 1000, "", "a\tb"])
    async def test_a_file_may_be_called_anything(self, desktop: Desktop, gateway: Gateway, filename: str) -> None:
        assert await desktop.train(filename=filename)
        called = {"x", "x" * 1000, "a.wav", "C:\\a.wav", "安.m4a", "a\tb"}
        assert not [path for path in gateway.settings.data_dir.parent.rglob("*") if path.name in called]


class TestErrors:
    @pytest.mark.parametrize(
        ("ask", "says"),
        [
            ({}, "device_id: Field required"),
            ({"device_id": "d", "voice_id": NOBODYS}, "text: Field required"),
            ({"device_id": "", "voice_id": NOBODYS, "text": "x"}, "device_id: "),
            ({"device_id": "d", "voice_id": "", "text": "x"}, "voice_id: "),
            ({"device_id": "d", "voice_id": 5, "text": "x"}, "voice_id: "),
            ({"device_id": "d", "voice_id": NOBODYS, "text": ["x"]}, "text: "),
            ({"device_id": "d", "voice_id": NOBODYS, "text": None}, "text: "),
            ({"device_id": "d", "voice_id": NOBODYS, "text": "x", "mode": "instruct2"}, "mode: "),
            ({"device_id": "d", "voice_id": NOBODYS, "text": "x", "mode": "../sft"}, "mode: "),
            ([], "object"),
            (None, "Invalid JSON"),
        ],
    )
    async def test_a_wrong_request_says_what_is_wrong(self, gateway: Gateway, ask: Any, says: str) -> None:
        answer = await gateway.client.post("/v1/tts", json=ask)
        assert answer.status_code == 400
        assert says in answer.json()["message"]
        assert answer.json()["error"] == answer.json()["message"]

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"text": "\\ud800"}', b"[" * 100_000])
    async def test_what_is_no_json_is_refused(self, gateway: Gateway, body: bytes) -> None:
        answer = await gateway.client.post("/v1/tts", content=body)
        assert answer.status_code == 400
        assert "Invalid JSON" in answer.json()["message"]

    @pytest.mark.parametrize("text", ["", "  ", "。！？", "\0"])
    async def test_a_text_with_nothing_to_say_is_refused(self, desktop: Desktop, text: str) -> None:
        voice = await desktop.train()
        with pytest.raises(Shown, match="nothing to say"):
            await desktop.tts(voice, text)

    async def test_a_text_over_the_limit_is_refused(self, desktop: Desktop) -> None:
        voice = await desktop.train()
        with pytest.raises(Shown, match="limit is 20000"):
            await desktop.tts(voice, "a" * 20_001)
        with pytest.raises(Shown, match="more than"):
            await desktop.tts(voice, "a" * 1_000_000)

    @pytest.mark.parametrize("voice", [NOBODYS, "x", "..", "%2e%2e%2f", "a" * 200, "' or 1=1 --"])
    async def test_a_voice_that_nobody_has_is_not_found(self, desktop: Desktop, voice: str) -> None:
        with pytest.raises(Shown, match="no such voice"):
            await desktop.tts(voice)

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"name": "Ann"}, "device_id must have 1 to 200 characters"),
            ({"device_id": "d"}, "name must have 1 to 200 characters"),
            ({"device_id": "d", "name": "   "}, "name must have 1 to 200 characters"),
            ({"device_id": "d", "name": "a" * 201}, "name must have 1 to 200 characters"),
            ({"device_id": "d" * 201, "name": "Ann"}, "device_id must have 1 to 200 characters"),
            ({"device_id": "d", "name": "Ann", "prompt_text": "a" * 2001}, "prompt_text must have 0 to 2000"),
            ({"device_id": "d", "name": "a\0b"}, "name holds a character"),
        ],
    )
    async def test_a_wrong_training_says_what_is_wrong(
        self, desktop: Desktop, fields: dict[str, str], says: str
    ) -> None:
        answer = await desktop.upload(fields, speech())
        assert answer.status_code == 400
        assert says in answer.json()["message"]

    @pytest.mark.parametrize(
        ("audio", "says"),
        [(b"", "empty"), (b"not audio" * 100, "cannot be decoded"), (wav.header(16000, 100) + bytes(200), "shorter")],
    )
    async def test_audio_that_cannot_be_used_is_refused_in_words(
        self, desktop: Desktop, gateway: Gateway, audio: bytes, says: str
    ) -> None:
        with pytest.raises(Shown, match=says):
            await desktop.train(audio=audio)
        assert await desktop.voices() == []

    async def test_a_training_without_a_file_is_refused(self, gateway: Gateway, device: str) -> None:
        form = {"device_id": (None, device), "name": (None, "Ann")}
        answer = await gateway.client.post("/v1/voices/train", files=form)
        assert (answer.status_code, answer.json()["message"]) == (400, "no file in the field audio")

    async def test_a_path_that_nobody_serves_is_told_in_the_same_shape(self, gateway: Gateway) -> None:
        for method, path, status in (
            ("GET", "/v1/nothing", 404),
            ("GET", "/v1/voices/", 404),
            ("GET", "/v1/tts", 405),
            ("DELETE", "/health", 405),
            ("POST", "/v1/voices", 405),
        ):
            answer = await gateway.client.request(method, path)
            assert (answer.status_code, bool(answer.json()["message"])) == (status, True), path
            assert ("allow" in answer.headers) == (status == 405)

    async def test_a_bug_of_ours_is_told_in_the_same_shape_and_tells_nothing(
        self, gateway: Gateway, desktop: Desktop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fails(device_id: str) -> None:
            raise KeyError("secret")

        monkeypatch.setattr(gateway.state["voices"], "list", fails)
        with pytest.raises(Shown, match="the gateway failed on this request"):
            await desktop.voices()


class TestEngine:
    async def test_while_it_loads_the_client_is_told_to_come_back(
        self, gateway: Gateway, engine: ScriptedEngine, desktop: Desktop
    ) -> None:
        voice = await desktop.train()
        engine.script = Script(health=Report("loading", reason="reading 2 of 5 files"))
        await becomes(gateway, State.LOADING)
        ask = {"device_id": desktop.device, "voice_id": voice, "text": "Hello."}
        answer = await gateway.client.post("/v1/tts", json=ask)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) == 10
        assert "reading 2 of 5 files" in answer.json()["message"]
        assert await desktop.voices(), "voices need no engine"
        assert await desktop.train("Bob")
        assert not engine.seen.asked
        engine.script = Script()
        await becomes(gateway, State.READY)
        assert await desktop.tts(voice, "Hello.")

    async def test_one_that_is_busy_is_a_503_with_its_own_time(
        self, gateway: Gateway, engine: ScriptedEngine, desktop: Desktop
    ) -> None:
        voice = await desktop.train()
        engine.script = Script(status=503, error="no memory left")
        ask = {"device_id": desktop.device, "voice_id": voice, "text": "Hello."}
        answer = await gateway.client.post("/v1/tts", json=ask)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")

    @pytest.mark.parametrize(
        "script", [Script(status=500, error="CUDA"), Script(end=End.DIE), Script(pieces=0), Script(piece=b"odd")]
    )
    async def test_one_that_breaks_is_a_502_in_words(
        self, gateway: Gateway, engine: ScriptedEngine, desktop: Desktop, script: Script
    ) -> None:
        voice = await desktop.train()
        engine.script = script if script.piece != b"odd" else Script(piece=b"odd", pieces=1)
        answer = await gateway.client.post(
            "/v1/tts", json={"device_id": desktop.device, "voice_id": voice, "text": "Hello."}
        )
        assert answer.status_code == 502
        assert "engine" in answer.json()["message"]


async def becomes(gateway: Gateway, state: State) -> None:
    async with asyncio.timeout(3):
        while gateway.state["speak"].health().state is not state:
            await asyncio.sleep(0.01)


class TestModes:
    @pytest.mark.parametrize(
        ("trained", "asked", "path"),
        [
            ({}, {}, "/inference_cross_lingual"),
            ({}, {"mode": ""}, "/inference_cross_lingual"),
            ({}, {"mode": "cross_lingual"}, "/inference_cross_lingual"),
            ({"prompt_text": "words"}, {}, "/inference_zero_shot"),
            ({"prompt_text": "words"}, {"mode": "zero_shot"}, "/inference_zero_shot"),
            ({"prompt_text": "words"}, {"mode": "cross_lingual"}, "/inference_cross_lingual"),
            ({}, {"prompt_text": "words"}, "/inference_zero_shot"),
            ({}, {"mode": "zero_shot", "prompt_text": "words"}, "/inference_zero_shot"),
            ({"prompt_text": "old"}, {"prompt_text": "words"}, "/inference_zero_shot"),
        ],
    )
    async def test_known_words_make_it_zero_shot_unless_told_otherwise(
        self,
        desktop: Desktop,
        engine: ScriptedEngine,
        trained: dict[str, str],
        asked: dict[str, str],
        path: str,
    ) -> None:
        await desktop.tts(await desktop.train(**trained), **asked)
        assert paths(engine) == [path]
        assert (b"\r\n\r\nwords\r\n" in engine.seen.asked[0][1]) == (path == "/inference_zero_shot")

    async def test_zero_shot_needs_words(self, desktop: Desktop, engine: ScriptedEngine) -> None:
        voice = await desktop.train()
        with pytest.raises(Shown, match="needs prompt_text"):
            await desktop.tts(voice, mode="zero_shot")
        assert not engine.seen.asked


class TestTenants:
    async def test_a_voice_of_another_device_behaves_as_one_that_does_not_exist(
        self, gateway: Gateway, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        mine = await desktop.train("mine")
        other = f"{desktop.device}-other"
        tts = {"device_id": other, "voice_id": mine, "text": "Hello."}
        asked = [
            ("GET", f"/v1/voices/{mine}?device_id={other}", None),
            ("POST", "/v1/tts", tts),
            ("PATCH", f"/v1/voices/{mine}", {"device_id": other, "name": "stolen"}),
            ("DELETE", f"/v1/voices/{mine}?device_id={other}", None),
            ("POST", "/api/synthesize", {"text": "Hello.", "speaker_id": mine, "device_id": other}),
        ]
        for method, path, body in asked:
            theirs = await gateway.client.request(method, path, json=body)
            body = {**body, "voice_id": NOBODYS, "speaker_id": NOBODYS} if body else None
            nobodys = await gateway.client.request(method, path.replace(mine, NOBODYS), json=body)
            assert theirs.status_code == nobodys.status_code == 404
            assert theirs.content == nobodys.content
        assert await Desktop(gateway.client, other).voices() == []
        assert not engine.seen.asked
        assert (await desktop.voice(mine))["name"] == "mine"

    async def test_the_same_recording_of_two_devices_is_two_voices(self, gateway: Gateway, desktop: Desktop) -> None:
        other = Desktop(gateway.client, f"{desktop.device}-other")
        mine, theirs = await desktop.train(), await other.train()
        assert mine != theirs
        await gateway.client.delete(f"/v1/voices/{mine}?device_id={desktop.device}")
        assert await other.tts(theirs), "their recording is still there"

    @pytest.mark.parametrize("device", ["a/../b", "a%00b", "a b", "设备", "*", "%25", "a'--"])
    async def test_a_device_may_be_called_anything_and_means_itself_alone(self, gateway: Gateway, device: str) -> None:
        name = device.replace("%00", "\\0").replace("%25", "%")
        form = {"device_id": name, "name": "Ann"}
        made = await gateway.client.post("/v1/voices/train", data=form, files={"audio": speech()})
        assert made.status_code == 200
        listed = await gateway.client.get("/v1/voices", params={"device_id": name})
        assert len(listed.json()["data"]) == 1

    async def test_a_device_that_cannot_be_stored_is_refused(self, gateway: Gateway) -> None:
        for path in ("/v1/voices", f"/v1/voices/{NOBODYS}"):
            assert (await gateway.client.get(f"{path}?device_id=a%00b")).status_code == 400

    @pytest.mark.parametrize("query", ["", "?device_id=", f"?device_id={'a' * 201}"])
    async def test_without_a_device_there_is_nothing(self, gateway: Gateway, query: str) -> None:
        answer = await gateway.client.get(f"/v1/voices{query}")
        assert answer.status_code == 400
        assert "device_id" in answer.json()["message"]


class TestRepeats:
    async def test_the_same_training_is_the_same_voice(self, desktop: Desktop) -> None:
        assert await desktop.train() == await desktop.train()
        assert len(await desktop.voices()) == 1

    async def test_another_name_or_recording_is_another_voice(self, desktop: Desktop) -> None:
        first = await desktop.train("Ann")
        assert len({first, await desktop.train("Bob"), await desktop.train("Ann", speech(4))}) == 3

    async def test_the_same_training_at_the_same_time_is_the_same_voice(self, desktop: Desktop) -> None:
        audio = speech(2.5)
        assert len(set(await asyncio.gather(*(desktop.train(audio=audio) for _ in range(4))))) == 1
        assert len(await desktop.voices()) == 1

    async def test_a_training_repeated_after_a_hang_up_is_one_voice(self, gateway: Gateway, desktop: Desktop) -> None:
        audio = speech(2.2)
        impatient = Desktop(httpx.AsyncClient(base_url=gateway.url, timeout=0.03), desktop.device)
        with contextlib.suppress(httpx.TimeoutException):
            await impatient.train(audio=audio)
        await impatient.client.aclose()
        assert await desktop.train(audio=audio) == await desktop.train(audio=audio)
        assert len(await desktop.voices()) == 1

    async def test_the_same_text_again_is_the_same_file_and_no_work(
        self, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        voice = await desktop.train()
        assert await desktop.tts(voice) == await desktop.tts(voice)
        assert len(engine.seen.asked) == 1

    async def test_another_text_voice_or_mode_is_another_synthesis(
        self, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        ann, bob = await desktop.train("Ann"), await desktop.train("Bob")
        urls = [
            await desktop.tts(ann, "One."),
            await desktop.tts(ann, "Two."),
            await desktop.tts(bob, "One."),
            await desktop.tts(ann, "One.", prompt_text="words"),
            await desktop.tts(ann, "One.", prompt_text="other words"),
        ]
        assert len(set(urls)) == len(engine.seen.asked) == 5

    async def test_the_same_text_at_the_same_time_is_one_synthesis(
        self, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        voice = await desktop.train()
        engine.script = Script(pause=0.01)
        assert len(set(await asyncio.gather(*(desktop.tts(voice) for _ in range(6))))) == 1
        assert len(engine.seen.asked) == 1

    async def test_a_client_that_asks_again_after_a_hang_up_gets_the_running_synthesis(
        self, gateway: Gateway, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        voice = await desktop.train()
        engine.script = Script(pause=0.05)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=0.2) as client:
            impatient = asyncio.create_task(Desktop(client, desktop.device).tts(voice))
            await asyncio.sleep(0.1)
            url = await desktop.tts(voice)
            with pytest.raises(httpx.ReadTimeout):
                await impatient
        assert len(await desktop.download(url)) == 44 + 10 * 4800
        assert Counter(paths(engine)) == {"/inference_cross_lingual": 1}

    async def test_a_hang_up_with_nobody_else_waiting_ends_the_synthesis_and_the_next_one_begins_anew(
        self, gateway: Gateway, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        voice = await desktop.train()
        engine.script = Script(pieces=1000, pause=0.05)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=0.2) as client:
            with pytest.raises(httpx.ReadTimeout):
                await Desktop(client, desktop.device).tts(voice)
        await gateway.idle()
        engine.script = Script()
        assert await desktop.tts(voice)
        assert (engine.seen.abandoned, engine.seen.finished) == (1, 1)

    async def test_a_failure_is_not_remembered(self, desktop: Desktop, engine: ScriptedEngine) -> None:
        voice = await desktop.train()
        engine.script = Script(end=End.DIE)
        with pytest.raises(Shown):
            await desktop.tts(voice)
        engine.script = Script()
        assert await desktop.tts(voice) == await desktop.tts(voice)
        assert engine.seen.finished == 1

    async def test_a_failure_of_a_shared_synthesis_is_told_to_all_who_wait(
        self, desktop: Desktop, engine: ScriptedEngine
    ) -> None:
        voice = await desktop.train()
        engine.script = Script(pause=0.02, end=End.DIE)
        answers = await asyncio.gather(*(desktop.tts(voice) for _ in range(4)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Shown] * 4
        assert len(engine.seen.asked) == 1

    async def test_after_its_window_or_its_file_a_text_is_spoken_anew(self, tmp_path: Any) -> None:
        async with (
            ScriptedEngine() as engine,
            running(tmp_path, engine, repeat_window=0.3, file_ttl=0.15) as gateway,
        ):
            desktop = Desktop((await ready(gateway)).client, "d")
            voice = await desktop.train()
            first = await desktop.tts(voice)
            await asyncio.sleep(0.2)
            second = await desktop.tts(voice)
            assert first != second
            with pytest.raises(Shown, match="404"):
                await desktop.download(first)
            assert await desktop.download(second)


class TestChanges:
    async def test_a_voice_that_was_deleted_is_gone(self, gateway: Gateway, desktop: Desktop) -> None:
        voice = await desktop.train()
        path = f"/v1/voices/{voice}?device_id={desktop.device}"
        assert (await gateway.client.delete(path)).status_code == 204
        for again in (desktop.voice(voice), desktop.tts(voice)):
            with pytest.raises(Shown, match="no such voice"):
                await again
        assert (await gateway.client.delete(path)).status_code == 404
        assert await desktop.voices() == []

    async def test_a_text_spoken_before_is_not_given_out_after_its_voice_is_deleted(
        self, gateway: Gateway, desktop: Desktop
    ) -> None:
        voice = await desktop.train()
        await desktop.tts(voice)
        await gateway.client.delete(f"/v1/voices/{voice}?device_id={desktop.device}")
        with pytest.raises(Shown, match="no such voice"):
            await desktop.tts(voice)

    async def test_a_voice_is_renamed(self, gateway: Gateway, desktop: Desktop) -> None:
        voice = await desktop.train("Ann")
        answer = await gateway.client.patch(f"/v1/voices/{voice}", json={"device_id": desktop.device, "name": "Bob"})
        assert answer.json()["data"]["name"] == "Bob"
        assert (await desktop.voice(voice))["name"] == "Bob"

    @pytest.mark.parametrize("name", ["", "   ", "a" * 201, "a\0b", None, 5])
    async def test_a_name_that_is_none_is_refused(self, gateway: Gateway, desktop: Desktop, name: Any) -> None:
        voice = await desktop.train("Ann")
        answer = await gateway.client.patch(f"/v1/voices/{voice}", json={"device_id": desktop.device, "name": name})
        assert answer.status_code == 400
        assert (await desktop.voice(voice))["name"] == "Ann"
