"""One request and its answer over raw ASGI: limits, stalls, and answers that are whole or visibly broken off."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from engines.scripted import Script, ScriptedEngine
from gateway.errors import BadRequest, ClientGone, EngineBroke, EngineBusy, GatewayError, NotFound, TooLarge
from gateway.exchange import Endpoint, Exchange, Handler
from tests.conftest import Gateway, ready, register, running, speech


class Ask(BaseModel):
    name: str
    size: int = Field(default=1, ge=1)


class Line:
    """The server's side of one request: gives the pieces of its body, then waits or hangs up."""

    def __init__(self, *pieces: bytes, hang_up: bool = False, stall: bool = False, **headers: str) -> None:
        self.pieces, self.hang_up, self.stall = list(pieces), hang_up, stall
        self.sent: list[dict[str, Any]] = []
        names = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        scope = {"type": "http", "method": "POST", "path": "/x", "headers": list(names.items())}
        self.http = Exchange(scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.pieces:
            more = len(self.pieces) > 1 or self.hang_up or self.stall
            return {"type": "http.request", "body": self.pieces.pop(0), "more_body": more}
        if not self.hang_up:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def answered(self, handler: Handler) -> tuple[int, dict[bytes, bytes], bytes]:
        """(status, headers, body) of what a handler answers."""
        await Endpoint(handler, shape, None)(self.http.scope, self.receive, self.send)
        head = self.sent[0]
        return head["status"], dict(head["headers"]), self.body

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def whole(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


def shape(exc: GatewayError) -> bytes:
    return json.dumps({"code": exc.code, "text": str(exc)}).encode()


def fails(error: Exception) -> Handler:
    async def handler(http: Exchange) -> None:
        raise error

    return handler


class TestJson:
    async def ask(self, *pieces: bytes, limit: int = 1000, idle: float = 5, **more: Any) -> Ask:
        return await Line(*pieces, **more).http.json(Ask, limit, idle)

    async def test_a_body_is_read_however_it_is_cut(self) -> None:
        assert await self.ask(b"{", b"", b'"name": "An', b'n"}') == Ask(name="Ann")

    async def test_a_body_at_the_limit_is_read(self) -> None:
        body = b'{"name": "Ann"}'
        assert await self.ask(body, limit=len(body)) == Ask(name="Ann")

    async def test_a_body_one_byte_over_the_limit_is_refused(self) -> None:
        body = b'{"name": "Ann"}'
        with pytest.raises(TooLarge):
            await self.ask(body, limit=len(body) - 1)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b"", "Invalid JSON"),
            (b"{", "Invalid JSON"),
            (b"null", "object"),
            (b"[]", "object"),
            (b"{}", "name: Field required"),
            (b'{"name": 5}', "name: "),
            (b'{"name": "a", "size": 0}', "size: "),
            (b'{"name": "a", "size": "many"}', "size: "),
            (b'{"name": "\xff"}', "Invalid JSON"),
            (b'{"name": "\\ud800"}', "Invalid JSON"),
            (b"[" * 900, "Invalid JSON"),
        ],
    )
    async def test_a_wrong_body_names_the_first_wrong_field(self, body: bytes, says: str) -> None:
        with pytest.raises(BadRequest, match=says) as caught:
            await self.ask(body)
        assert "\n" not in str(caught.value)
        assert caught.value.param == ("".join(says.split(": ")[:1]) if ": " in says else None)

    async def test_what_was_sent_is_never_repeated(self) -> None:
        with pytest.raises(BadRequest) as caught:
            await self.ask(b'{"name": "a", "size": "my secret"}')
        assert "secret" not in str(caught.value)

    async def test_a_client_that_stops_sending_is_refused(self) -> None:
        with pytest.raises(BadRequest) as caught:
            await self.ask(b"{", stall=True, idle=0.02)
        assert caught.value.code == "upload_stalled"

    async def test_a_client_that_sends_too_slowly_is_refused(self) -> None:
        line = Line(*[b" "] * 1000)
        line.receive = slowed(line.receive)  # type: ignore[method-assign]
        http = Exchange(line.http.scope, line.receive, line.send)
        with pytest.raises(BadRequest):
            await http.json(Ask, 10_000, 0.1)

    async def test_a_client_that_hangs_up_is_gone(self) -> None:
        with pytest.raises(ClientGone):
            await self.ask(b"{", hang_up=True)


