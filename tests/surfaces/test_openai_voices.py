"""`audio/voices` and `audio/voice_consents` as OpenAI's SDK uses them, and as vLLM-Omni's clients do."""

import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from engines.scripted import ScriptedEngine
from tests.conftest import Gateway, ready, register, running, speech
from tests.surfaces.conftest import Desktop

pytestmark = pytest.mark.asyncio(loop_scope="module")
SILENCE = speech()[:44] + bytes(96000)


async def consent(sdk: AsyncOpenAI, device: str, name: str = "Ann agrees") -> str:
    """The id of a new one."""
    made = await sdk.audio.voice_consents.create(
        name=name, language="en-US", recording=("yes.wav", speech()), extra_body={"device_id": device}
    )
    return made.id


async def voice(sdk: AsyncOpenAI, device: str, name: str = "Ann") -> str:
    made = await sdk.audio.voices.create(
        name=name,
        audio_sample=("me.wav", speech(), "audio/wav"),
        consent=await consent(sdk, device),
        extra_body={"device_id": device},
    )
    return made.id


class TestVoices:
    async def test_a_voice_is_made_of_a_consent_and_a_recording_and_speaks(
        self, sdk: AsyncOpenAI, engine: ScriptedEngine, device: str
    ) -> None:
        whose: dict[str, Any] = {"extra_body": {"device_id": device}}
        agreed = await sdk.audio.voice_consents.create(name="Yes", language="zh-CN", recording=speech(), **whose)
        made = await sdk.audio.voices.create(name="Ann", audio_sample=speech(), consent=agreed.id, **whose)
        assert (made.object, made.type, made.name) == ("audio.voice", "audio_sample", "Ann")
        assert made.created_at == pytest.approx(time.time(), abs=60)
        await sdk.audio.speech.create(input="Hi.", model="gpt-4o-mini-tts", voice={"id": made.id}, **whose)
        assert engine.seen.asked[-1][0] == "/inference_cross_lingual"

    async def test_who_names_no_device_has_one_place_for_all_voices(self, sdk: AsyncOpenAI) -> None:
        agreed = await sdk.audio.voice_consents.create(name="Yes", language="en", recording=speech())
        made = await sdk.audio.voices.create(name="Shared", audio_sample=speech(), consent=agreed.id)
        await sdk.audio.speech.create(input="Hi.", model="tts-1", voice="Shared")
        await sdk.audio.voices.delete(made.id)
        with pytest.raises(openai.BadRequestError):
            await sdk.audio.speech.create(input="Hi.", model="tts-1", voice="Shared")

    async def test_it_is_the_desktop_client_s_registry(self, sdk: AsyncOpenAI, desktop: Desktop) -> None:
        made = await voice(sdk, desktop.device, name="Bob")
        assert [(one["id"], one["name"]) for one in await desktop.voices()] == [(made, "Bob")]
        trained = await desktop.train("Cleo")
        assert (await sdk.audio.voices.delete(trained, extra_query={"device_id": desktop.device})).deleted
        assert [one["id"] for one in await desktop.voices()] == [made]

    async def test_a_deleted_voice_is_gone_and_its_consent_stays(self, sdk: AsyncOpenAI, device: str) -> None:
        made, whose = await voice(sdk, device), {"device_id": device}
        gone = await sdk.audio.voices.delete(made, extra_query=whose)
        assert (gone.id, gone.deleted, gone.object) == (made, True, "audio.voice.deleted")
        with pytest.raises(openai.NotFoundError):
            await sdk.audio.voices.delete(made, extra_query=whose)
        assert len((await sdk.audio.voice_consents.list(extra_query=whose)).data) == 1

    async def test_the_words_of_a_reference_may_be_given(
        self, gateway: Gateway, sdk: AsyncOpenAI, engine: ScriptedEngine, device: str
    ) -> None:
        form = {"name": "Ann", "consent": await consent(sdk, device), "ref_text": "I am Ann.", "device_id": device}
        answer = await gateway.client.post("/v1/audio/voices", data=form, files={"audio_sample": speech()})
        assert answer.status_code == 200, answer.text
        ask = {"input": "Hi.", "voice": answer.json()["id"], "device_id": device}
        assert (await gateway.client.post("/v1/audio/speech", json=ask)).status_code == 200
        assert engine.seen.asked[-1][0] == "/inference_zero_shot"

    async def test_nobody_else_s_voice_can_be_seen(self, gateway: Gateway, sdk: AsyncOpenAI, device: str) -> None:
        made = await voice(sdk, device)
        for whose in ({}, {"device_id": "another"}):
            for method in ("GET", "DELETE"):
                answer = await gateway.client.request(method, f"/v1/audio/voices/{made}", params=whose)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "voice_not_found")

    @pytest.mark.parametrize(
        ("change", "param", "code"),
        [
            ({"consent": "cons_nobody"}, "consent", "consent_not_found"),
            ({"consent": ""}, "consent", "consent_not_found"),
            ({"name": ""}, "name", "missing_required_parameter"),
            ({"name": "a" * 201}, "name", "bad_request"),
            ({"type": "prompt"}, "type", "unsupported_type"),
        ],
    )
    async def test_what_is_wrong_is_named(
        self, gateway: Gateway, sdk: AsyncOpenAI, device: str, change: dict[str, str], param: str, code: str
    ) -> None:
        form = {"name": "Ann", "consent": await consent(sdk, device), "device_id": device} | change
        answer = await gateway.client.post("/v1/audio/voices", data=form, files={"audio_sample": speech()})
        assert answer.status_code == 400
        assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)
        await gateway.idle()

    async def test_a_recording_without_speech_is_refused_and_leaves_nothing(
        self, gateway: Gateway, sdk: AsyncOpenAI, device: str
    ) -> None:
        agreed, whose = await consent(sdk, device), {"device_id": device}
        for sample, code in ((SILENCE, "audio_silent"), (b"no audio", "audio_undecodable"), (b"", "audio_empty")):
            with pytest.raises(openai.UnprocessableEntityError) as refused:
                await sdk.audio.voices.create(
                    name="A", audio_sample=("a.wav", sample), consent=agreed, extra_body=whose
                )
            assert (refused.value.param, refused.value.code) == ("audio_sample", code)
        assert (await gateway.client.get("/v1/audio/voices", params=whose)).json()["data"] == []
        await gateway.idle()

    async def test_without_a_recording_or_a_form_it_is_refused(self, gateway: Gateway) -> None:
        answer = await gateway.client.post("/v1/audio/voices", data={"name": "A"}, files={"other": b"x"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "audio_sample")
        answer = await gateway.client.post("/v1/audio/voices", json={"name": "A", "prompt": "warm", "type": "prompt"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_multipart")


class TestOtherClients:
    async def test_the_list_has_every_name_that_speech_takes(
        self, gateway: Gateway, sdk: AsyncOpenAI, device: str
    ) -> None:
        made = await voice(sdk, device, name="Dora")
        found = (await gateway.client.get("/v1/audio/voices", params={"device_id": device})).json()
        assert {"中文女", "alloy", "cedar", made} <= set(found["voices"])
        assert [one["name"] for one in found["uploaded_voices"]] == ["Dora"]
        assert [one["id"] for one in found["data"]] == [made]
        for name in found["voices"]:
            ask = {"input": "Hi.", "voice": name, "device_id": device}
            assert (await gateway.client.post("/v1/audio/speech", json=ask)).status_code == 200

    async def test_a_voice_is_read_and_deleted_by_its_name(
        self, gateway: Gateway, sdk: AsyncOpenAI, device: str
    ) -> None:
        made, whose = await voice(sdk, device, name="Eve"), {"device_id": device}
        assert (await gateway.client.get("/v1/audio/voices/Eve", params=whose)).json()["id"] == made
        answer = await gateway.client.request("DELETE", "/v1/audio/voices/Eve", params=whose)
        assert answer.json() == {"id": made, "object": "audio.voice.deleted", "deleted": True, "success": True}

    async def test_any_word_is_a_consent_where_the_operator_says_so(
        self, tmp_path: Path, engine: ScriptedEngine
    ) -> None:
        async with running(tmp_path, engine, openai_consents=False) as gateway:
            await ready(gateway)
            form = {"name": "custom_voice_1", "consent": "user_consent_id"}
            answer = await gateway.client.post("/v1/audio/voices", data=form, files={"audio_sample": speech()})
            assert answer.status_code == 200
            ask = {"input": "Hi.", "voice": "custom_voice_1"}
            assert (await gateway.client.post("/v1/audio/speech", json=ask)).status_code == 200
            found = (await gateway.client.get("/v1/audio/voices")).json()["uploaded_voices"]
            assert found[0]["consent"] == "user_consent_id"

    async def test_the_newest_of_a_name_is_meant(self, gateway: Gateway, device: str) -> None:
        await register(gateway, device=device, name="Fay")
        newer = await register(gateway, device=device, name="Fay", audio=speech(4.0))
        found = await gateway.client.get("/v1/audio/voices/Fay", params={"device_id": device})
        assert found.json()["id"] == newer


class TestConsents:
    async def test_one_is_made_read_renamed_and_deleted(self, sdk: AsyncOpenAI, device: str) -> None:
        whose: dict[str, Any] = {"extra_query": {"device_id": device}}
        made = await consent(sdk, device, name="Gil agrees")
        found = await sdk.audio.voice_consents.retrieve(made, **whose)
        assert (found.object, found.name, found.language) == ("audio.voice_consent", "Gil agrees", "en-US")
        assert found.created_at == pytest.approx(time.time(), abs=60)
        assert (await sdk.audio.voice_consents.update(made, name=" Gil ", **whose)).name == "Gil"
        assert (await sdk.audio.voice_consents.retrieve(made, **whose)).name == "Gil"
        gone = await sdk.audio.voice_consents.delete(made, **whose)
        assert (gone.id, gone.deleted, gone.object) == (made, True, "audio.voice_consent")
        with pytest.raises(openai.NotFoundError) as missing:
            await sdk.audio.voice_consents.retrieve(made, **whose)
        assert missing.value.code == "consent_not_found"

    async def test_the_sdk_reads_them_page_by_page(self, sdk: AsyncOpenAI, device: str) -> None:
        whose: dict[str, Any] = {"extra_query": {"device_id": device}}
        made = [await consent(sdk, device, name=f"{number}") for number in range(5)]
        first = await sdk.audio.voice_consents.list(limit=2, **whose)
        assert [one.id for one in first.data] == [made[4], made[3]]
        assert first.has_next_page()
        assert [one.id async for one in first] == made[::-1]
        assert (await sdk.audio.voice_consents.list(limit=5, **whose)).has_more is False

    async def test_nobody_else_s_can_be_seen_used_or_changed(
        self, gateway: Gateway, sdk: AsyncOpenAI, device: str
    ) -> None:
        made = await consent(sdk, device)
        path = f"/v1/audio/voice_consents/{made}"
        for method, body in (("GET", None), ("POST", {"name": "mine"}), ("DELETE", None)):
            assert (await gateway.client.request(method, path, json=body)).status_code == 404
        form = {"name": "Ann", "consent": made, "device_id": "another"}
        answer = await gateway.client.post("/v1/audio/voices", data=form, files={"audio_sample": speech()})
        assert answer.json()["error"]["code"] == "consent_not_found"

    @pytest.mark.parametrize(
        ("change", "param"),
        [({"language": "english please"}, "language"), ({"language": ""}, "language"), ({"name": " "}, "name")],
    )
    async def test_what_is_wrong_is_named(self, gateway: Gateway, change: dict[str, str], param: str) -> None:
        answer = await post_consent(gateway, speech(), **change)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    async def test_a_recording_in_which_nobody_speaks_is_refused(self, gateway: Gateway) -> None:
        answer = await post_consent(gateway, SILENCE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "audio_silent")
        assert answer.json()["error"]["param"] == "recording"
        await gateway.idle()

    @pytest.mark.parametrize(("query", "param"), [("limit=0", "limit"), ("limit=101", "limit"), ("after=x", "after")])
    async def test_a_wrong_page_is_refused(self, gateway: Gateway, query: str, param: str) -> None:
        answer = await gateway.client.get(f"/v1/audio/voice_consents?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    async def test_the_largest_page_is_served(self, gateway: Gateway) -> None:
        assert (await gateway.client.get("/v1/audio/voice_consents?limit=100")).status_code == 200

    @pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": " "}, {"name": 7}])
    async def test_a_wrong_new_name_is_refused(self, gateway: Gateway, body: dict[str, Any]) -> None:
        answer = await gateway.client.post("/v1/audio/voice_consents/cons_x", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


async def post_consent(gateway: Gateway, recording: bytes, **change: str) -> httpx.Response:
    form = {"name": "Ann", "language": "en-US"} | change
    return await gateway.client.post("/v1/audio/voice_consents", data=form, files={"recording": recording})
