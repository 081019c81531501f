"""Seconds of audio are counted whoever serves them, and end what goes beyond them, in the words of its family."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from engines.scripted import Script, ScriptedEngine
from gateway.caller import Right
from gateway.database import open_database, usage
from gateway.errors import QuotaUsed, Unauthorized
from gateway.events import Audio
from gateway.keys import Limits
from gateway.metering import ConverseMeter, TranscribeMeter
from gateway.verbs import Preset, Speak
from tests.conftest import Gateway, ready, register, running, speech
from tests.keyring import bearer, issue, revoke
from tests.surfaces.talker import Stock, Talker, dial, speaks, talks, tone
from tests.surfaces.talkers import Ears, hears

TEXT = {"text": "Hello there."}
PIECE = bytes(4800)
"""0.1 s at 24 kHz; the engine gives ten of them."""


@pytest.fixture
async def gateway(tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Gateway]:
    async with running(tmp_path, engine, keys="required", keys_refresh=0.05) as gateway:
        yield await ready(gateway)


async def stored(gateway: Gateway) -> dict[str, float]:
    """By verb, as the database has it."""
    await gateway.state["access"].flush()
    async with open_database(gateway.settings) as database:
        return {row.verb: round(row.seconds, 3) for row in await database.execute(select(usage))}


class TestSpeech:
    async def test_costs_what_was_synthesised(self, gateway: Gateway) -> None:
        _, sent = await issue(gateway)
        for _ in range(2):
            answer = await gateway.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))
            assert len(answer.content) == 44 + 10 * len(PIECE)
        assert await stored(gateway) == {"speak": 2.0}

    async def test_can_be_as_long_as_the_quota(self, gateway: Gateway) -> None:
        _, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
        assert (await gateway.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))).status_code == 200
        answer = await gateway.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))
        assert (answer.status_code, answer.json()["success"]) == (429, False)
        assert int(answer.headers["retry-after"]) > 0

    async def test_one_piece_longer_is_broken_off(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pieces=11, pause=0.02)
        _, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
        received = 0
        with pytest.raises(httpx.RemoteProtocolError):
            async with gateway.client.stream("POST", "/api/synthesize", json=TEXT, headers=bearer(sent)) as answer:
                async for piece in answer.aiter_bytes():
                    received += len(piece)
        assert 0 < received <= 44 + 10 * len(PIECE)
        await gateway.idle()
        assert engine.seen.running == 0

    async def test_into_a_file_is_refused_by_status(self, gateway: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pieces=11)
        _, sent = await issue(gateway, limits=Limits(month_seconds=1.0))
        gateway.client.headers.update(bearer(sent))
        voice = await register(gateway)
        answer = await gateway.client.post("/v1/tts", json={"device_id": "device-1", "voice_id": voice, **TEXT})
        assert (answer.status_code, answer.json()["code"]) == (429, "quota_used")
        await gateway.idle()

    async def test_of_openai_ends_as_its_clients_take_for_final(self, gateway: Gateway) -> None:
        _, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
        ask = {"model": "tts-1", "input": "Hello there.", "voice": "alloy", "response_format": "wav"}
        assert (await gateway.client.post("/v1/audio/speech", json=ask, headers=bearer(sent))).status_code == 200
        answer = await gateway.client.post("/v1/audio/speech", json=ask, headers=bearer(sent))
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")

    async def test_costs_nothing_where_it_was_made_before(self, gateway: Gateway) -> None:
        _, sent = await issue(gateway)
        gateway.client.headers.update(bearer(sent))
        ask = {"device_id": "device-1", "voice_id": await register(gateway), **TEXT}
        for _ in range(2):
            assert (await gateway.client.post("/v1/tts", json=ask)).status_code == 200
        assert await stored(gateway) == {"speak": 1.0}


class TestRecognition:
    async def test_costs_the_length_of_a_recording_and_no_more_is_begun_than_is_left(
        self, gateway: Gateway, engine: ScriptedEngine
    ) -> None:
        _, sent = await issue(gateway, limits=Limits(day_seconds=5.0))
        answers = [
            await gateway.client.post("/api/transcribe", files={"audio": speech(seconds)}, headers=bearer(sent))
            for seconds in (3.0, 2.5, 2.0, 1.0)
        ]
        assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
        assert len(engine.seen.asked) == 2, "the others never reached the engine"
        assert await stored(gateway) == {"transcribe": 5.0}

    async def test_of_live_audio_ends_when_it_is_used_up(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        gateway.state["transcribe"].meter = TranscribeMeter()
        _, sent = await issue(gateway, limits=Limits(day_seconds=2.0))
        async with connect(f"ws://127.0.0.1:{gateway.port}/ws?format=json&token={sent}", proxy=None) as socket:
            told: list[dict[str, Any]] = []
            with pytest.raises(ConnectionClosed):
                for _ in range(40):
                    await socket.send(bytes(2 * 1600))
                while True:
                    told.append(json.loads(await asyncio.wait_for(socket.recv(), 5)))
        assert told[-1]["code"] == "quota_used"
        assert socket.close_code == 1013


class TestConversation:
    @pytest.mark.parametrize("packed", [False, True])
    async def test_costs_what_is_said_and_what_is_replied(self, gateway: Gateway, packed: bool) -> None:
        key, sent = await issue(gateway)
        await _talks(gateway, Talker(speaks(1.0), packed=packed))
        async with _stock(gateway, sent) as client:
            await client.speak(tone(2.0))
            await client.pause()
            await client.event("reply_done", 10, turn=1)
        found = await stored(gateway)
        assert found.keys() == {"converse"}
        assert 2.8 < found["converse"] < 3.3

    async def test_of_the_cascade_costs_nothing_for_its_parts(self, gateway: Gateway) -> None:
        _, sent = await issue(gateway, Right.CONVERSE)
        async with _stock(gateway, sent) as client:
            await client.wish(speech=True)
            await client.socket.send(b"\2What time is it?")
            await client.event("reply_done", 10, turn=1)
        assert await stored(gateway) == {"converse": 1.0}

    @pytest.mark.parametrize("packed", [False, True])
    async def test_is_told_and_ended_when_it_is_used_up(self, gateway: Gateway, packed: bool) -> None:
        _, sent = await issue(gateway, limits=Limits(day_seconds=1.5))
        talker = await _talks(gateway, Talker(speaks(3.0, pause=0.01), packed=packed))
        async with _stock(gateway, sent) as client:
            await client.speak(tone(0.5))
            await client.pause()
            code, reason = await client.closed(10)
        assert (code, "seconds of audio" in reason) == (1013, True)
        assert client.errors() == [reason]
        assert client.events()[-1]["code"] == "quota_used"
        async with asyncio.timeout(5):
            while talker.open:
                await asyncio.sleep(0.01)

    async def test_the_next_one_is_not_begun(self, gateway: Gateway) -> None:
        key, sent = await issue(gateway, limits=Limits(day_seconds=1.0))
        gateway.state["access"]._by_id[key.id].charge(Right.SPEAK, 1.0)
        talker = await _talks(gateway, Talker())
        async with _stock(gateway, sent) as client:
            await client.speak(tone(0.5))
            await client.pause()
            assert (await client.event("reply_done", 10))["status"] == "failed"
        assert talker.jobs == []

    async def test_goes_on_for_its_own_tenant_alone(self, gateway: Gateway) -> None:
        (_, ann), (_, ben), (_, other) = [await issue(gateway, tenant=name) for name in ("acme", "acme", "elsewhere")]
        talker = await _talks(gateway, Talker(token="secret-token"))
        async with _stock(gateway, ann) as client:
            await client.speak(tone(0.2))
            await client.pause()
            await client.event("reply_done", 10)
            token = client.events("session")[-1]["resume"]
        assert token.startswith("secret-token.")
        for sent, given, opens in (
            (other, token, ""),
            (other, "secret-token", ""),
            (ann, "secret-token", ""),
            (ann, token + "0", ""),
            (ben, token, "secret-token"),
        ):
            async with _stock(gateway, sent, f"?resume={given}") as client:
                await client.speak(tone(0.2))
                await client.pause()
                await client.event("reply_done", 10)
            assert talker.jobs[-1].resume == opens, given


class TestTheDatabase:
    async def test_has_what_was_used_when_the_gateway_has_stopped(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, keys_refresh=3600) as gateway:
            key, sent = await issue(await ready(gateway), limits=Limits(day_seconds=1.5))
            assert (await gateway.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))).status_code == 200
        async with running(tmp_path, engine) as again:
            await ready(again)
            account = again.state["access"]._by_id[key.id]
            assert account.used() == (pytest.approx(1.0), pytest.approx(1.0))
            assert account.key.last_used_at is not None
            answer = await again.client.post("/api/transcribe", files={"audio": speech(1.0)}, headers=bearer(sent))
            assert answer.status_code == 429

    async def test_has_it_once_whoever_is_cancelled_in_the_middle(self, gateway: Gateway) -> None:
        key, _ = await issue(gateway)
        access = gateway.state["access"]
        for _ in range(20):
            access._by_id[key.id].charge(Right.SPEAK, 1.0)
            writing = [asyncio.ensure_future(access.flush()) for _ in range(2)]
            await asyncio.sleep(0)
            writing[0].cancel()
            await asyncio.gather(*writing, return_exceptions=True)
        assert await stored(gateway) == {"speak": 20.0}

    async def test_is_what_two_gateways_agree_by(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with (
            running(tmp_path, engine, keys_refresh=0.05) as one,
            running(tmp_path, engine, keys_refresh=0.05) as two,
        ):
            key, sent = await issue(await ready(one), limits=Limits(day_seconds=2.0))
            await two.state["access"].refresh()
            await ready(two)
            for gateway in (one, two):
                answer = await gateway.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))
                assert answer.status_code == 200
            for gateway in (one, two):
                await gateway.state["access"].flush()
            statuses = []
            for gateway in (one, two):
                async with asyncio.timeout(5):
                    while (await gateway.client.get("/", headers=bearer(sent))).status_code != 200 or (
                        gateway.state["access"]._by_id[key.id].used()[0] < 2
                    ):
                        await asyncio.sleep(0.02)
                answer = await gateway.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))
                statuses.append(answer.status_code)
            assert statuses == [429, 429]


async def test_work_done_later_is_charged_to_whom_had_asked_for_it(gateway: Gateway) -> None:
    key, _ = await issue(gateway, limits=Limits(day_seconds=1.0), tenant="acme")
    access, job = gateway.state["access"], Speak("Hello.", Preset("中文女"))
    with access.on_behalf(key.id) as worker:
        assert worker.tenant == "acme"
        async with gateway.state["speak"].session(job) as events:
            assert sum([len(piece.pcm) async for piece in events if isinstance(piece, Audio)]) == 48000
        with pytest.raises(QuotaUsed):
            async with gateway.state["speak"].session(job):
                raise AssertionError("never entered")
    await revoke(gateway, key)
    await access.refresh()
    with pytest.raises(Unauthorized), access.on_behalf(key.id):
        raise AssertionError("never entered")


async def _talks(gateway: Gateway, talker: Talker) -> Talker:
    found: Talker = await talks(gateway, talker)
    gateway.state["converse"].meter = ConverseMeter(gateway.state["access"]._keys.seal)
    return found


@asynccontextmanager
async def _stock(gateway: Gateway, sent: str, query: str = "") -> AsyncIterator[Stock]:
    async with dial(gateway, f"/api/chat{query}", additional_headers=bearer(sent)) as socket:
        client = Stock(socket)
        await client.next()
        yield client