def slowed(receive: Callable[[], Any]) -> Callable[[], Any]:
    async def slow() -> Any:
        await asyncio.sleep(0.03)
        return await receive()

    return slow


class TestUploads:
    async def test_a_pause_within_the_limit_is_no_stall(self) -> None:
        line = Line(b"a", b"b", b"c")
        http = Exchange(line.http.scope, slowed(line.receive), line.send)
        assert [piece async for piece in http.chunks(10, idle=0.06)] == [b"a", b"b", b"c"]

    async def test_a_body_that_was_read_is_not_read_again(self) -> None:
        line = Line(b"a")
        assert [piece async for piece in line.http.chunks(10, 1)] == [b"a"]
        assert [piece async for piece in line.http.chunks(10, 1)] == []


class TestRefusals:
    async def test_a_failure_is_the_surface_s_own_answer(self) -> None:
        status, headers, body = await Line().answered(fails(NotFound("no such voice", code="voice_not_found")))
        assert status == 404
        assert json.loads(body) == {"code": "voice_not_found", "text": "no such voice"}
        assert headers[b"content-type"] == b"application/json"
        assert headers[b"content-length"] == b"%d" % len(body)
        assert b"retry-after" not in headers

    async def test_a_failure_that_passes_says_when(self) -> None:
        status, headers, _ = await Line().answered(fails(EngineBusy(retry_after=7)))
        assert (status, headers[b"retry-after"]) == (503, b"7")

    async def test_a_bug_is_a_plain_500_that_tells_nothing(self) -> None:
        status, _, body = await Line().answered(fails(KeyError("secret")))
        assert status == 500
        assert b"secret" not in body

    async def test_a_client_that_is_gone_gets_nothing(self) -> None:
        line = Line()
        await Endpoint(fails(ClientGone()), shape, None)(line.http.scope, line.receive, line.send)
        assert line.sent == []

    @pytest.mark.parametrize("error", [EngineBroke(), KeyError()])
    async def test_a_failure_after_the_first_byte_leaves_the_answer_unfinished(self, error: Exception) -> None:
        async def handler(http: Exchange) -> None:
            await http.start(200, b"audio/wav")
            await http.write(b"half")
            raise error

        line = Line()
        assert await line.answered(handler) == (200, {b"content-type": b"audio/wav"}, b"half")
        assert not line.whole

    async def test_a_refused_upload_is_read_to_its_end_and_its_connection_closed(self) -> None:
        line = Line(*[b"x"] * 10, content_length="10")
        status, headers, _ = await line.answered(fails(BadRequest("no")))
        assert (status, headers[b"connection"]) == (400, b"close")
        assert line.pieces == []
        assert line.whole

    async def test_a_refused_upload_that_never_ends_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.exchange._DRAIN_SECONDS", 0.05)
        line = Line(b"x", content_length="10", stall=True)
        await line.answered(fails(BadRequest("no")))
        assert line.whole

    async def test_a_refused_upload_without_an_end_is_dropped_at_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.exchange._DRAIN_BYTES", 5)
        line = Line(*[b"xx"] * 100, transfer_encoding="chunked")
        await line.answered(fails(BadRequest("no")))
        assert len(line.pieces) == 97


