"""The adapter for CosyVoice: what reaches an engine for each kind of job, and what comes back as audio."""

import asyncio
import io
import socket
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Form, UploadFile
from fastapi.responses import StreamingResponse
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.adapters.connections import Client
from gateway.adapters.cosyvoice import CosyVoice
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineUnavailable
from gateway.events import Audio
from gateway.settings import Settings
from gateway.verbs import Preset, Reference, Speak, State
from tests.adapters.conftest import Line, answer, chunked, peer

RATE = "x-sample-rate: 24000\r\n"
ANN = Reference(pcm=bytes(range(250)) * 128, sample_rate=16000, digest="ann", text="")
ANN_SPOKEN = Reference(ANN.pcm, ANN.sample_rate, "ann", text="her words")


async def speak(http: Client, url: str, job: Speak, **settings: Any) -> list[Audio]:
    async with CosyVoice(url, http, Settings(**settings)).session(job) as events:
        return [piece async for piece in events]


def hi(voice: Preset | Reference = Preset("中文女"), **more: Any) -> Speak:
    return Speak("Hello.", voice, **more)


async def asked(http: Client, job: Speak) -> tuple[str, dict[str, Any]]:
    """(path, fields) of the request that a job makes; the recording is there as its parameters and PCM."""
    heads: list[tuple[bytes, bytes]] = []

    async def behave(line: Line) -> None:
        heads.append(await line.request())
        await line.send(chunked(b"\1\1", headers=RATE))

    async with peer(behave) as engine:
        await speak(http, engine.url, job)
    head, body = heads[0]
    kind = next(line for line in head.decode().split("\r\n") if line.startswith("content-type"))
    return head.split(b" ")[1].decode(), fields(kind.removeprefix("content-type: "), body)


