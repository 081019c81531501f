"""The adapter for CosyVoice's gRPC protocol: what reaches an engine for each kind of job, what comes back as audio, and
what the gateway makes of an engine that refuses, dies or falls silent. Real sockets; the library's messages."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc import StatusCode

from engines.scripted import ScriptedEngine
from gateway import adapters
from gateway.adapters.connections import Client
from gateway.adapters.cosyvoice_grpc import CosyVoiceGrpc
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineTimeout,
    EngineUnavailable,
    EngineUnreachable,
    ShuttingDown,
)
from gateway.events import Audio
from gateway.settings import Settings, SettingsError
from gateway.verbs import Preset, Reference, Speak, State
from gateway.wire import cosyvoice_grpc as wire
from gateway.wire import engine_health
from tests.conftest import Gateway, ready, register, running, speech
from tests.wire.protobuf import messages

THEIRS = messages()
RATE = (("x-sample-rate", "24000"),)
ANN = Reference(pcm=bytes(range(250)) * 128, sample_rate=16000, digest="ann", text="")
ANN_SPOKEN = Reference(ANN.pcm, ANN.sample_rate, "ann", text="her words")

Context = grpc.aio.ServicerContext[bytes, bytes]
Behave = Callable[[bytes, Context], Awaitable[None]]


@dataclass(slots=True)
class Engine:
    """A server that does what a test tells it, and what it saw."""

    port: int = 0
    behave: Behave | None = None
    asked: list[bytes] = field(default_factory=list)
    running: int = 0
    abandoned: int = 0
    """Calls whose client left before the end."""
    report: engine_health.Report | None = None
    """None is upstream's server, which knows no health."""
    server: "grpc.aio.Server | None" = None

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        inference = grpc.unary_stream_rpc_method_handler(self._infer)
        calls = {wire.INFERENCE: inference}
        if self.report is not None:
            calls[wire.HEALTH] = grpc.unary_unary_rpc_method_handler(self._health)
        for path, handler in calls.items():
            _, service, call = path.split("/")
            self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {call: handler}),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.stop(None)

    async def _infer(self, request: bytes, context: Context) -> None:
        assert self.behave is not None
        self.asked.append(request)
        self.running += 1
        try:
            await self.behave(request, context)
        except (asyncio.CancelledError, grpc.aio.InternalError):  # the latter from a write that waits
            self.abandoned += 1
            raise
        finally:
            self.running -= 1

    async def _health(self, request: bytes, context: Context) -> bytes:
        assert self.report is not None
        await context.send_initial_metadata(((wire.REPORT_METADATA, engine_health.encode(self.report)[1]),))
        return wire.encode_health(self.report.state == "ready")


@asynccontextmanager
async def engine(behave: Behave, report: engine_health.Report | None = None) -> AsyncIterator[Engine]:
    made = Engine(behave=behave, report=report)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def says(*pieces: bytes, rate: Any = RATE) -> Behave:
    """Messages of Google's library around the pieces."""

    async def behave(_request: bytes, context: Context) -> None:
        await context.send_initial_metadata(rate)
        for piece in pieces:
            await context.write(THEIRS["Response"](tts_audio=piece).SerializeToString())

    return behave


def refuses(code: StatusCode, text: str = "", *metadata: tuple[str, str], after: Sequence[bytes] = ()) -> Behave:
    async def behave(request: bytes, context: Context) -> None:
        if after:
            await says(*after)(request, context)
        await context.abort(code, text, metadata)

    return behave


async def hangs(_request: bytes, _context: Context) -> None:
    await asyncio.Event().wait()


async def drones(request: bytes, context: Context) -> None:
    """Speech without end."""
    await says()(request, context)
    while True:
        await context.write(wire.encode_response(bytes(4800)))
        await asyncio.sleep(0.005)


async def speak(http: Client, url: str, job: Speak, **settings: Any) -> list[Audio]:
    async with CosyVoiceGrpc(url, http, Settings(**settings)).session(job) as events:
        return [piece async for piece in events]


def hi(voice: Preset | Reference = Preset("中文女"), **more: Any) -> Speak:
    return Speak("Hello.", voice, **more)


async def asked(http: Client, job: Speak) -> dict[str, dict[str, Any]]:
    """{kind: fields} of the request that a job makes, as Google's library reads it."""
    async with engine(says(b"\1\1")) as one:
        await speak(http, one.url, job)
    message = THEIRS["Request"]()
    message.ParseFromString(one.asked[0])
    kind = message.WhichOneof("RequestPayload")
    return {kind: {field.name: value for field, value in getattr(message, kind).ListFields()}}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


