"""The API document is true: what it says is valid, complete, and what a stranger's requests find."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi import checks

from engines.scripted import ScriptedEngine
from gateway.app import build
from gateway.settings import Settings
from gateway.surfaces import voicechat
from tests.conftest import ready, register, running

DOCUMENT = build(Settings()).rest.openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [operation.ok() for operation in SCHEMA.get_all_operations()]
DEVICE = "device-1"
_NLS_VOICES = ("voices", "voices/info", "voices/refresh", "health")


AVATAR = {"/upload", "/download", "/easy/submit", "/easy/query", "/easy/{code}", "/v1/avatar/jobs"}
DIRECT = {path for _, path in build(Settings()).app.direct} | AVATAR


def operations(some: list[APIOperation]) -> Any:
    return pytest.mark.parametrize("operation", some, ids=lambda one: f"{one.method.upper()} {one.path}")


class TestDocument:
    def test_it_is_valid(self) -> None:
        SCHEMA.validate()

    def test_every_direct_path_is_in_it(self) -> None:
        for method, path in build(Settings()).app.direct:
            assert method.lower() in DOCUMENT["paths"][path]
        assert DOCUMENT["paths"]["/files/{name}"].keys() == {"get", "head"}
        for path in AVATAR:
            assert ", ".join(sorted(DOCUMENT["paths"][path])).upper() == build(Settings()).app.allowed(path)

    def test_every_operation_says_what_it_does_and_how_it_fails(self) -> None:
        for operation in OPERATIONS:
            found = operation.definition.raw
            assert found["summary"]
            assert found["tags"]
            asr, tts = "/stream/v1/asr", "/stream/v1/tts"
            answered = (f"{asr}/models", f"{asr}/health", *(f"{tts}/{one}" for one in _NLS_VOICES))
            certain = ("/", "/health", "/metrics", "/asr/info", "/v1/models", *answered)
            assert operation.path in certain or any(status >= "4" for status in found["responses"])

    def test_nothing_in_it_is_a_leftover_of_the_framework(self) -> None:
        assert "HTTPValidationError" not in str(DOCUMENT)
        others = {path: found for path, found in DOCUMENT["paths"].items() if not voicechat.owns(path)}
        assert "detail" not in str(others)

    def test_no_reference_in_it_leads_nowhere(self) -> None:
        for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
            found = DOCUMENT
            for part in reference.split("/"):
                found = found[part]

    def test_every_answer_that_asks_for_patience_says_so(self) -> None:
        for operation in OPERATIONS:
            for status, answer in operation.definition.raw["responses"].items():
                asks = status in ("429", "503")
                assert ("Retry-After" in answer.get("headers", {})) == asks, (operation.path, status)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in a thread of its own: the caller here is not async."""
    found: list[str] = []
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        folder = tmp_path_factory.mktemp("gateway")
        async with ScriptedEngine() as engine, running(folder, engine, animate_urls=engine.url) as gateway:
            await register(await ready(gateway), DEVICE)
            found.append(gateway.url)
            started.set()
            await asyncio.to_thread(stop.wait)
            await gateway.idle()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(20)
    yield found[0].rstrip("/")
    stop.set()
    thread.join()


def few(operation: APIOperation, check: Any, mode: GenerationMode = GenerationMode.POSITIVE, **fixed: Any) -> None:
    """Runs `check` on a few requests of a stranger; the same ones every time."""
    limits = hypothesis.settings(max_examples=15, suppress_health_check=list(hypothesis.HealthCheck))
    limits(hypothesis.given(operation.as_strategy(generation_mode=mode, **fixed))(check))()


@operations(OPERATIONS)
def test_right_requests_are_answered_as_documented(url: str, operation: APIOperation) -> None:
    """What no schema can say: that a text holds a word, and that bytes are a recording."""
    unsaid = [checks.positive_data_acceptance] if operation.path in DIRECT else []

    def check(case: Case) -> None:
        assert case.call_and_validate(base_url=url, excluded_checks=unsaid).status_code != 500

    few(operation, check)


@operations([one for one in OPERATIONS if one.body or one.query])
def test_wrong_requests_are_refused_as_documented(url: str, operation: APIOperation) -> None:
    told_in_200 = [checks.negative_data_rejection] if operation.path.startswith("/easy/") else []

    def check(case: Case) -> None:
        assert case.call_and_validate(base_url=url, excluded_checks=told_in_200).status_code != 500

    few(operation, check, GenerationMode.NEGATIVE)


@operations([one for one in OPERATIONS if one.path == "/v1/voices/{voice_id}" and one.method != "delete"])
def test_a_real_voice_is_found_and_changed_as_documented(url: str, operation: APIOperation) -> None:
    voice = httpx.get(f"{url}/v1/voices", params={"device_id": DEVICE}).json()["data"][0]["id"]

    def check(case: Case) -> None:
        if isinstance(case.body, dict):
            case.body["device_id"] = DEVICE
        assert case.call_and_validate(base_url=url).status_code == 200

    few(operation, check, path_parameters={"voice_id": voice}, query={"device_id": DEVICE})


@pytest.mark.parametrize("path", sorted({one.path for one in OPERATIONS}))
def test_other_methods_are_refused_with_the_right_ones(url: str, path: str) -> None:
    paths = {path, "/v1/voices/{voice_id}"} if path == "/v1/voices/train" else {path}  # that could be a voice's id
    documented = {one.method.upper() for one in OPERATIONS if one.path in paths}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - documented:
        answer = httpx.request(
            method, url + path.format(voice_id="x", name="x", chat_id="x", model="x", consent_id="x", code="x")
        )
        assert answer.status_code == 405, (method, path)
        allowed = {name.strip() for name in answer.headers["allow"].split(",")}
        assert documented == allowed, (method, path)


@pytest.mark.parametrize("body", [b"\xff", b"[" * 50_000, b'{"a": ' * 10_000, b"{", b"null", b'"\\ud800"', b""])
def test_a_body_that_is_no_json_is_a_400(url: str, body: bytes) -> None:
    for method, path in (("PATCH", "/v1/voices/x"), ("POST", "/v1/tts"), ("POST", "/api/synthesize")):
        answer = httpx.request(method, url + path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)
        assert answer.json()["error"]


def test_a_body_of_any_size_never_fills_the_memory(url: str) -> None:
    for method, path in (("PATCH", "/v1/voices/x"), ("POST", "/v1/tts"), ("POST", "/api/synthesize")):
        answer = httpx.request(method, url + path, content=b" " * 10_000_000)
        assert answer.status_code == 413, path
