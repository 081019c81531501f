"""Asynchronous synthesis as FunSpeech's clients ask for it: accepted, done whatever happens, told once."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text as sql

from engines.scripted import End, Script, ScriptedEngine, Seen
from gateway import webhooks
from gateway.caller import Right
from gateway.keys import Limits
from gateway.wire import nls_async as wire
from tests.conftest import Gateway, ready, register, running
from tests.elsewhere import Elsewhere, elsewhere
from tests.keyring import issue, revoke
from tests.sound import cents, decoded, described, hertz, samples, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "whsec_" + base64.b64encode(b"a secret of the tests").decode()
PATH = wire.PATH
TEXT = "第一句话。第二句话。"
HEADER = {"appkey": "app", "token": "a-token-of-tests"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, ScriptedEngine]]:
    settings = {
        "fetch_allow": "127.0.0.1",
        "webhook_secret": SECRET,
        "text_max_chars": 100,
        "jobs_slots": 3,
        "jobs_attempts": 2,
    }
    folder = tmp_path_factory.mktemp("gateway")
    async with ScriptedEngine() as engine, running(folder, engine, **settings) as gateway:
        yield gateway, engine


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: tuple[Gateway, ScriptedEngine]) -> AsyncIterator[Gateway]:
    gateway, engine = shared
    engine.script, engine.seen = Script(piece=tone(24000, 0.1)), Seen()
    yield await ready(gateway)
    await gateway.idle(5)


@pytest_asyncio.fixture(loop_scope="module")
async def host() -> AsyncIterator[Elsewhere]:
    async with elsewhere() as host:
        host.gives(b"", "/hook")
        yield host


@pytest.fixture
def engine(gateway: Gateway, shared: tuple[Gateway, ScriptedEngine]) -> ScriptedEngine:
    return shared[1]


def body(text: str = TEXT, *, notify: str | None = None, **request: Any) -> dict[str, Any]:
    wish = {"voice": "中文女", "text": text} | request
    payload = {"tts_request": wish, "enable_notify": notify is not None, "notify_url": notify}
    return {"payload": payload, "context": {"device_id": None}, "header": HEADER}


async def submit(gateway: Gateway, text: str = TEXT, **more: Any) -> str:
    answer = await gateway.client.post(PATH, json=body(text, **more))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


async def ask(gateway: Gateway, task_id: str) -> dict[str, Any]:
    answer = await gateway.client.get(PATH, params=HEADER | {"task_id": task_id})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["status"] == 200 and len(found["request_id"]) == 32
    return found


async def done(gateway: Gateway, task_id: str, seconds: float = 10) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (found := await ask(gateway, task_id))["error_message"] == "RUNNING":
            assert found["data"]["audio_address"] is None
            await asyncio.sleep(0.02)
    return found


async def audio_of(gateway: Gateway, found: dict[str, Any]) -> httpx.Response:
    answer = await gateway.client.get(found["data"]["audio_address"])
    assert answer.status_code == 200
    return answer


class TestShapes:
    async def test_an_accepted_task_has_funspeechs_shape(self, gateway: Gateway) -> None:
        answer = (await gateway.client.post(PATH, json=body())).json()
        request_id, task_id = answer.pop("request_id"), answer["data"].pop("task_id")
        assert answer == {
            "status": 200,
            "error_code": 20000000,
            "error_message": "SUCCESS",
            "data": {"audio_address": None, "notify_custom": None, "sentences": None},
        }
        assert {len(request_id), len(task_id)} == {32} and int(task_id, 16)
        await done(gateway, task_id)

    async def test_a_task_under_way_is_running(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script.pause = 0.05
        task_id = await submit(gateway)
        found = await ask(gateway, task_id)
        assert (found["error_code"], found["error_message"]) == (20000000, "RUNNING")
        assert found["data"] == {"task_id": task_id, "audio_address": None, "notify_custom": None, "sentences": None}
        engine.script.pause = 0
        await done(gateway, task_id)

    async def test_a_finished_task_has_an_address_and_times_as_texts(self, gateway: Gateway) -> None:
        """W4: Chinese text with subtitles, which are on by default, succeeds."""
        task_id = await submit(gateway)
        found = await done(gateway, task_id)
        assert (found["error_code"], found["error_message"]) == (20000000, "SUCCESS")
        data = found["data"]
        assert data["sentences"] == [
            {"text": "第一句话。", "begin_time": "0", "end_time": "1000"},
            {"text": "第二句话。", "begin_time": "1000", "end_time": "2000"},
        ]
        assert data["audio_address"].startswith(f"http://127.0.0.1:{gateway.port}/files/")
        assert data["notify_custom"] is None and "notify_status" not in data
        assert (await done(gateway, task_id))["data"] == data, "it can be asked for again"

    async def test_subtitles_can_be_left_out(self, gateway: Gateway) -> None:
        found = await done(gateway, await submit(gateway, enable_subtitle=False))
        assert found["data"]["sentences"] is None and found["data"]["audio_address"]

    async def test_an_error_names_the_path(self, gateway: Gateway) -> None:
        answer = await gateway.client.get(PATH, params=HEADER | {"task_id": "0" * 32})
        found = answer.json()
        assert answer.status_code == 400 and len(found.pop("request_id")) == 32
        reason = found.pop("error_message")
        assert "no such task" in reason
        assert found == {"error_code": 40000003, "url": PATH, "status": 400}


class TestAudio:
    @pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 48000])
    async def test_a_wav_has_the_rate_that_was_asked_for(self, gateway: Gateway, rate: int) -> None:
        answer = await audio_of(gateway, await done(gateway, await submit(gateway, sample_rate=rate)))
        sound = decoded(answer.content, rate)
        assert f"{rate} Hz" in described(answer.content) and answer.headers["content-type"] == "audio/wav"
        assert len(sound) == pytest.approx(2 * rate, abs=rate * 0.01)
        assert cents(hertz(sound[: rate - rate // 8], rate), 440) < 5

    async def test_the_usual_is_a_wav_of_16000_hz(self, gateway: Gateway) -> None:
        answer = await audio_of(gateway, await done(gateway, await submit(gateway)))
        assert "pcm_s16le" in described(answer.content) and "16000 Hz" in described(answer.content)

    async def test_pcm_is_the_sound_and_nothing_else(self, gateway: Gateway) -> None:
        answer = await audio_of(gateway, await done(gateway, await submit(gateway, format="pcm", sample_rate=24000)))
        assert answer.headers["content-type"] == "audio/pcm"
        assert len(answer.content) == 2 * 2 * 24000
        assert cents(hertz(samples(answer.content)[:20000], 24000), 440) < 5

    @pytest.mark.parametrize("form, codec", [("mp3", "mp3"), ("opus", "opus"), ("aac", "aac"), ("flac", "flac")])
    async def test_packed_formats_are_what_they_say(self, gateway: Gateway, form: str, codec: str) -> None:
        answer = await audio_of(gateway, await done(gateway, await submit(gateway, format=form, sample_rate=24000)))
        assert codec in described(answer.content)
        assert len(decoded(answer.content, 24000)) == pytest.approx(48000, rel=0.06)

    async def test_volume_and_pitch_act(self, gateway: Gateway) -> None:
        given = {"format": "pcm", "sample_rate": 24000}
        plain = await audio_of(gateway, await done(gateway, await submit(gateway, **given)))
        low = await audio_of(gateway, await done(gateway, await submit(gateway, volume=25, pitch_rate=-500, **given)))
        sound, changed = samples(plain.content), samples(low.content)
        assert abs(changed[2000:]).max() == pytest.approx(abs(sound).max() / 2, rel=0.1)
        assert hertz(changed[4000:20000], 24000) == pytest.approx(220, rel=0.02)

    async def test_two_that_ask_at_once_get_files_of_their_own(self, gateway: Gateway) -> None:
        ids = await asyncio.gather(*(submit(gateway) for _ in range(6)))
        found = [await done(gateway, one) for one in ids]
        assert len({one["data"]["audio_address"] for one in found}) == 6

    async def test_a_registered_voice_speaks(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        voice = await register(gateway, device="reader", name="Ann")
        ask_body = body(TEXT, voice=voice)
        ask_body["context"] = {"device_id": "reader"}
        answer = await gateway.client.post(PATH, json=ask_body)
        await done(gateway, answer.json()["data"]["task_id"])
        assert any("zero_shot" in path or "cross" in path for path, _ in engine.seen.asked)


class TestAddress:
    async def test_it_is_at_the_host_that_was_asked(self, gateway: Gateway) -> None:
        answer = await gateway.client.post(PATH, json=body(), headers={"host": "speech.example:8443"})
        found = await done(gateway, answer.json()["data"]["task_id"])
        assert found["data"]["audio_address"].startswith("http://speech.example:8443/files/")

    async def test_who_is_not_trusted_does_not_say_where_it_is(self, gateway: Gateway) -> None:
        said = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
        answer = await gateway.client.post(PATH, json=body(), headers=said)
        found = await done(gateway, answer.json()["data"]["task_id"])
        assert found["data"]["audio_address"].startswith(f"http://127.0.0.1:{gateway.port}/files/")


BAD: list[tuple[dict[str, Any], str]] = [
    (body(""), "text"),
    (body("   "), "nothing to say"),
    (body("😀"), "nothing to say"),
    (body(voice=""), "voice"),
    (body(voice="nobody"), "no such voice"),
    (body(format="amr"), "cannot be written"),
    (body(format="xyz"), "format"),
    (body(sample_rate=12345), "sample_rate"),
    (body(sample_rate="high"), "sample_rate"),
    (body(volume="loud"), "volume"),
    (body(prompt="a" * 501), "prompt"),
    ({"payload": {"tts_request": {"text": "a"}}, "header": HEADER}, "voice"),
    ({"payload": {}, "header": HEADER}, "tts_request"),
    ({"header": HEADER}, "payload"),
    (body(notify=""), "notify_url"),
    (body(notify="ftp://127.0.0.1/hook"), "http"),
    (body(notify="http://10.0.0.1/hook"), "not public"),
    (body(notify="http://169.254.169.254/latest"), "not public"),
    (body(notify="http://me:secret@127.0.0.1/"), "password"),
]


class TestBadInput:
    @pytest.mark.parametrize("sent, why", BAD)
    async def test_what_cannot_be_done_is_refused_at_once(
        self, gateway: Gateway, sent: dict[str, Any], why: str
    ) -> None:
        answer = await gateway.client.post(PATH, json=sent)
        found = answer.json()
        assert (answer.status_code, found["error_code"], found["url"]) == (400, 40000003, PATH), found
        assert why in found["error_message"]

    @pytest.mark.parametrize("sent", [b"", b"{", b"null", b"[]", b"\xff", b'{"payload": 1}'])
    async def test_what_is_no_request_is_refused(self, gateway: Gateway, sent: bytes) -> None:
        answer = await gateway.client.post(PATH, content=sent)
        assert (answer.status_code, answer.json()["error_code"]) == (400, 40000003)

    async def test_a_text_at_the_limit_and_one_over(self, gateway: Gateway) -> None:
        await done(gateway, await submit(gateway, "字" * 100))
        answer = await gateway.client.post(PATH, json=body("字" * 101))
        assert answer.status_code == 413 and answer.json()["status"] == 413

    async def test_numbers_in_quotes_and_nulls_are_read_as_clients_mean_them(self, gateway: Gateway) -> None:
        given = {"sample_rate": "8000", "format": None, "enable_subtitle": None, "volume": None}
        found = await done(gateway, await submit(gateway, **given))
        assert "8000 Hz" in described((await audio_of(gateway, found)).content) and found["data"]["sentences"]

    @pytest.mark.parametrize("task_id", ["", "nobody", "0" * 32, "x" * 5000, "%00", "../../etc/passwd"])
    async def test_an_unknown_task_is_a_400(self, gateway: Gateway, task_id: str) -> None:
        answer = await gateway.client.get(PATH, params=HEADER | {"task_id": task_id})
        assert (answer.status_code, answer.json()["error_code"]) == (400, 40000003)

    async def test_a_query_without_a_task_is_a_400(self, gateway: Gateway) -> None:
        assert (await gateway.client.get(PATH)).status_code == 400

    async def test_other_methods_are_refused(self, gateway: Gateway) -> None:
        answer = await gateway.client.delete(PATH)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


class TestEngines:
    async def test_a_busy_engine_is_waited_for(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(status=503, error="overloaded")
        task_id = await submit(gateway)
        async with asyncio.timeout(5):
            while not engine.seen.asked:
                await asyncio.sleep(0.01)
        assert (await ask(gateway, task_id))["error_message"] == "RUNNING"
        engine.script = Script(piece=tone(24000, 0.1))
        assert (await done(gateway, task_id))["error_message"] == "SUCCESS"

    async def test_what_the_engine_refuses_fails_at_once(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(status=400, error="not this text")
        found = await done(gateway, await submit(gateway, "One sentence."))
        assert (found["error_code"], found["data"]["audio_address"]) == (50000000, None)
        assert "not this text" in found["error_message"]
        assert len(engine.seen.asked) == 1

    async def test_an_engine_that_dies_on_it_each_time_ends_it(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pieces=2, end=End.DIE)
        found = await done(gateway, await submit(gateway, "One sentence."))
        assert found["error_code"] == 50000000 and len(engine.seen.asked) == 2
        job = await gateway.state["jobs"].get(found["data"]["task_id"])
        assert job is not None and not await gateway.state["downloads"].exists(job.payload["file"])
        assert gateway.scratch() == []


class TestWebhooks:
    async def test_the_end_is_told_signed_in_the_shape_of_a_query(self, gateway: Gateway, host: Elsewhere) -> None:
        task_id = await submit(gateway, notify=host.url("/hook"))
        found = await told(gateway, task_id)
        _, headers, sent = host.asked[0]
        said = json.loads(sent)
        assert found["data"].pop("notify_status") == "DELIVERED"
        assert said["data"] == found["data"] and said["error_message"] == "SUCCESS"
        assert said["data"]["notify_custom"] == host.url("/hook") and said["data"]["audio_address"]
        assert verified(SECRET, headers, sent)
        assert not verified(SECRET, headers, sent + b" ") and not verified("another", headers, sent)
        assert not verified(SECRET, headers | {"webhook-timestamp": "1"}, sent)

    async def test_a_failure_is_told_too(self, gateway: Gateway, engine: ScriptedEngine, host: Elsewhere) -> None:
        engine.script = Script(status=400, error="not this text")
        task_id = await submit(gateway, notify=host.url("/hook"))
        assert (await told(gateway, task_id))["error_code"] == 50000000
        said = json.loads(host.asked[0][2])
        assert (said["error_code"], said["status"], said["url"]) == (50000000, 500, host.url("/hook"))
        assert "not this text" in said["error_message"] and said["data"]["task_id"] == task_id

    async def test_only_2xx_counts_and_the_call_keeps_its_id(
        self, gateway: Gateway, host: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = gateway.state["jobs"]._runner._kinds[webhooks.KIND]
        monkeypatch.setattr(kind, "kind", quick(kind.kind, attempts=12))
        answers = iter([500, 302, 204])
        original = host._serve

        async def serve(reader: Any, writer: Any) -> None:
            status = next(answers)
            host.gives(b"", "/hook", status, **({"location": "/hook"} if status == 302 else {}))
            await original(reader, writer)

        monkeypatch.setattr(type(host), "_serve", lambda _, reader, writer: serve(reader, writer))
        task_id = await submit(gateway, notify=host.url("/hook"))
        assert (await told(gateway, task_id))["data"]["notify_status"] == "DELIVERED"
        assert len(host.asked) == 3 and len({headers["webhook-id"] for _, headers, _ in host.asked}) == 1

    async def test_one_that_is_never_taken_is_shown_as_failed(
        self, gateway: Gateway, host: Elsewhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = gateway.state["jobs"]._runner._kinds[webhooks.KIND]
        monkeypatch.setattr(kind, "kind", quick(kind.kind, attempts=3))
        host.gives(b"", "/hook", status=500)
        task_id = await submit(gateway, notify=host.url("/hook"))
        found = await told(gateway, task_id)
        assert (found["error_message"], found["data"]["notify_status"]) == ("SUCCESS", "FAILED")
        assert len(host.asked) == 3

    async def test_one_that_is_not_wanted_is_not_made(self, gateway: Gateway, host: Elsewhere) -> None:
        sent = body(notify=host.url("/hook"))
        sent["payload"]["enable_notify"] = False
        answer = await gateway.client.post(PATH, json=sent)
        found = await done(gateway, answer.json()["data"]["task_id"])
        assert "notify_status" not in found["data"] and not host.asked


def quick(kind: Any, **more: Any) -> Any:
    return replace(kind, first_pause=0.01, longest_pause=0.01, **more)


async def told(gateway: Gateway, task_id: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (found := await done(gateway, task_id))["data"]["notify_status"] == "PENDING":
            await asyncio.sleep(0.02)
    return found


def verified(secret: str, headers: dict[str, str], sent: bytes) -> bool:
    """As docs/jobs.md shows it."""
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + sent
    mine = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(mine, one) for one in headers["webhook-signature"].split())


class TestRetention:
    async def test_an_old_task_goes_with_its_audio(self, gateway: Gateway) -> None:
        old, new = await submit(gateway), await submit(gateway)
        gone, here = [await done(gateway, one) for one in (old, new)]
        aged = f"UPDATE jobs SET ended_at = datetime('now', '-8 days') WHERE id = '{old}'"
        await gateway.state["jobs"]._rows._database.execute(sql(aged))
        await gateway.state["jobs"].sweep()
        assert (await gateway.client.get(PATH, params=HEADER | {"task_id": old})).status_code == 400
        assert (await gateway.client.get(gone["data"]["audio_address"])).status_code == 404
        assert (await audio_of(gateway, here)).content


async def test_tasks_outlive_the_gateway_that_took_them(tmp_path: Path) -> None:
    numbers = itertools.count()
    async with ScriptedEngine(Script(piece=tone(24000, 0.1), pause=0.02)) as engine:
        async with running(tmp_path, engine) as first:
            await ready(first)
            ids = [await submit(first, f"Text number {next(numbers)}.") for _ in range(4)]
        async with running(tmp_path, engine) as second:
            for one in ids:
                assert (await done(second, one))["error_message"] == "SUCCESS"


class TestKeys:
    """The token is in the body and the address, and is looked at."""

    @pytest_asyncio.fixture(loop_scope="module")
    async def guarded(self, tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Gateway]:
        async with running(tmp_path, engine, keys="required") as guarded:
            yield guarded

    async def asked(self, gateway: Gateway, token: str | None, appkey: str = "app") -> httpx.Response:
        return await gateway.client.post(PATH, json=body() | {"header": {"appkey": appkey, "token": token}})

    async def test_a_task_is_its_tenants_and_unknown_to_others(self, guarded: Gateway) -> None:
        (_, mine), (_, other) = await issue(guarded, tenant="mine"), await issue(guarded, tenant="other")
        task_id = (await self.asked(guarded, mine)).json()["data"]["task_id"]

        async def query(token: str) -> httpx.Response:
            return await guarded.client.get(PATH, params={"appkey": "a", "token": token, "task_id": task_id})

        async with asyncio.timeout(10):
            while (found := (await query(mine)).json())["error_message"] == "RUNNING":
                await asyncio.sleep(0.02)
        assert found["error_message"] == "SUCCESS"
        assert (await query(other)).status_code == 400 and (await query(other)).json()["error_code"] == 40000003

    @pytest.mark.parametrize("token", [None, "", "a-token-of-tests", "vg-" + "x" * 40])
    async def test_a_token_that_nobody_has_is_refused(self, guarded: Gateway, token: str | None) -> None:
        await issue(guarded)
        answer = await self.asked(guarded, token)
        assert (answer.status_code, answer.json()["error_code"]) == (401, 40000001)
        params = {"task_id": "0" * 32, "appkey": "a"} | ({"token": token} if token else {})
        answer = await guarded.client.get(PATH, params=params)
        assert (answer.status_code, answer.json()["error_code"]) == (401, 40000001)
        assert not token or token not in answer.text

    async def test_a_token_in_the_header_does_as_well(self, guarded: Gateway) -> None:
        _, token = await issue(guarded)
        answer = await guarded.client.post(PATH, json={"payload": body()["payload"]}, headers={"x-nls-token": token})
        assert answer.status_code == 200

    async def test_the_appkey_is_looked_at_where_the_key_has_one(self, guarded: Gateway) -> None:
        _, token = await issue(guarded, appkey="right")
        assert (await self.asked(guarded, token, "wrong")).status_code == 401
        assert (await self.asked(guarded, token, "right")).status_code == 200

    async def test_a_key_that_is_not_for_speech_is_refused(self, guarded: Gateway) -> None:
        _, token = await issue(guarded, Right.TRANSCRIBE)
        answer = await self.asked(guarded, token)
        assert (answer.status_code, answer.json()["error_code"]) == (403, 40000001)

    async def test_what_waits_when_its_key_is_revoked_is_not_done(
        self, guarded: Gateway, engine: ScriptedEngine
    ) -> None:
        key, token = await issue(guarded, tenant="mine")
        _, second = await issue(guarded, tenant="mine")
        engine.script.status = 503
        task_id = (await self.asked(guarded, token)).json()["data"]["task_id"]
        await revoke(guarded, key)
        await guarded.state["access"].refresh()
        engine.script.status = 200
        async with asyncio.timeout(10):
            while True:
                params = {"appkey": "a", "token": second, "task_id": task_id}
                found = (await guarded.client.get(PATH, params=params)).json()
                if found["error_message"] != "RUNNING":
                    break
                await asyncio.sleep(0.05)
        assert found["error_code"] == 50000000 and "not good any more" in found["error_message"]

    async def test_a_task_costs_its_key_what_was_synthesised(self, guarded: Gateway) -> None:
        _, token = await issue(guarded, limits=Limits(day_seconds=2.0))

        async def outcome() -> dict[str, Any]:
            answer = await self.asked(guarded, token)
            task_id = answer.json()["data"]["task_id"]
            params = {"appkey": "a", "token": token, "task_id": task_id}
            async with asyncio.timeout(10):
                while (found := (await guarded.client.get(PATH, params=params)).json())["error_message"] == "RUNNING":
                    await asyncio.sleep(0.02)
            return dict(found)

        assert (await outcome())["error_message"] == "SUCCESS", "two seconds, all that it has"
        assert (await outcome())["error_code"] == 50000000
