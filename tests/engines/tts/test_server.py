"""The routes, without a socket."""

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from threading import Event

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from engines.tts.backends import Backend
from engines.tts.backends.embedded import Embedded
from engines.tts.job import Job
from engines.tts.server import create_app
from engines.tts.source import Threads
from gateway.wire import cosyvoice as wire
from gateway.wire import engine_health

from .conftest import until
from .puppet import Puppet
from .sound import from_pcm, tone, wav_of

WAV = {"prompt_wav": ("prompt.wav", wav_of(tone(150, 1.0, 16_000), 16_000), "audio/wav")}
FORMS = {
    wire.SFT: {"tts_text": "你好", "spk_id": "中文女"},
    wire.ZERO_SHOT: {"tts_text": "你好", "prompt_text": "hello"},
    wire.CROSS_LINGUAL: {"tts_text": "<|zh|>你好"},
    wire.INSTRUCT: {"tts_text": "你好", "spk_id": "英文女", "instruct_text": "slowly"},
    wire.INSTRUCT2: {"tts_text": "你好", "instruct_text": "慢一点<|endofprompt|>"},
}
NEEDS_WAV = (wire.ZERO_SHOT, wire.CROSS_LINGUAL, wire.INSTRUCT2)


class Slow(Puppet):
    """A backend that loads when it is let, and says one thing."""

    model = "slow"

    def __init__(self, failure: Exception | None = None) -> None:
        self.let, self.failure = Event(), failure

    def load(self) -> None:
        self.let.wait(5)
        if self.failure:
            raise self.failure

    def speak(self, job: Job, stopped: Callable[[], bool]) -> Generator[bytes, None, None]:
        if job.text == "break":
            raise RuntimeError("secret text")
        yield b"\0\0"


@asynccontextmanager
async def client_of(backend: Backend) -> AsyncIterator[httpx.AsyncClient]:
    app: Starlette = create_app(Threads(backend))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://tts") as client,
    ):
        yield client


@pytest.fixture
async def client(embedded: Embedded) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(embedded) as client:
        while (await client.get(engine_health.PATH)).status_code != 200:
            pass
        yield client


def content_of(route: str) -> dict[str, object]:
    return {"data": FORMS[route], "files": WAV if route in NEEDS_WAV else None}


@pytest.mark.parametrize("route", FORMS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_route_answers_pcm_and_says_its_rate(client: httpx.AsyncClient, route: str, method: str) -> None:
    answer = await client.request(method, route, **content_of(route))  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["content-type"] == wire.PCM_TYPE
    assert answer.headers[wire.SAMPLE_RATE_HEADER] == "22050"
    assert "content-length" not in answer.headers
    assert 0.3 < len(from_pcm(answer.content)) / 22_050 < 5
    assert answer.content[:4] != b"RIFF"


@pytest.mark.parametrize("speed", ["0.5", "2.0"])
async def test_speed_is_obeyed(client: httpx.AsyncClient, speed: str) -> None:
    normal, changed = [
        len((await client.post(wire.SFT, data=FORMS[wire.SFT] | more)).content) for more in ({}, {"speed": speed})
    ]
    assert changed / normal == pytest.approx(1 / float(speed), rel=0.35)


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        ({"tts_text": ""}, 400, "nothing in tts_text"),
        ({"tts_text": " \n "}, 400, "nothing in tts_text"),
        ({"tts_text": "。。。!"}, 400, "nothing in tts_text"),
        ({"tts_text": "[breath]"}, 400, "nothing in tts_text"),
        ({"tts_text": "好" * 100_001}, 413, "100000 characters"),
        ({"tts_text": "<|tlh-x|>nuqneH"}, 400, "tlh-x"),
        ({"spk_id": "nobody"}, 400, "中文女, 中文男, 日语男, 粤语女, 英文女, 英文男, 韩语女"),
        ({"spk_id": ""}, 400, "unknown spk_id"),
        ({"speed": "fast"}, 422, "from 0.5 to 2.0"),
        ({"speed": "nan"}, 422, "from 0.5 to 2.0"),
        ({"speed": "2.1"}, 422, "from 0.5 to 2.0"),
    ],
)
async def test_what_is_wrong_is_said_before_the_first_byte(
    client: httpx.AsyncClient, more: dict[str, str], status: int, reason: str
) -> None:
    answer = await client.post(wire.SFT, data=FORMS[wire.SFT] | more)
    assert answer.status_code == status
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("route", FORMS)
async def test_each_missing_field_is_named(client: httpx.AsyncClient, route: str) -> None:
    for name in FORMS[route]:
        left = {field: value for field, value in FORMS[route].items() if field != name}
        answer = await client.post(route, data=left, files=WAV if route in NEEDS_WAV else None)
        assert answer.status_code == 422
        assert name in answer.json()["error"]