class TestRequests:
    @pytest.mark.parametrize(
        ("job", "expected"),
        [
            (hi(), {"sft_request": {"tts_text": "Hello.", "spk_id": "中文女"}}),
            (hi(language="en"), {"sft_request": {"tts_text": "<|en|>Hello.", "spk_id": "中文女"}}),
            (
                hi(instruction="cheerfully"),
                {"instruct_request": {"tts_text": "Hello.", "spk_id": "中文女", "instruct_text": "cheerfully"}},
            ),
            (hi(ANN), {"cross_lingual_request": {"tts_text": "Hello.", "prompt_audio": ANN.pcm}}),
            (
                hi(ANN, language="en"),
                {"cross_lingual_request": {"tts_text": "<|en|>Hello.", "prompt_audio": ANN.pcm}},
            ),
            (
                hi(ANN_SPOKEN, language="en"),
                {
                    "zero_shot_request": {
                        "tts_text": "Hello.",
                        "prompt_text": "her words",
                        "prompt_audio": ANN.pcm,
                    }
                },
            ),
        ],
        ids=["preset", "preset in English", "preset how", "voice", "voice in English", "voice with words"],
    )
    async def test_each_kind_of_job_has_its_message(
        self, http: Client, job: Speak, expected: dict[str, dict[str, Any]]
    ) -> None:
        assert await asked(http, job) == expected

    @pytest.mark.parametrize(
        ("job", "what"),
        [
            (hi(speed=1.25), "speed"),
            (hi(ANN, instruction="slowly"), "instruction"),
            (hi(Reference(ANN.pcm, 24000, "ann")), "24000 Hz"),
        ],
        ids=["speed", "instruction with a recording", "another rate"],
    )
    async def test_what_the_protocol_cannot_say_is_refused_and_not_left_out(
        self, http: Client, job: Speak, what: str
    ) -> None:
        async with engine(says(b"\1\1")) as one:
            with pytest.raises(BadRequest, match=what) as caught:
                await speak(http, one.url, job)
        assert caught.value.code == "unsupported_by_engine"
        assert not one.asked

    async def test_a_text_cannot_give_the_engine_orders(self, http: Client) -> None:
        job = Speak("<|zh|>Hi<|endofprompt|>", Reference(ANN.pcm, 16000, "ann", "<<|a|>|b|>"))
        found = (await asked(http, job))["zero_shot_request"]
        assert "<|" not in found["tts_text"] + found["prompt_text"]
        job = Speak("<|zh|>Hi", Preset("中文女"), instruction="<|endofprompt|>shout")
        found = (await asked(http, job))["instruct_request"]
        assert "<|" not in found["tts_text"] + found["instruct_text"]

    async def test_any_text_and_the_longest_recording_arrive(self, http: Client) -> None:
        text = "a&b=c+d%20 ü 你好\n\t\"';,😀" * 900
        voice = Reference(bytes(30 * 32_000), 16000, "long", "words")
        found = (await asked(http, Speak(text, voice)))["zero_shot_request"]
        assert (found["tts_text"], len(found["prompt_audio"])) == (text, 960_000)


