"""Who is let in: every path and socket asks, each place for a key is read, and who may no more is shown out."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engines.scripted import Script, ScriptedEngine
from gateway.app import build
from gateway.caller import Right
from gateway.door import RULES
from gateway.keys import Limits
from gateway.settings import Settings
from gateway.wire import fun_audio_chat
from tests.conftest import Gateway, ready, running, speech
from tests.keyring import bearer, issue, revoke

APP = build(Settings())
TEXT = {"text": "Hello there."}
OPEN = {"/health", "/ready", "/files/{name}"}
"""What everybody may ask, by default."""
DIGITAL_HUMAN = ("/easy/", "/upload", "/download")
"""And its paths, by any method."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that asks."""
    async with ScriptedEngine() as engine, running(tmp_path_factory.mktemp("gateway"), engine) as gateway:
        await issue(await ready(gateway))
        yield gateway


@pytest.fixture
async def asking(tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Gateway]:
    """One of a test's own, quick to notice what was changed."""
    async with running(tmp_path, engine, keys="required", keys_refresh=0.05) as gateway:
        yield await ready(gateway)


def routes() -> list[tuple[str, str]]:
    """Every (method, path) that the gateway serves, documented or not, one that FastAPI adds by itself, and none."""
    direct = [*APP.app.direct, ("GET", "/files/{name}"), ("HEAD", "/files/{name}")]
    documented = [
        (method.upper(), path) for path, operations in APP.rest.openapi()["paths"].items() for method in operations
    ]
    plain = [
        (method, route.path)  # type: ignore[attr-defined]
        for route in APP.rest.routes
        for method in getattr(route, "methods", None) or ()
    ]
    return sorted({*direct, *documented, *plain, ("GET", "/nothing"), ("OPTIONS", "/v1/tts"), ("TRACE", "/v1/tts")})


@pytest.mark.asyncio(loop_scope="module")
class TestEveryPath:
    @pytest.mark.parametrize(("method", "path"), routes())
    async def test_asks_for_a_key(self, guarded: Gateway, method: str, path: str) -> None:
        answer = await guarded.client.request(method, _filled(path))
        if path in OPEN and method in ("GET", "HEAD"):
            assert answer.status_code in (200, 404)
        elif path.startswith(DIGITAL_HUMAN):
            assert answer.status_code in (200, 400, 503), answer.text
        else:
            assert answer.status_code == 401 or _nls_says_denied(answer), answer.text
            assert answer.headers["www-authenticate"].startswith("Bearer")

    @pytest.mark.parametrize("path", [*sorted(APP.app.sockets), "/nothing"])
    async def test_and_every_socket(self, guarded: Gateway, path: str) -> None:
        told: list[Any] = []
        try:
            async with connect(f"ws://127.0.0.1:{guarded.port}{path}", proxy=None) as socket:
                told += [message async for message in socket]
        except InvalidStatus as exc:
            assert exc.response.status_code == 401
        except ConnectionClosed as exc:
            assert exc.rcvd is not None and exc.rcvd.code == 1008
        else:
            assert socket.close_code == 1008, told

    @pytest.mark.parametrize(("method", "path"), [one for one in routes() if one[1] not in OPEN])
    async def test_and_takes_a_good_one(self, guarded: Gateway, method: str, path: str) -> None:
        _, sent = await issue(guarded)
        answer = await guarded.client.request(method, _filled(path), headers=bearer(sent))
        assert answer.status_code not in (401, 403), answer.text

    async def test_a_preflight_needs_none(self, guarded: Gateway) -> None:
        page = {"origin": "https://page.example", "access-control-request-method": "POST"}
        assert (await guarded.client.options("/v1/tts", headers=page)).status_code == 200

    async def test_a_refused_page_can_read_why(self, guarded: Gateway) -> None:
        answer = await guarded.client.get("/v1/voices?device_id=d", headers={"origin": "https://page.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")


def _filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "x", path)


def _nls_says_denied(answer: httpx.Response) -> bool:
    return answer.status_code in (200, 400) and "40000001" in answer.text