class TestPulse:
    async def test_a_quick_answer_has_no_blanks_and_a_length(self) -> None:
        async def handler(http: Exchange) -> None:
            async with http.pulse(10):
                pass
            await http.answer(200, b"{}")

        _, headers, body = await Line().answered(handler)
        assert (headers[b"content-length"], body) == (b"2", b"{}")

    async def test_a_slow_answer_begins_with_blanks_and_is_still_json(self) -> None:
        async def handler(http: Exchange) -> None:
            async with http.pulse(0.02):
                await asyncio.sleep(0.11)
            await http.answer(200, b'{"a": 1}')

        line = Line()
        status, headers, body = await line.answered(handler)
        assert status == 200
        assert b"content-length" not in headers
        assert 3 <= len(body) - len(body.lstrip()) <= 6
        assert json.loads(body) == {"a": 1}
        assert line.whole

    async def test_a_failure_before_the_first_blank_is_a_clean_error(self) -> None:
        async def handler(http: Exchange) -> None:
            async with http.pulse(10):
                raise EngineBusy

        assert (await Line().answered(handler))[0] == 503

    async def test_a_failure_after_a_blank_breaks_the_answer_off(self) -> None:
        async def handler(http: Exchange) -> None:
            async with http.pulse(0.01):
                await asyncio.sleep(0.05)
                raise EngineBusy

        line = Line()
        assert (await line.answered(handler))[0] == 200
        assert not line.whole

    async def test_nothing_beats_on_after_the_answer(self) -> None:
        before = asyncio.all_tasks()
        await self.test_a_slow_answer_begins_with_blanks_and_is_still_json()
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize(("quotes", "why"), [(False, "it said xyzzy"), (True, None)])
async def test_words_that_are_not_ours_are_not_logged_when_an_answer_breaks(quotes: bool, why: str | None) -> None:
    async def handler(http: Exchange) -> None:
        async with http.pulse(0.01):
            await asyncio.sleep(0.05)
            raise EngineBroke("it said xyzzy", quotes=quotes)

    with capture_logs() as lines:
        await Line().answered(handler)
    assert [line.get("reason") for line in lines if line["event"] == "broken off"] == [why]


class TestOverSockets:
    async def test_a_refused_upload_s_client_reads_the_answer(self, gateway: Gateway) -> None:
        """One that sends everything before it reads, as most do."""
        answer = await gateway.client.post(
            "/v1/voices/train",
            data={"device_id": "d", "name": "n"},
            files={"recording": ("a.wav", bytes(20_000_000), "application/octet-stream")},
        )
        assert answer.status_code == 400
        assert answer.json()["message"] == "no file in the field audio"

    async def test_an_upload_over_the_limit_is_told_so(self, tmp_path: Any, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, upload_max_bytes=1_000_000) as gateway:
            for size in (1_000_000, 20_000_000):
                answer = await gateway.client.post("/api/transcribe", files={"audio": bytes(size)})
                assert answer.status_code == 413
                assert answer.json()["success"] is False
            async with httpx.AsyncClient(base_url=gateway.url) as client:
                body = (bytes(100_000) for _ in range(100))  # chunked: no length to be warned by
                kind = {"content-type": "multipart/form-data; boundary=b"}
                answer = await client.post("/api/transcribe", content=aiter_of(body), headers=kind)
                assert answer.status_code in (400, 413)
            await gateway.idle()

    async def test_a_long_synthesis_keeps_its_client_waiting(self, tmp_path: Any, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine, answer_pulse=0.1) as gateway:
            voice = await register(await ready(gateway), audio=speech())
            engine.script = Script(pieces=10, pause=0.06)
            ask = {"device_id": "device-1", "voice_id": voice, "text": "Hello."}
            answer = await gateway.client.post("/v1/tts", json=ask, timeout=0.3)  # shorter than the synthesis
            assert answer.content.startswith(b"  ")
            assert answer.json()["data"]["audioUrl"].startswith("/files/")


async def aiter_of(pieces: Any) -> Any:
    for piece in pieces:
        yield piece