class TestAudio:
    async def answered(self, http: Client, *pieces: bytes, rate: Any = RATE, **settings: Any) -> list[Audio]:
        async with engine(says(*pieces, rate=rate)) as one:
            return await speak(http, one.url, hi(), **settings)

    async def test_a_sample_is_never_split(self, http: Client) -> None:
        pcm = bytes(range(1, 251))
        pieces = await self.answered(http, pcm[:1], b"", pcm[1:4], pcm[4:5], pcm[5:6], pcm[6:])
        assert all(len(piece.pcm) % 2 == 0 and piece.pcm for piece in pieces)
        assert b"".join(piece.pcm for piece in pieces) == pcm

    async def test_half_a_sample_at_the_end_is_a_broken_engine(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="middle of a sample"):
            await self.answered(http, b"abc")

    @pytest.mark.parametrize("pieces", [(), (b"",), (b"", b"")])
    async def test_an_answer_without_audio_is_a_broken_engine(self, http: Client, pieces: tuple[bytes, ...]) -> None:
        with pytest.raises(EngineBroke, match="no audio"):
            await self.answered(http, *pieces)

    async def test_a_sentence_of_many_megabytes_arrives_in_one_message(self, http: Client) -> None:
        pieces = await self.answered(http, bytes(20_000_000))
        assert sum(len(piece.pcm) for piece in pieces) == 20_000_000

    async def test_what_is_no_message_of_the_protocol_is_a_broken_engine(self, http: Client) -> None:
        async def behave(_request: bytes, context: Context) -> None:
            await context.write(b"\x0a\x7f?")

        async with engine(behave) as one:
            with pytest.raises(EngineBroke, match="not CosyVoice's"):
                await speak(http, one.url, hi(), speak_sample_rate=22050)

    async def test_the_rate_is_the_one_that_the_engine_states(self, http: Client) -> None:
        rate = (("x-sample-rate", "22050"),)
        assert await self.answered(http, b"ab", rate=rate, speak_sample_rate=24000) == [Audio(b"ab", 22050)]

    async def test_the_rate_of_a_silent_engine_is_a_setting(self, http: Client) -> None:
        assert await self.answered(http, b"ab", rate=(), speak_sample_rate=22050) == [Audio(b"ab", 22050)]

    async def test_a_silent_engine_needs_that_setting(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="VOXGATE_SPEAK_SAMPLE_RATE"):
            await self.answered(http, b"ab", rate=())

    @pytest.mark.parametrize("rate", ["0", "-24000", "24000.0", "7999", "192001", "x", "9" * 5000])
    async def test_an_impossible_rate_is_a_broken_engine(self, http: Client, rate: str) -> None:
        with pytest.raises(EngineBroke, match="impossible"):
            await self.answered(http, b"ab", rate=(("x-sample-rate", rate),))


class TestRefusals:
    async def refused(self, http: Client, behave: Behave, **settings: Any) -> None:
        async with engine(behave) as one:
            await speak(http, one.url, hi(), **settings)

    async def test_what_the_engine_says_of_a_wrong_request_is_for_the_caller(self, http: Client) -> None:
        with pytest.raises(BadRequest, match="no such speaker 小明") as caught:
            await self.refused(http, refuses(StatusCode.INVALID_ARGUMENT, "no such speaker 小明"))
        assert (caught.value.code, caught.value.quotes) == ("engine_refused", True)

    @pytest.mark.parametrize(
        ("code", "metadata", "seconds"),
        [
            (StatusCode.RESOURCE_EXHAUSTED, (), 5),
            (StatusCode.RESOURCE_EXHAUSTED, (("retry-after", "7"),), 7),
            (StatusCode.RESOURCE_EXHAUSTED, (("retry-after", "9" * 500),), 3600),
            (StatusCode.UNAVAILABLE, (("retry-after", "1"),), 1),
        ],
    )
    async def test_a_busy_engine_is_busy(
        self, http: Client, code: StatusCode, metadata: tuple[tuple[str, str], ...], seconds: int
    ) -> None:
        with pytest.raises(EngineBusy) as caught:
            await self.refused(http, refuses(code, "later", *metadata))
        assert caught.value.retry_after == seconds

    @pytest.mark.parametrize(
        "code", [StatusCode.UNKNOWN, StatusCode.INTERNAL, StatusCode.UNIMPLEMENTED, StatusCode.UNAUTHENTICATED]
    )
    async def test_other_answers_are_a_broken_engine(self, http: Client, code: StatusCode) -> None:
        with pytest.raises(EngineBroke, match=code.name) as caught:
            await self.refused(http, refuses(code, "x" * 5000))
        assert len(str(caught.value)) < 600

    async def test_an_exception_in_a_stock_server_is_a_broken_engine(self, http: Client) -> None:
        async def behave(_request: bytes, _context: Context) -> None:
            raise KeyError("中文女")

        with pytest.raises(EngineBroke, match="中文女"):
            await self.refused(http, behave)

    async def test_a_failure_in_the_middle_breaks_off(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="broke off"):
            await self.refused(http, refuses(StatusCode.INVALID_ARGUMENT, "no", after=[b"ab"]))

    async def test_an_engine_that_cancels_is_not_taken_for_a_client_that_leaves(self, http: Client) -> None:
        with pytest.raises(EngineBroke, match="CANCELLED"):
            await self.refused(http, refuses(StatusCode.CANCELLED, "bye"))
        with pytest.raises(EngineBroke, match="broke off"):
            await self.refused(http, refuses(StatusCode.CANCELLED, "bye", after=[b"ab"]))

    @pytest.mark.parametrize("silent", [hangs, None], ids=["before", "in the middle"])
    async def test_an_engine_that_falls_silent_is_given_up(self, http: Client, silent: Behave | None) -> None:
        async def stops(request: bytes, context: Context) -> None:
            await says(b"ab")(request, context)
            await hangs(request, context)

        async with engine(silent or stops) as one:
            with pytest.raises(EngineTimeout, match=r"silent for 0\.2 s"):
                await speak(http, one.url, hi(), engine_idle_timeout=0.2)
            await until(lambda: one.abandoned == 1)

    async def test_an_engine_that_never_ends_is_given_up(self, http: Client) -> None:
        async with engine(drones) as one:
            with pytest.raises(EngineTimeout, match=r"longer than 0\.3 s"):
                await speak(http, one.url, hi(), engine_total_timeout=0.3)
            await until(lambda: one.abandoned == 1)