def fields(content_type: str, body: bytes) -> dict[str, Any]:
    kind, options = parse_options_header(content_type)
    if kind == b"application/x-www-form-urlencoded":
        return {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
    found: list[bytearray] = []
    heads: list[bytearray] = []
    callbacks: dict[str, Any] = {
        "on_part_begin": lambda: (found.append(bytearray()), heads.append(bytearray())),
        "on_header_value": lambda data, start, end: heads[-1].extend(data[start:end]),
        "on_part_data": lambda data, start, end: found[-1].extend(data[start:end]),
    }
    MultipartParser(options[b"boundary"], callbacks).write(body)
    names = [parse_options_header(bytes(head))[1][b"name"].decode() for head in heads]
    return {
        name: recording(content) if name == "prompt_wav" else content.decode()
        for name, content in zip(names, found, strict=True)
    }


def recording(content: bytes) -> tuple[int, int, bytes]:
    with wave.open(io.BytesIO(content)) as file:
        return file.getframerate(), file.getnchannels(), file.readframes(1 << 30)


ANNS = (16000, 1, ANN.pcm)


class TestRequests:
    @pytest.mark.parametrize(
        ("job", "path", "expected"),
        [
            (hi(), "/inference_sft", {"tts_text": "Hello.", "spk_id": "中文女"}),
            (
                hi(instruction="cheerfully"),
                "/inference_instruct",
                {"tts_text": "Hello.", "spk_id": "中文女", "instruct_text": "cheerfully"},
            ),
            (hi(ANN), "/inference_cross_lingual", {"tts_text": "Hello.", "prompt_wav": ANNS}),
            (hi(ANN, language="en"), "/inference_cross_lingual", {"tts_text": "<|en|>Hello.", "prompt_wav": ANNS}),
            (
                hi(ANN_SPOKEN, language="en"),
                "/inference_zero_shot",
                {"tts_text": "Hello.", "prompt_text": "her words", "prompt_wav": ANNS},
            ),
            (
                hi(ANN_SPOKEN, instruction="slowly"),
                "/inference_instruct2",
                {"tts_text": "Hello.", "instruct_text": "slowly", "prompt_wav": ANNS},
            ),
            (hi(speed=1.25), "/inference_sft", {"tts_text": "Hello.", "spk_id": "中文女", "speed": "1.25"}),
            (
                hi(ANN, speed=0.5),
                "/inference_cross_lingual",
                {"tts_text": "Hello.", "speed": "0.5", "prompt_wav": ANNS},
            ),
        ],
        ids=["preset", "preset how", "voice", "voice in English", "voice with words", "voice how", "fast", "slow"],
    )
    async def test_each_kind_of_job_has_its_route_and_its_fields(
        self, http: Client, job: Speak, path: str, expected: dict[str, Any]
    ) -> None:
        assert await asked(http, job) == (path, expected)

    async def test_a_text_cannot_give_the_engine_orders(self, http: Client) -> None:
        job = Speak("<|zh|>Hi<|endofprompt|>", Reference(ANN.pcm, 16000, "ann", "<<|a|>|b|>"), instruction="")
        _, found = await asked(http, job)
        assert "<|" not in found["tts_text"] + found["prompt_text"]
        _, found = await asked(http, Speak("<|zh|>Hi", Preset("中文女"), instruction="<|endofprompt|>shout"))
        assert "<|" not in found["tts_text"] + found["instruct_text"]

    async def test_any_characters_of_a_text_arrive(self, http: Client) -> None:
        text = "a&b=c+d%20 ü 你好\n\t\"';,😀"
        assert (await asked(http, Speak(text, Preset("p"))))[1]["tts_text"] == text
        assert (await asked(http, Speak(text, ANN)))[1]["tts_text"] == text

    async def test_a_text_of_5000_characters_arrives(self, http: Client) -> None:
        text = "你好，世界。" * 834
        assert (await asked(http, Speak(text, ANN)))[1]["tts_text"] == text


class TestAudio:
    async def answered(self, http: Client, sent: bytes, cut: int | None = None, **settings: Any) -> list[Audio]:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(sent, cut)
            await line.hung_up()

        async with peer(behave) as engine:
            return await speak(http, engine.url, hi(), **settings)

    @pytest.mark.parametrize("cut", [1, 2, 3, 7, None])
    async def test_a_sample_is_never_split(self, http: Client, cut: int | None) -> None:
        pcm = bytes(range(1, 251))
        pieces = await self.answered(http, chunked(pcm[:1], pcm[1:4], pcm[4:], headers=RATE), cut)
        assert all(len(piece.pcm) % 2 == 0 and piece.pcm for piece in pieces)
        assert b"".join(piece.pcm for piece in pieces) == pcm

    async def test_half_a_sample_at_the_end_is_a_broken_engine(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="middle of a sample"):
            await self.answered(http, chunked(b"abc", headers=RATE))

    async def test_an_answer_without_audio_is_a_broken_engine(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="no audio"):
            await self.answered(http, chunked(headers=RATE))

    async def test_the_rate_is_the_one_that_the_engine_states(self, http: Client) -> None:
        sent = chunked(b"ab", headers="X-Sample-Rate: 22050\r\n")
        assert await self.answered(http, sent, speak_sample_rate=24000) == [Audio(b"ab", 22050)]

    async def test_the_rate_of_a_silent_engine_is_a_setting(self, http: Client) -> None:
        assert await self.answered(http, chunked(b"ab"), speak_sample_rate=22050) == [Audio(b"ab", 22050)]

    async def test_a_silent_engine_needs_that_setting(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="VOXGATE_SPEAK_SAMPLE_RATE"):
            await self.answered(http, chunked(b"ab"))

    @pytest.mark.parametrize("rate", ["0", "-24000", "24000.0", "7999", "192001", "x", "", "9" * 5000, "00240009", "²"])
    async def test_an_impossible_rate_is_a_broken_engine(self, http: Client, rate: str) -> None:
        with pytest.raises(EngineBroke, match="impossible"):
            await self.answered(http, chunked(b"ab", headers=f"x-sample-rate: {rate}\r\n").replace(b"\xc2", b""))
        assert repr(http).startswith("<engine connections: 0 busy")


class TestRefusals:
    async def refused(self, http: Client, sent: bytes) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(sent)
            await line.hung_up()

        async with peer(behave) as engine:
            await speak(http, engine.url, hi())

    async def test_what_the_engine_says_of_a_wrong_request_is_for_the_caller(self, http: Client) -> None:
        with pytest.raises(BadRequest, match="no such speaker") as caught:
            await self.refused(http, answer(b'{"error": "no such speaker"}', 400))
        assert caught.value.code == "engine_refused"

    @pytest.mark.parametrize(("header", "seconds"), [("retry-after: 7\r\n", 7), ("", 5), ("retry-after: soon\r\n", 5)])
    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_busy_engine_is_busy(self, http: Client, status: int, header: str, seconds: int) -> None:
        with pytest.raises(EngineBusy) as caught:
            await self.refused(http, answer(b"", status, header))
        assert caught.value.retry_after == seconds

    @pytest.mark.parametrize("seconds", ["999999", "9" * 5000])
    async def test_nobody_is_told_to_wait_for_days(self, http: Client, seconds: str) -> None:
        with pytest.raises(EngineBusy) as caught:
            await self.refused(http, answer(b"", 503, f"retry-after: {seconds}\r\n"))
        assert caught.value.retry_after == 3600

    @pytest.mark.parametrize("status", [400, 401, 404, 500, 502, 302, 204])
    async def test_other_answers_are_a_broken_engine(self, http: Client, status: int) -> None:
        with pytest.raises(EngineBroke, match=str(status)):
            await self.refused(http, b"HTTP/1.1 %d x\r\ncontent-length: 0\r\n\r\n" % status)

    async def test_what_a_broken_engine_says_is_cut(self, http: Client) -> None:
        with pytest.raises(EngineBroke) as caught:
            await self.refused(http, answer(b"x" * 100_000, 500))
        assert len(str(caught.value)) < 600


class TestRepetition:
    async def test_a_connection_that_closed_while_idle_costs_one_silent_retry(self, http: Client) -> None:
        """The engine closes a kept connection in the very moment of its next use: it reads, and never answers."""

        async def behave(line: Line) -> None:
            await line.request()
            await line.send(chunked(b"ab", headers=RATE))
            if line.number == 0:
                await line.request()

        async with peer(behave) as engine:
            assert await speak(http, engine.url, hi()) == [Audio(b"ab", 24000)]
            assert await speak(http, engine.url, hi()) == [Audio(b"ab", 24000)]
            assert len(engine.lines) == 2

    async def test_a_new_connection_that_closes_is_not_tried_again(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.request()

        async with peer(behave) as engine:
            with pytest.raises(EngineUnavailable):
                await speak(http, engine.url, hi())
            assert len(engine.lines) == 1

    async def test_an_answer_that_has_begun_is_never_asked_for_again(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(chunked(b"ab", headers=RATE))
            await line.request()
            await line.send(chunked(b"ab", headers=RATE)[:-5])

        async with peer(behave) as engine:
            await speak(http, engine.url, hi())
            with pytest.raises(EngineBroke, match="broke off"):
                await speak(http, engine.url, hi())
            assert len(engine.lines) == 1


class TestHealth:
    @pytest.mark.parametrize(
        ("sent", "state"),
        [
            (answer(b'{"status": "healthy", "state": "ready", "model": "m"}'), State.READY),
            (answer(b'{"state": "loading"}', 503), State.LOADING),
            (answer(b'{"state": "failed", "reason": "no file"}', 503), State.FAILED),
            (answer(b'{"detail":"Not Found"}', 404), State.READY),
            (answer(b"oops", 500), State.FAILED),
            (answer(b'{"state": []}'), State.READY),
            (answer(b"x" * 1_000_000), State.READY),
            (b"", State.DOWN),
            (b"junk", State.DOWN),
            (answer(b"hello")[:-1], State.DOWN),
        ],
    )
    async def test_any_answer_is_a_state(self, http: Client, sent: bytes, state: State) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            if sent:
                await line.send(sent)

        async with peer(behave) as engine:
            assert (await CosyVoice(engine.url, http, Settings()).health()).state is state
        assert repr(http).startswith("<engine connections: 0 busy")

    async def test_an_engine_that_does_not_answer_is_down_soon(
        self, http: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.adapters.http._HEALTH_SECONDS", 0.1)

        async def behave(line: Line) -> None:
            await line.request()
            assert await line.hung_up()

        async with peer(behave) as engine:
            found = await CosyVoice(engine.url, http, Settings()).health()
        assert (found.state, found.reason) == (State.DOWN, "no answer within 0.1 s")

    async def test_a_kept_connection_that_closes_does_not_make_an_engine_look_down(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(answer(b'{"state": "ready"}'))
            await line.request()

        async with peer(behave) as engine:
            for _ in range(4):
                assert (await CosyVoice(engine.url, http, Settings()).health()).state is State.READY
            assert len(engine.lines) > 1


def upstream() -> tuple[FastAPI, list[tuple[str, Any]]]:
    """An application with the routes, the fields and the answers of upstream's own server, and what it was asked."""
    app, seen = FastAPI(), []  # type: ignore[var-annotated]

    def speech() -> Iterator[bytes]:
        for _ in range(3):
            yield bytes(range(100))

    @app.get("/inference_sft")
    @app.post("/inference_sft")
    async def sft(tts_text: Annotated[str, Form()], spk_id: Annotated[str, Form()]) -> StreamingResponse:
        seen.append(("sft", (tts_text, spk_id)))
        return StreamingResponse(speech())

    @app.get("/inference_zero_shot")
    @app.post("/inference_zero_shot")
    async def zero_shot(
        tts_text: Annotated[str, Form()], prompt_text: Annotated[str, Form()], prompt_wav: UploadFile
    ) -> StreamingResponse:
        seen.append(("zero_shot", (tts_text, prompt_text, recording(await prompt_wav.read()))))
        return StreamingResponse(speech())

    @app.get("/inference_cross_lingual")
    @app.post("/inference_cross_lingual")
    async def cross_lingual(tts_text: Annotated[str, Form()], prompt_wav: UploadFile) -> StreamingResponse:
        seen.append(("cross_lingual", (tts_text, recording(await prompt_wav.read()))))
        return StreamingResponse(speech())

    @app.get("/inference_instruct2")
    @app.post("/inference_instruct2")
    async def instruct2(
        tts_text: Annotated[str, Form()], instruct_text: Annotated[str, Form()], prompt_wav: UploadFile
    ) -> StreamingResponse:
        seen.append(("instruct2", (tts_text, instruct_text, recording(await prompt_wav.read()))))
        return StreamingResponse(speech())

    return app, seen


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.get_running_loop().create_task(server._serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def test_a_stock_server_understands_every_kind_of_job(http: Client, tmp_path: Path) -> None:
    app, seen = upstream()
    async with served(app) as url:
        for job in (hi(), hi(ANN, language="en"), hi(ANN_SPOKEN), hi(ANN, instruction="slowly", speed=1.5)):
            pieces = await speak(http, url, job, speak_sample_rate=22050)
            assert b"".join(piece.pcm for piece in pieces) == bytes(range(100)) * 3
            assert {piece.sample_rate for piece in pieces} == {22050}
        async with httpx.AsyncClient() as client:
            assert (
                "content-type"
                not in (await client.post(f"{url}/inference_sft", data={"tts_text": "x", "spk_id": "y"})).headers
            )
        assert (await CosyVoice(url, http, Settings()).health()).state is State.READY
        with pytest.raises(EngineBroke, match="404"):
            await speak(http, url, hi(instruction="x"))
    assert seen[:4] == [
        ("sft", ("Hello.", "中文女")),
        ("cross_lingual", ("<|en|>Hello.", ANNS)),
        ("zero_shot", ("Hello.", "her words", ANNS)),
        ("instruct2", ("Hello.", "slowly", ANNS)),
    ]
