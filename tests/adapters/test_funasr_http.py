"""The adapter for recognition over HTTP: what reaches the engine, and what its answers and refusals become."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from gateway.adapters.connections import Client
from gateway.adapters.funasr_http import FunAsrHttp
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineUnavailable
from gateway.events import Transcript
from gateway.settings import Settings
from gateway.verbs import Recording, Transcribe
from gateway.wire import funasr_http as wire
from tests.adapters.conftest import Line, answer, peer


@pytest.fixture
def job(recording: Path) -> Transcribe:
    return Transcribe(Recording(recording, 16000, 8000))


async def transcribe(http: Client, url: str, job: Transcribe) -> list[Transcript]:
    async with FunAsrHttp(url, http, Settings()).session(job) as events:
        return [event async for event in events]


async def asked(http: Client, job: Transcribe) -> tuple[str, dict[str, Any]]:
    """(path, fields) of the request that a job makes."""
    found: list[tuple[bytes, bytes]] = []

    async def behave(line: Line) -> None:
        found.append(await line.request())
        await line.send(answer(wire.result("hello", "en")))

    async with peer(behave) as engine:
        assert await transcribe(http, engine.url, job) == [Transcript("hello", "en")]
    head, body = found[0]
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    assert int(lines["content-length"]) == len(body)
    return head.split(b" ")[1].decode(), await fields(Headers(lines), body)


async def fields(headers: Headers, body: bytes) -> dict[str, Any]:
    async def pieces() -> AsyncIterator[bytes]:
        yield body

    form = await MultiPartParser(headers, pieces()).parse()
    found = {name: await value.read() if isinstance(value, UploadFile) else value for name, value in form.items()}
    await form.close()
    return found


class TestRequests:
    async def test_a_whole_recording_is_sent(self, http: Client, job: Transcribe) -> None:
        content = job.audio.path.read_bytes()
        assert await asked(http, job) == ("/api/transcribe", {"audio": content})

    async def test_language_and_hotwords_are_passed_on(self, http: Client, job: Transcribe) -> None:
        job = dataclasses.replace(job, language="中文", hotwords=("通义", "New York"))
        _, found = await asked(http, job)
        assert (found["language"], found["hotwords"]) == ("中文", "通义,New York")

    async def test_what_the_caller_left_out_is_left_out(self, http: Client, job: Transcribe) -> None:
        """Upstream breaks on an empty list of words, and puts an empty language into its prompt."""
        assert (await asked(http, job))[1].keys() == {"audio"}

    async def test_a_large_recording_is_never_in_memory_at_once(self, http: Client, tmp_path: Path) -> None:
        size = 64 * 1024 * 1024
        with (tmp_path / "large.wav").open("wb") as file:
            file.truncate(size)
        taken = asyncio.Event()

        async def behave(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await taken.wait()
            while not (await line.reader.read(1 << 20)).endswith(b"--\r\n"):
                pass
            await line.send(answer(wire.result("hello", "")))

        async with peer(behave) as engine:
            asking = asyncio.ensure_future(
                transcribe(http, engine.url, Transcribe(Recording(tmp_path / "large.wav", 1, 1)))
            )
            await asyncio.sleep(0.1)
            written = sum(connection._transport.get_write_buffer_size() for connection in http._all)
            assert written < 2 * 1024 * 1024
            taken.set()
            assert await asking == [Transcript("hello", "")]

    async def test_a_recording_that_is_sent_twice_is_whole_twice(self, http: Client, job: Transcribe) -> None:
        sizes = []

        async def behave(line: Line) -> None:
            for _ in range(2):
                sizes.append(len((await line.request())[1]))
                if line.number or len(sizes) == 1:
                    await line.send(answer(wire.result("hello", "")))
                else:
                    return

        async with peer(behave) as engine:
            await transcribe(http, engine.url, job)
            await transcribe(http, engine.url, job)
            assert len(engine.lines) == 2
        assert len(sizes) == 3
        assert len(set(sizes)) == 1


class TestAnswers:
    async def answered(self, http: Client, job: Transcribe, sent: bytes) -> list[Transcript]:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(sent)

        async with peer(behave) as engine:
            try:
                return await transcribe(http, engine.url, job)
            finally:
                assert repr(http).startswith("<engine connections: 0 busy")

    async def test_words_and_language(self, http: Client, job: Transcribe) -> None:
        assert await self.answered(http, job, answer(wire.result("你好", "中文"))) == [Transcript("你好", "中文")]

    async def test_english_needs_no_translation(self, http: Client, job: Transcribe) -> None:
        job = dataclasses.replace(job, translate=True)
        for language in ("en", "英文", "English"):
            assert await self.answered(http, job, answer(wire.result("hello", language)))

    @pytest.mark.parametrize("language", ["中文", "zh", ""])
    async def test_other_languages_would_need_one(self, http: Client, job: Transcribe, language: str) -> None:
        job = dataclasses.replace(job, translate=True)
        with pytest.raises(BadRequest) as caught:
            await self.answered(http, job, answer(wire.result("你好", language)))
        assert caught.value.code == "translation_unsupported"
        assert await self.answered(http, job, answer(wire.result("", language))) == [Transcript("", language)]

    async def test_no_words_are_an_answer_too(self, http: Client, job: Transcribe) -> None:
        assert await self.answered(http, job, answer(b'{"text": ""}')) == [Transcript("", "")]

    @pytest.mark.parametrize("body", [b"", b"null", b"{}", b"<html>", b'{"text": 5}', b"[" * 50_000])
    async def test_junk_is_a_broken_engine(self, http: Client, job: Transcribe, body: bytes) -> None:
        with pytest.raises(EngineBroke, match="not a transcript"):
            await self.answered(http, job, answer(body))

    async def test_an_engine_that_says_no_success_with_200_is_broken(self, http: Client, job: Transcribe) -> None:
        with pytest.raises(EngineBroke):
            await self.answered(http, job, answer(wire.error("out of memory")))

    async def test_a_refusal_is_for_the_caller_in_the_engine_s_words(self, http: Client, job: Transcribe) -> None:
        with pytest.raises(BadRequest, match="unsupported language"):
            await self.answered(http, job, answer(wire.error("unsupported language"), 400))

    async def test_a_busy_engine_says_when_to_come_back(self, http: Client, job: Transcribe) -> None:
        with pytest.raises(EngineBusy) as caught:
            await self.answered(http, job, answer(wire.error("busy"), 503, "retry-after: 9\r\n"))
        assert caught.value.retry_after == 9

    async def test_a_failure_is_a_broken_engine(self, http: Client, job: Transcribe) -> None:
        with pytest.raises(EngineBroke, match="out of memory"):
            await self.answered(http, job, answer(wire.error("out of memory"), 500))

    async def test_an_answer_cut_off_is_a_broken_engine(self, http: Client, job: Transcribe) -> None:
        with pytest.raises(EngineBroke, match="broke off"):
            await self.answered(http, job, answer(wire.result("hello", ""))[:-3])


class TestEarlyAnswers:
    @pytest.mark.parametrize("kept", [True, False])
    async def test_a_refusal_in_the_middle_of_the_upload_is_read(
        self, http: Client, job: Transcribe, kept: bool
    ) -> None:
        async def behave(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await line.send(answer(wire.error("too large"), 413))
            if kept:
                await line.reader.read(100)
                await asyncio.sleep(30)

        async with peer(behave) as engine:
            if kept:
                with pytest.raises(BadRequest, match="too large"):
                    await transcribe(http, engine.url, job)
                assert repr(http) == "<engine connections: 1 busy, 0 kept>", "on its way out, never kept"
            else:  # whether the answer or the end of the connection arrives first is the network's choice
                with pytest.raises((BadRequest, EngineBroke, EngineUnavailable)):
                    await transcribe(http, engine.url, job)

    async def test_the_rest_of_an_upload_is_never_taken_for_the_next_request(
        self, http: Client, job: Transcribe
    ) -> None:
        """A server that answers early may read on: what it reads next must not be another request."""

        async def behave(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await line.send(answer(wire.error("no"), 400))
            rest = await line.reader.read()
            assert b"HTTP/1.1" not in rest

        async with peer(behave) as engine:
            for _ in range(3):
                with pytest.raises(BadRequest):
                    await transcribe(http, engine.url, job)
            assert len(engine.lines) == 3