@asynccontextmanager
async def cable(port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """(port, cut): a way to the port that can be cut as the death of a process cuts it."""
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back))
        with suppress(asyncio.CancelledError):
            await asyncio.gather(copy(reader, back), copy(there, writer))

    def cut() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TestConnections:
    async def test_an_engine_that_is_not_there_is_unreachable(self, http: Client) -> None:
        async with engine(says(b"ab")) as one:
            pass
        with pytest.raises(EngineUnreachable, match="cannot be reached"):
            await speak(http, one.url, hi())

    async def test_an_engine_that_never_accepts_is_unreachable(self, http: Client) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
            with pytest.raises(EngineUnreachable, match=r"within 0\.2 s"):
                await speak(http, url, hi(), engine_connect_timeout=0.2)

    async def test_an_engine_that_dies_before_its_answer_is_unavailable(self, http: Client) -> None:
        async with engine(hangs) as one, cable(one.port) as (port, cut):
            asking = asyncio.get_running_loop().create_task(speak(http, f"grpc://127.0.0.1:{port}", hi()))
            await until(lambda: one.running == 1)
            cut()
            with pytest.raises(EngineUnavailable) as caught:
                await asking
        assert not isinstance(caught.value, EngineUnreachable)

    async def test_an_engine_that_dies_in_its_answer_breaks_off(self, http: Client) -> None:
        async with engine(drones) as one, cable(one.port) as (port, cut):
            adapter = CosyVoiceGrpc(f"grpc://127.0.0.1:{port}", http, Settings())
            with pytest.raises(EngineBroke, match="broke off"):
                async with adapter.session(hi()) as events:
                    async for _ in events:
                        cut()

    async def test_an_engine_that_is_back_is_found_again(self, http: Client) -> None:
        async with engine(says(b"ab")) as one:
            adapter = CosyVoiceGrpc(one.url, http, Settings())
            assert (await adapter.health()).state is State.READY
            await one.stop()
            assert (await adapter.health()).state is State.DOWN
            await one.start()
            async with asyncio.timeout(5):
                while (await adapter.health()).state is not State.READY:
                    await asyncio.sleep(0.02)
            async with adapter.session(hi()) as events:
                assert [piece.pcm async for piece in events] == [b"ab"]

    async def test_leaving_early_cancels_the_engine(self, http: Client) -> None:
        async with engine(drones) as one:
            async with CosyVoiceGrpc(one.url, http, Settings()).session(hi()) as events:
                async for _ in events:
                    break
            await until(lambda: one.abandoned == 1)
            assert one.running == 0

    async def test_being_cancelled_before_the_answer_cancels_the_engine(self, http: Client) -> None:
        async with engine(hangs) as one:
            asking = asyncio.get_running_loop().create_task(speak(http, one.url, hi()))
            await until(lambda: one.running == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: one.abandoned == 1)

    async def test_a_slow_reader_holds_the_engine_up(self, http: Client) -> None:
        written = 0

        async def behave(request: bytes, context: Context) -> None:
            nonlocal written
            await says()(request, context)
            for _ in range(1000):
                await context.write(wire.encode_response(bytes(64 * 1024)))
                written += 1

        async with engine(behave) as one:
            async with CosyVoiceGrpc(one.url, http, Settings()).session(hi()) as events:
                await anext(aiter(events))
                await asyncio.sleep(0.5)
                assert written < 20, "more than a megabyte lies between the two"
            await until(lambda: one.abandoned == 1)

    async def test_the_end_of_the_client_ends_what_still_runs(self) -> None:
        async with engine(drones) as one:
            async with Client(connect=2, idle=5, total=20) as http:
                events = await CosyVoiceGrpc(one.url, http, Settings()).session(hi()).__aenter__()
            await until(lambda: one.abandoned == 1)
            with pytest.raises(ShuttingDown):
                async for _ in events:
                    pass

    async def test_the_end_of_the_client_ends_what_still_connects(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
            async with Client(connect=2, idle=5, total=20) as http:
                adapter = CosyVoiceGrpc(url, http, Settings())
                connecting = asyncio.ensure_future(adapter.session(hi()).__aenter__())
                await asyncio.sleep(0)
            with pytest.raises(ShuttingDown):
                await connecting
            with pytest.raises(ShuttingDown):
                await adapter.session(hi()).__aenter__()
            assert (await adapter.health()).state is State.DOWN

    async def test_many_at_once_share_one_connection(self, http: Client) -> None:
        async with engine(says(b"ab", b"cd")) as one:
            adapter = CosyVoiceGrpc(one.url, http, Settings())

            async def ask() -> bytes:
                async with adapter.session(hi()) as events:
                    return b"".join([piece.pcm async for piece in events])

            assert await asyncio.gather(*(ask() for _ in range(50))) == [b"abcd"] * 50


class TestHealth:
    @pytest.mark.parametrize("state", ["ready", "loading", "failed"])
    async def test_our_engines_say_what_they_can_do(self, http: Client, state: str) -> None:
        report = engine_health.Report(state, "模型", "cuda:0", "why", engine_health.Progress("model", 1, 4))
        async with engine(hangs, report) as one:
            found = await CosyVoiceGrpc(one.url, http, Settings()).health()
        assert (found.state, found.model, found.device, found.reason) == (State(state), "模型", "cuda:0", "why")
        assert found.progress == report.progress

    async def test_upstreams_server_is_ready_when_it_answers(self, http: Client) -> None:
        async with engine(hangs) as one:
            assert (await CosyVoiceGrpc(one.url, http, Settings()).health()).state is State.READY

    async def test_one_that_is_not_there_is_down(self, http: Client) -> None:
        async with engine(hangs) as one:
            pass
        found = await CosyVoiceGrpc(one.url, http, Settings()).health()
        assert (found.state, found.reason) == (State.DOWN, "the engine cannot be reached")

    async def test_one_that_accepts_and_says_nothing_is_down(
        self, http: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.adapters.cosyvoice_grpc._HEALTH_SECONDS", 0.2)

        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
            found = await CosyVoiceGrpc(url, http, Settings()).health()
        assert (found.state, found.reason) == (State.DOWN, "no answer within 0.2 s")


ASK = {"text": "Hello there, how are you?"}


@asynccontextmanager
async def gateway_before(tmp_path: Path, *engines: Engine, **settings: Any) -> AsyncIterator[Gateway]:
    given = {"speak_engine": "cosyvoice_grpc", "speak_urls": ",".join(one.url for one in engines)}
    async with (
        ScriptedEngine() as recogniser,
        running(tmp_path, recogniser, **given, **settings) as gateway,
    ):
        yield await ready(gateway)


async def all_ready(gateway: Gateway) -> None:
    await until(lambda: all(one.health.state is State.READY for one in gateway.state["speak"].members))


class TestBehindTheGateway:
    async def test_a_streamed_answer_arrives_whole_and_leaves_nothing(self, tmp_path: Path) -> None:
        async with engine(says(*[bytes(4800)] * 10)) as one, gateway_before(tmp_path, one) as gateway:
            answer = await gateway.client.post("/api/synthesize", json=ASK)
            assert (answer.status_code, len(answer.content)) == (200, 44 + 48_000)
            await gateway.idle()

    async def test_a_registered_voice_is_spoken_with(self, tmp_path: Path) -> None:
        async with engine(says(bytes(4800))) as one, gateway_before(tmp_path, one) as gateway:
            voice = await register(gateway)
            ask = {"device_id": "device-1", "voice_id": voice, "text": "Hello there."}
            answer = await gateway.client.post("/v1/tts", json=ask)
            assert answer.status_code == 200, answer.text
            await gateway.idle()
        request = wire.decode_request(one.asked[0])
        assert isinstance(request, wire.CrossLingual | wire.ZeroShot)
        assert 32_000 <= len(request.prompt_audio) <= 960_000

    async def test_a_client_that_hangs_up_in_a_stream_cancels_the_engine(self, tmp_path: Path) -> None:
        async with engine(drones) as one, gateway_before(tmp_path, one) as gateway:
            async with gateway.client.stream("POST", "/api/synthesize", json=ASK) as answer:
                async for _ in answer.aiter_bytes():
                    break
            await until(lambda: one.abandoned == 1)
            await gateway.idle()

    async def test_an_engine_that_dies_in_its_answer_breaks_the_transfer_off(self, tmp_path: Path) -> None:
        async with (
            engine(drones) as one,
            cable(one.port) as (port, cut),
            gateway_before(tmp_path, Engine(port)) as gateway,
        ):
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                async with gateway.client.stream("POST", "/api/synthesize", json=ASK) as answer:
                    async for _ in answer.aiter_bytes():
                        cut()
            await gateway.idle()

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            (StatusCode.INVALID_ARGUMENT, 400),
            (StatusCode.RESOURCE_EXHAUSTED, 503),
            (StatusCode.UNKNOWN, 502),
            (StatusCode.CANCELLED, 502),
        ],
    )
    async def test_a_refusal_is_a_clean_error(self, tmp_path: Path, code: StatusCode, status: int) -> None:
        async with engine(refuses(code, "unknown spk_id")) as one, gateway_before(tmp_path, one) as gateway:
            answer = await gateway.client.post("/api/synthesize", json=ASK)
            assert answer.status_code == status
            assert ("retry-after" in answer.headers) == (status == 503)
            await gateway.idle()

    async def test_a_replica_that_is_busy_is_passed_over(self, tmp_path: Path) -> None:
        async with (
            engine(refuses(StatusCode.RESOURCE_EXHAUSTED)) as a,
            engine(says(b"abcd")) as b,
            gateway_before(tmp_path, a, b) as gateway,
        ):
            await all_ready(gateway)
            for _ in range(4):
                assert (await gateway.client.post("/api/synthesize", json=ASK)).status_code == 200
            assert a.asked
            assert len(b.asked) == 4

    async def test_a_replica_that_dies_is_replaced_and_no_client_sees_it(self, tmp_path: Path) -> None:
        async with (
            engine(says(b"abcd")) as a,
            engine(says(b"abcd")) as b,
            gateway_before(tmp_path, a, b, health_interval=0.5) as gateway,
        ):
            await all_ready(gateway)
            await a.stop()
            for _ in range(4):
                assert (await gateway.client.post("/api/synthesize", json=ASK)).status_code == 200
            await until(lambda: gateway.state["speak"].members[0].health.state is State.DOWN)

    async def test_decoders_start_while_speech_runs_and_nothing_is_said_of_it(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """gRPC's threads and a process that forks are known to quarrel, on standard error."""
        async with engine(drones) as one, gateway_before(tmp_path, one) as gateway:
            capfd.readouterr()
            async with gateway.client.stream("POST", "/api/synthesize", json=ASK) as answer:
                chunks = answer.aiter_bytes()
                await anext(chunks)
                for _ in range(5):
                    heard = await gateway.client.post("/api/transcribe", files={"audio": speech()})
                    assert heard.status_code == 200
                    await anext(chunks)
            await until(lambda: one.abandoned == 1)
        said = capfd.readouterr()
        assert not re.search("fork|grpc|poll", said.out + said.err, re.IGNORECASE), said


@pytest.mark.parametrize(
    ("adapter", "url"),
    [
        ("cosyvoice_grpc", "http://tts:50000"),
        ("cosyvoice_grpc", "grpc://tts"),
        ("cosyvoice_grpc", "grpc://tts:50000/path"),
        ("cosyvoice", "grpc://tts:50000"),
    ],
)
def test_an_address_of_another_protocol_stops_the_start(adapter: str, url: str) -> None:
    settings = Settings.model_validate({"speak_engine": adapter, "speak_urls": url})
    with pytest.raises(SettingsError, match=f"speak_urls: the adapter {adapter} takes"):
        adapters.check(settings)


@pytest.mark.parametrize("url", ["grpc://tts:50000", "grpc://[::1]:50000", "grpc://tts:50000/"])
def test_an_address_of_the_protocol_starts(url: str) -> None:
    adapters.check(Settings.model_validate({"speak_engine": "cosyvoice_grpc", "speak_urls": url}))