@pytest.mark.parametrize("route", NEEDS_WAV)
async def test_a_missing_or_undecodable_reference_is_refused(client: httpx.AsyncClient, route: str) -> None:
    without = await client.post(route, data=FORMS[route])
    as_text = await client.post(route, data=FORMS[route] | {"prompt_wav": "words"})
    garbage = await client.post(route, data=FORMS[route], files={"prompt_wav": b"not a wav file"})
    assert [answer.status_code for answer in (without, as_text, garbage)] == [422] * 3
    assert all("prompt_wav" in answer.json()["error"] for answer in (without, as_text, garbage))


@pytest.mark.parametrize("size", [20 * 2**20 + 1, 23 * 2**20])
async def test_a_reference_that_is_too_large_is_refused(client: httpx.AsyncClient, size: int) -> None:
    files = {"prompt_wav": bytes(size)}
    answer = await client.post(wire.CROSS_LINGUAL, data=FORMS[wire.CROSS_LINGUAL], files=files)
    assert answer.status_code == 413
    assert "larger than" in answer.json()["error"]


async def test_a_form_that_cannot_be_parsed_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await client.post(wire.SFT, content=b"this is no multipart", headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]


async def test_unknown_routes_and_methods_answer_json(client: httpx.AsyncClient) -> None:
    nowhere, wrong = await client.get("/nowhere"), await client.put(wire.SFT)
    assert (nowhere.status_code, wrong.status_code) == (404, 405)
    assert nowhere.json()["error"]
    assert wrong.json()["error"]


async def test_health_and_inference_tell_the_truth_while_loading() -> None:
    backend = Slow()
    async with client_of(backend) as client:
        health, speech = await client.get("/health"), await client.post(wire.SFT, data={"tts_text": "hi"})
        assert engine_health.decode(health.status_code, health.content).state == "loading"
        assert (speech.status_code, speech.headers["retry-after"]) == (503, "1")
        assert "loading" in speech.json()["error"]
        backend.let.set()
        while (health := await client.get("/health")).status_code != 200:
            pass
        assert engine_health.decode(200, health.content) == engine_health.Report("ready", "slow", "cpu")
        assert (await client.post(wire.SFT, data={"tts_text": "hi", "spk_id": "one"})).headers[
            "x-sample-rate"
        ] == "24000"


async def test_an_engine_that_cannot_load_says_why(caplog: pytest.LogCaptureFixture) -> None:
    backend = Slow(OSError("libespeak-ng.so: cannot open shared object file"))
    backend.let.set()
    async with client_of(backend) as client:
        while (health := await client.get("/health")).json()["state"] == "loading":
            pass
        assert health.status_code == 503
        assert "libespeak-ng.so" in engine_health.decode(503, health.content).reason
        speech = await client.post(wire.SFT, data={"tts_text": "hi"})
        assert speech.status_code == 503
        assert "libespeak-ng.so" in speech.json()["error"]
    until(lambda: "cannot be loaded" in caplog.text)


async def test_a_backend_that_breaks_before_the_first_byte_answers_500_and_no_text() -> None:
    backend = Slow()
    backend.let.set()
    async with client_of(backend) as client:
        while (await client.get("/health")).status_code != 200:
            pass
        answer = await client.post(wire.SFT, data={"tts_text": "break", "spk_id": "one"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "synthesis failed: RuntimeError"}


async def test_what_is_said_is_not_logged(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await client.post(wire.SFT, data={"tts_text": "天机不可泄露", "spk_id": "中文女"})
    await client.post(wire.SFT, data={"tts_text": "<|xx|>天机不可泄露", "spk_id": "中文女"})
    assert "天机" not in caplog.text


@pytest.mark.parametrize("route", [wire.REGISTER, wire.ZERO_SHOT])
async def test_who_hangs_up_in_the_middle_of_a_form_is_no_failure(route: str) -> None:
    source = Threads(Puppet())  # type: ignore[arg-type]
    app = create_app(source)

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert message.get("status", 499) == 499

    head = {"method": "POST", "path": route, "raw_path": route.encode(), "query_string": b"", "root_path": ""}
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    async with app.router.lifespan_context(app):
        until(lambda: source.report.state == "ready")
        await app({"type": "http", "http_version": "1.1", "scheme": "http", "headers": [kind], **head}, leave, send)