@pytest.mark.asyncio(loop_scope="module")
class TestCredentials:
    @pytest.mark.parametrize("own", ["", "operators-own-token-{}"], ids=["ours", "imported"])
    @pytest.mark.parametrize(
        "place",
        [
            {"headers": {"authorization": "Bearer {}"}},
            {"headers": {"authorization": "bearer  {}"}},
            {"headers": {"x-api-key": "{}"}},
            {"headers": {"x-nls-token": "{}"}},
            {"params": {"token": "{}"}},
            {"params": {"api_key": "{}"}},
            {"headers": {"authorization": "Bearer nothing", "x-api-key": "{}"}},
        ],
        ids=str,
    )
    async def test_are_taken_from_each_place(self, guarded: Gateway, place: dict[str, Any], own: str) -> None:
        _, sent = await issue(guarded, token=own and own.format(id(place)))
        filled = {kind: {name: text.format(sent) for name, text in pairs.items()} for kind, pairs in place.items()}
        assert (await guarded.client.post("/api/synthesize", json=TEXT, **filled)).status_code == 200
        sent += "x"
        spoilt = {kind: {name: text.format(sent) for name, text in pairs.items()} for kind, pairs in place.items()}
        assert (await guarded.client.post("/api/synthesize", json=TEXT, **spoilt)).status_code == 401

    @pytest.mark.parametrize("place", ["header", "query", "subprotocol"])
    async def test_of_sockets_too(self, guarded: Gateway, place: str) -> None:
        _, sent = await issue(guarded)
        query = f"?token={sent}" if place == "query" else ""
        offered: Any = ["json", f"openai-insecure-api-key.{sent}"] if place == "subprotocol" else None
        headers = bearer(sent) if place == "header" else None
        url = f"ws://127.0.0.1:{guarded.port}/ws{query}"
        async with connect(url, additional_headers=headers, subprotocols=offered, proxy=None) as socket:
            await socket.send('{"type": "end"}')
            assert [message async for message in socket] == []
            assert socket.close_code == 1000

    @pytest.mark.parametrize(
        "sent", ["", "x", "vg_", "vg_abc", "vg_abc_", "vg__", "vg_{id}_", "vg_{id}_wrong", "é" * 20, "a" * 4000]
    )
    async def test_what_is_none_is_refused(self, guarded: Gateway, sent: str) -> None:
        key, _ = await issue(guarded)
        header = sent.format(id=key.id).encode("latin-1")
        answer = await guarded.client.get("/asr/info", headers={"x-api-key": header})
        assert answer.status_code == 401
        assert answer.json() == {"detail": str(answer.json()["detail"])}

    async def test_an_unknown_id_is_compared_all_the_same(
        self, guarded: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As long as a known one, and in constant time."""
        import hmac

        compared: list[tuple[Any, Any]] = []
        real = hmac.compare_digest
        monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
        key, _ = await issue(guarded)
        for sent in ("vg_ffffffffffff_secret", f"vg_{key.id}_secret", "operators-own-unknown"):
            before = len(compared)
            assert (await guarded.client.get("/", headers=bearer(sent))).status_code == 401
            assert len(compared) == before + 1
            assert {len(one) for one in compared[-1]} == {64}

    async def test_another_key_under_the_same_id_is_no_key(self, guarded: Gateway) -> None:
        (one, _), (_, other) = await issue(guarded), await issue(guarded)
        mixed = f"vg_{one.id}_{other.split('_', 2)[2]}"
        assert (await guarded.client.get("/", headers=bearer(mixed))).status_code == 401

    async def test_an_id_and_a_digest_from_the_database_open_nothing(self, guarded: Gateway) -> None:
        key, _ = await issue(guarded)
        for sent in (key.id, key.digest, f"vg_{key.id}_{key.digest}"):
            assert (await guarded.client.get("/", headers=bearer(sent))).status_code == 401


@pytest.mark.asyncio(loop_scope="module")
class TestScopes:
    @pytest.mark.parametrize(
        ("method", "path", "right"),
        [
            ("POST", "/api/synthesize", Right.SPEAK),
            ("POST", "/v1/tts", Right.SPEAK),
            ("POST", "/v1/voices/train", Right.SPEAK),
            ("GET", "/v1/voices?device_id=d", Right.SPEAK),
            ("DELETE", "/v1/voices/x?device_id=d", Right.SPEAK),
            ("POST", "/api/transcribe", Right.TRANSCRIBE),
            ("GET", "/chat/list?id=u", Right.CONVERSE),
            ("GET", "/metrics", Right.ADMIN),
        ],
    )
    async def test_a_key_without_it_is_told_403(self, guarded: Gateway, method: str, path: str, right: Right) -> None:
        _, other = await issue(guarded, *(set(Right) - {right}))
        answer = await guarded.client.request(method, path, headers=bearer(other))
        assert answer.status_code == 403
        assert right in answer.text
        _, sent = await issue(guarded, right)
        assert (await guarded.client.request(method, path, headers=bearer(sent))).status_code != 403

    @pytest.mark.parametrize(
        ("path", "right"), [("/ws", Right.TRANSCRIBE), ("/chatting", Right.CONVERSE), ("/api/chat", Right.CONVERSE)]
    )
    async def test_sockets_too(self, guarded: Gateway, path: str, right: Right) -> None:
        _, sent = await issue(guarded, *(set(Right) - {right}))
        async with connect(f"ws://127.0.0.1:{guarded.port}{path}?token={sent}", proxy=None) as socket:
            with pytest.raises(ConnectionClosed):
                while True:
                    await socket.recv()
            assert (socket.close_code, right in (socket.close_reason or "")) == (1008, True)


class TestShapes:
    """Each family is told in its own words."""

    @pytest.mark.parametrize(
        ("method", "path", "fields"),
        [
            ("POST", "/v1/tts", {"code", "message", "error"}),
            ("GET", "/v1/voices?device_id=d", {"code", "message", "error"}),
            ("POST", "/api/synthesize", {"error", "success"}),
            ("GET", "/chat/list?id=u", {"detail"}),
        ],
    )
    async def test_http(self, asking: Gateway, method: str, path: str, fields: set[str]) -> None:
        answer = await asking.client.request(method, path)
        assert (answer.status_code, set(answer.json())) == (401, fields)

    async def test_fun_audio_chat_is_let_in_and_told(self, asking: Gateway) -> None:
        async with connect(f"ws://127.0.0.1:{asking.port}/api/chat", proxy=None) as socket:
            assert await socket.recv() == fun_audio_chat.encode(fun_audio_chat.Handshake())
            told = await socket.recv()
            assert isinstance(told, bytes) and told[:1] == b"\5" and b"key" in told
            event = json.loads((await socket.recv())[1:])
            assert "unauthorized" in str(event)
        assert socket.close_code == 1008

    async def test_voice_chat_is_let_in_and_told(self, asking: Gateway) -> None:
        for path in ("/chatting", "/ws?format=json"):
            async with connect(f"ws://127.0.0.1:{asking.port}{path}", proxy=None) as socket:
                told = json.loads(await socket.recv())
                assert (told["type"], told["code"]) == ("error", "unauthorized")
            assert socket.close_code == 1008

    @pytest.mark.parametrize("path", ["/ws/v1", "/ws/v1/asr", "/ws/v1/tts"])
    async def test_nls_is_let_in_and_told(self, asking: Gateway, path: str) -> None:
        for headers, says in (
            ({}, "缺少X-NLS-Token头部"),
            ({"x-nls-token": "wrong-token"}, "Gateway:ACCESS_DENIED:The token 'wron***oken' is invalid!"),
            ({"x-nls-token": "short"}, "Gateway:ACCESS_DENIED:The token '*****' is invalid!"),
        ):
            url = f"ws://127.0.0.1:{asking.port}{path}"
            async with connect(url, additional_headers=headers, proxy=None) as socket:
                header = json.loads(await socket.recv())["header"]
                assert (header["name"], header["status"], header["status_text"]) == ("TaskFailed", 40000001, says)
            assert socket.close_code == 1008

    async def test_openai(self, asking: Gateway) -> None:
        answer = await asking.client.post("/v1/audio/speech", headers=bearer("sk-wrong-key"))
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["code"]) == (401, "authentication_error", "invalid_api_key")
        assert "sk-wrong-key" not in answer.text
        _, sent = await issue(asking, Right.TRANSCRIBE)
        answer = await asking.client.post("/v1/audio/speech", headers=bearer(sent))
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")

    @pytest.mark.parametrize("path", ["/v1/realtime?model=x", "/asr/2pass", "/nothing"])
    async def test_a_handshake_is_refused_by_status(self, asking: Gateway, path: str) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{asking.port}{path}", proxy=None):
                raise AssertionError("never let in")
        assert refused.value.response.status_code == 401

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("POST", "/stream/v1/asr", 200),
            ("POST", "/stream/v1/tts", 200),
            ("GET", "/stream/v1/asr/models", 400),
            ("GET", "/stream/v1/tts/voices", 400),
        ],
    )
    async def test_nls_over_http(self, asking: Gateway, method: str, path: str, status: int) -> None:
        for headers, says in (
            ({}, "缺少X-NLS-Token头部"),
            ({"x-nls-token": "wrong-token"}, "Gateway:ACCESS_DENIED:The token 'wron***oken' is invalid!"),
        ):
            answer = await asking.client.request(method, path, headers=headers)
            told = answer.json()
            assert (answer.status_code, told["status"], told["message"]) == (status, 40000001, says)

    async def test_nls_asks_for_the_appkey_that_its_key_has(self, asking: Gateway) -> None:
        _, sent = await issue(asking, token="funspeech-token", appkey="default-app")
        for given, says in (
            ("", "缺少appkey参数"),
            ("another-app", "Gateway:ACCESS_DENIED:The appkey 'anot***-app' is invalid!"),
            ("short", "Gateway:ACCESS_DENIED:The appkey '*****' is invalid!"),
            ("default-app", "SUCCESS"),
        ):
            query = {"appkey": given} if given else {}
            answer = await asking.client.post(
                "/stream/v1/asr", params=query, content=speech(1.0), headers={"x-nls-token": sent}
            )
            assert (answer.status_code, answer.json()["message"]) == (200, says)
        answer = await asking.client.post(
            "/stream/v1/tts", json={"text": "你好", "appkey": "another-app"}, headers={"x-nls-token": sent}
        )
        assert "anot***-app" in answer.json()["message"]


class TestOpen:
    async def test_until_there_is_a_key_everybody_is_let_in_and_the_operator_is_told(self, gateway: Gateway) -> None:
        assert (await gateway.client.post("/api/synthesize", json=TEXT)).status_code == 200
        assert (await gateway.client.get("/health")).json()["open"] is True
        with capture_logs() as lines:
            gateway.state["access"].announce()
        assert [(line["log_level"], "OPEN TO EVERYBODY" in line["event"]) for line in lines] == [("warning", True)]

    async def test_the_first_key_closes_it_and_ends_who_is_in_without(
        self, tmp_path: Path, engine: ScriptedEngine
    ) -> None:
        async with running(tmp_path, engine, keys_refresh=0.05) as gateway:
            async with connect(f"ws://127.0.0.1:{gateway.port}/chatting?id=c", proxy=None) as socket:
                await socket.recv()
                await issue(await ready(gateway), taken_up=False)
                told = json.loads(await asyncio.wait_for(socket.recv(), 5))
                assert told["code"] == "unauthorized"
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 5)
            assert (await gateway.client.get("/")).status_code == 401

    async def test_it_stays_closed_when_the_last_key_is_revoked(self, asking: Gateway, tmp_path: Path) -> None:
        key, _ = await issue(asking)
        await revoke(asking, key)
        async with running(tmp_path, "http://127.0.0.1:9") as again:
            assert not again.state["access"].open
            assert (await again.client.get("/")).status_code == 401

    async def test_a_setting_closes_it_from_the_start(self, asking: Gateway) -> None:
        assert (await asking.client.get("/")).status_code == 401

    async def test_a_setting_opens_it_whatever_keys_there_are(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, keys="off") as gateway:
            await issue(gateway)
            assert (await gateway.client.get("/")).status_code == 200

    async def test_what_is_public_is_for_the_settings_to_say(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, keys="required", public_surfaces="metrics,docs") as gateway:
            for path, status in {
                "/metrics": 200,
                "/docs": 200,
                "/openapi.json": 200,
                "/ready": 401,
                "/files/x": 401,
                "/easy/query?code=x": 401,
                "/health": 200,
            }.items():
                assert (await gateway.client.get(path)).status_code == status, path

    async def test_the_digital_human_needs_none_by_default(self, asking: Gateway) -> None:
        for method, path in (("GET", "/easy/query?code=x"), ("POST", "/upload"), ("GET", "/download?path=x")):
            assert (await asking.client.request(method, path)).status_code != 401, path

    async def test_strangers_are_told_no_more_than_that_the_gateway_lives(self, asking: Gateway) -> None:
        answer = await asking.client.get("/health")
        assert answer.status_code == 200
        assert answer.json() == {"status": "healthy", "message": "ok", "ready": True, "open": False}
        _, sent = await issue(asking)
        assert (await asking.client.get("/health", headers=bearer(sent))).json()["engines"]


class TestRevoking:
    async def test_acts_on_requests_at_once(self, asking: Gateway) -> None:
        key, sent = await issue(asking)
        assert (await asking.client.get("/", headers=bearer(sent))).status_code == 200
        await revoke(asking, key)
        await _until_refused(asking, sent)

    async def test_ends_connections_that_are_open_and_no_other(self, asking: Gateway) -> None:
        (key, sent), (_, other) = await issue(asking), await issue(asking)
        async with _chatting(asking, sent) as ended, _chatting(asking, other) as kept:
            await revoke(asking, key)
            assert json.loads(await asyncio.wait_for(ended.recv(), 5))["code"] == "unauthorized"
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(ended.recv(), 5)
            assert ended.close_code == 1008
            await kept.send('{"type": "ping"}')
            assert json.loads(await kept.recv())["type"] == "pong"

    async def test_breaks_an_answer_off(self, asking: Gateway, engine: ScriptedEngine) -> None:
        engine.script = Script(pieces=1000, pause=0.02)
        key, sent = await issue(asking)
        with pytest.raises(httpx.RemoteProtocolError):
            async with asking.client.stream("POST", "/api/synthesize", json=TEXT, headers=bearer(sent)) as answer:
                await revoke(asking, key)
                async for _ in answer.aiter_bytes():
                    pass
        await asking.idle()
        assert engine.seen.running == 0

    async def test_a_key_expires_by_itself(self, asking: Gateway) -> None:
        _, sent = await issue(asking, expires_at=datetime.now(UTC) + timedelta(seconds=1))
        async with _chatting(asking, sent) as socket:
            with pytest.raises(ConnectionClosed):
                while True:
                    await asyncio.wait_for(socket.recv(), 5)
        assert (await asking.client.get("/", headers=bearer(sent))).status_code == 401


class TestLimits:
    async def test_of_requests_in_a_minute_at_it_and_one_over(self, asking: Gateway) -> None:
        _, sent = await issue(asking, limits=Limits(rate=3))
        for _ in range(3):
            assert (await asking.client.get("/", headers=bearer(sent))).status_code == 200
        answer = await asking.client.post("/api/synthesize", json=TEXT, headers=bearer(sent))
        assert answer.status_code == 429
        assert 55 <= int(answer.headers["retry-after"]) <= 61
        _, other = await issue(asking)
        assert (await asking.client.get("/", headers=bearer(other))).status_code == 200

    async def test_of_connections_at_a_time_at_it_and_one_over(self, asking: Gateway) -> None:
        _, sent = await issue(asking, limits=Limits(sessions=2))
        async with _chatting(asking, sent), _chatting(asking, sent):
            async with connect(f"ws://127.0.0.1:{asking.port}/chatting?id=c&token={sent}", proxy=None) as third:
                assert json.loads(await third.recv())["code"] == "rate_limited"
            assert third.close_code == 1013
            answer = await asking.client.get("/", headers=bearer(sent))
            assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
        await _until(lambda: not asking.state["access"]._inside)
        assert (await asking.client.get("/", headers=bearer(sent))).status_code == 200

    async def test_who_is_refused_takes_no_place(self, asking: Gateway) -> None:
        key, sent = await issue(asking, Right.SPEAK, limits=Limits(sessions=1))
        for _ in range(3):
            assert (await asking.client.get("/metrics", headers=bearer(sent))).status_code == 403
        assert (await asking.client.get("/", headers=bearer(sent))).status_code == 200
        assert "0 running" in repr(asking.state["access"]._by_id[key.id])


def test_every_rule_names_a_path_that_is_there() -> None:
    paths = {*APP.rest.openapi()["paths"], "/docs", "/openapi.json"}
    for rule in RULES:
        assert any(rule.of(path) for path in paths), rule


async def _until_refused(gateway: Gateway, sent: str) -> None:
    async with asyncio.timeout(5):
        while (await gateway.client.get("/", headers=bearer(sent))).status_code != 401:
            await asyncio.sleep(0.01)


async def _until(done: Any) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.01)


def _chatting(gateway: Gateway, sent: str) -> "_Opened":
    return _Opened(gateway, sent)


class _Opened:
    """A connection of the voice chat, greeted."""

    def __init__(self, gateway: Gateway, sent: str) -> None:
        self._connect = connect(
            f"ws://127.0.0.1:{gateway.port}/chatting?id=c", additional_headers=bearer(sent), proxy=None
        )

    async def __aenter__(self) -> ClientConnection:
        socket = await self._connect.__aenter__()
        assert json.loads(await socket.recv())["type"] == "connection_established"
        return socket

    async def __aexit__(self, *failure: Any) -> None:
        await self._connect.__aexit__(*failure)
