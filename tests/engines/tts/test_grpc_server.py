"""The gRPC door: what goes wrong has a status before the first byte, what goes well is speech, and who leaves is heard.

Real sockets; the messages are those of Google's library."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode

from engines.tts import grpc_server
from engines.tts.backends.embedded import Embedded
from engines.tts.form import LONGEST_TEXT
from engines.tts.job import Job, NotReady, Refused, TooLarge
from engines.tts.source import Source, Speech, Threads
from engines.workers.pool import Busy
from engines.workers.process import JobFailed
from gateway.wire import cosyvoice, engine_health
from gateway.wire import cosyvoice_grpc as wire
from gateway.wire.engine_health import Report
from tests.engines.tts.sound import RATE, from_pcm, tone
from tests.wire.protobuf import messages

THEIRS = messages()
PROMPT = (tone(220, 1.5, wire.PROMPT_RATE) * 32_000).astype("<i2").tobytes()


class Scripted:
    """A source that does what it is told."""

    def __init__(self, pieces: Sequence[bytes] = (b"abcd",), fails: Exception | None = None) -> None:
        self.report = Report("ready", "scripted", "cpu")
        self.jobs: list[Job] = []
        self.running = self.left = 0
        self._pieces, self._fails = pieces, fails
        self.endless = False

    @property
    def speakers(self) -> tuple[str, ...]:
        return ("Ann",)

    @asynccontextmanager
    async def speaking(self, job: Job) -> AsyncIterator[Speech]:
        self.jobs.append(job)
        if self._fails is not None and not self._pieces:
            raise self._fails
        self.running += 1
        try:
            yield Speech(24_000, self._each())
        finally:
            self.running -= 1
            self.left += 1

    async def _each(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        while self.endless:
            yield bytes(64 * 1024)
            await asyncio.sleep(0)
        if self._fails is not None:
            raise self._fails

    async def register(self, name: str, job: Job) -> None: ...

    async def registered(self) -> tuple[str, ...]:
        return ()

    def at_work(self) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError


@asynccontextmanager
async def serving(source: Source) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        grpc_server.serve(source, "127.0.0.1", 0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", (("grpc.use_local_subchannel_pool", 1),)) as channel,
    ):
        yield channel


def request(**payload: Any) -> bytes:
    data: bytes = THEIRS["Request"](**payload).SerializeToString()
    return data


def sft(text: str = "Hello.", name: str = "Ann") -> bytes:
    return request(sft_request={"spk_id": name, "tts_text": text})


def asking(channel: grpc.aio.Channel, data: bytes) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
    infer: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(wire.INFERENCE)
    return infer(data)


async def heard(channel: grpc.aio.Channel, data: bytes) -> tuple[Any, list[bytes]]:
    """(x-sample-rate, the audio of each message)."""
    call = asking(channel, data)
    pieces = [THEIRS["Response"].FromString(message).tts_audio async for message in call]
    return (await call.initial_metadata()).get(cosyvoice.SAMPLE_RATE_HEADER), pieces


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


class TestJobs:
    @pytest.mark.parametrize(
        ("payload", "job"),
        [
            ({"sft_request": {"spk_id": "Ann", "tts_text": "Hi"}}, Job(cosyvoice.SFT, "Hi", "Ann")),
            (
                {"instruct_request": {"spk_id": "Ann", "tts_text": "Hi", "instruct_text": "slowly"}},
                Job(cosyvoice.INSTRUCT, "Hi", "Ann", instruction="slowly"),
            ),
        ],
        ids=["sft", "instruct"],
    )
    async def test_a_speaker_is_asked_for_by_name(self, payload: dict[str, Any], job: Job) -> None:
        source = Scripted()
        async with serving(source) as channel:
            await heard(channel, request(**payload))
        assert source.jobs == [job]

    @pytest.mark.parametrize(("kind", "words"), [("zero_shot_request", "her words"), ("cross_lingual_request", "")])
    async def test_a_recording_arrives_as_it_was_sent(self, kind: str, words: str) -> None:
        source = Scripted()
        more = {"prompt_text": words} if words else {}
        async with serving(source) as channel:
            await heard(channel, request(**{kind: {"tts_text": "Hi", "prompt_audio": PROMPT, **more}}))
        (job,) = source.jobs
        assert job.prompt is not None
        assert (job.mode.removeprefix("/inference_"), job.prompt_text) == (kind.removesuffix("_request"), words)
        assert job.prompt.sample_rate == 16_000
        assert (job.prompt.samples * 2**15).astype("<i2").tobytes() == PROMPT


class TestAudio:
    async def test_the_pieces_and_their_rate(self) -> None:
        async with serving(Scripted([b"ab", b"cdef"])) as channel:
            assert await heard(channel, sft()) == ("24000", [b"ab", b"cdef"])

    async def test_a_long_sentence_fits_into_messages_that_every_client_takes(self) -> None:
        sentence = bytes(range(250)) * 40_000
        async with serving(Scripted([sentence])) as channel:
            _, pieces = await heard(channel, sft())
        assert b"".join(pieces) == sentence
        assert all(len(piece) % 2 == 0 for piece in pieces)

    async def test_embedded_speech_is_speech(self, embedded: Embedded) -> None:
        source = Threads(embedded)
        async with source.at_work(), serving(source) as channel:
            await until(lambda: source.report.state == "ready")
            rate, pieces = await heard(channel, sft("Hello there. And once more.", "英文女"))
            assert rate == str(RATE)
            assert len(pieces) > 1
            voice = {"tts_text": "Hello there.", "prompt_audio": PROMPT, "prompt_text": "words"}
            _, cloned = await heard(channel, request(zero_shot_request=voice))
        for found in (pieces, cloned):
            samples = from_pcm(b"".join(found))
            assert len(samples) > RATE / 2
            assert np.abs(samples).max() > 0.05


class TestRefusals:
    async def refused(self, data: bytes, source: Source | None = None) -> grpc.aio.AioRpcError:
        async with serving(source or Scripted()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await heard(channel, data)
        return caught.value

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "asks for nothing"),
            (b"\x0a\x7f", "cannot be read"),
            (sft("…"), "nothing in tts_text"),
            (sft("a" * (LONGEST_TEXT + 1)), "longer than"),
            (sft(name="Bob"), "unknown spk_id 'Bob'; known are Ann"),
            (request(instruct_request={"tts_text": "Hi", "spk_id": "小明"}), "unknown spk_id '小明'"),
            (request(instruct_request={"tts_text": "Hi", "spk_id": "Ann", "instruct_text": "好" * 5001}), "is longer"),
            (request(zero_shot_request={"tts_text": "Hi", "prompt_text": "好" * 5001}), "5000 characters"),
            (request(cross_lingual_request={"tts_text": "Hi"}), "s are needed"),
            (request(cross_lingual_request={"tts_text": "Hi", "prompt_audio": PROMPT + b"x"}), "middle of a sample"),
            (request(zero_shot_request={"tts_text": "Hi", "prompt_audio": bytes(32_000)}), "silent"),
            (request(zero_shot_request={"tts_text": "Hi", "prompt_audio": PROMPT * 31}), "more than 30 s"),
        ],
        ids=[
            "nothing", "no message", "unspeakable", "too long", "unknown", "unknown with an instruction",
            "too long an instruction", "too long a transcript",
            "no recording", "half a sample", "silence", "too much of it",
        ],
    )  # fmt: skip
    async def test_what_the_caller_did_wrong_is_an_invalid_argument(self, data: bytes, says: str) -> None:
        found = await self.refused(data)
        assert found.code() is StatusCode.INVALID_ARGUMENT
        assert says in (found.details() or "")

    async def test_a_request_beyond_all_bounds_is_refused_by_its_size(self) -> None:
        found = await self.refused(request(cross_lingual_request={"tts_text": "Hi", "prompt_audio": bytes(9 << 20)}))
        assert found.code() is StatusCode.RESOURCE_EXHAUSTED

    @pytest.mark.parametrize(
        ("fails", "code"),
        [
            (Refused("no such language"), StatusCode.INVALID_ARGUMENT),
            (TooLarge("too long"), StatusCode.INVALID_ARGUMENT),
            (NotReady("it is loading"), StatusCode.UNAVAILABLE),
            (Busy("all are busy"), StatusCode.RESOURCE_EXHAUSTED),
            (JobFailed("the worker died", 502), StatusCode.INTERNAL),
        ],
    )
    async def test_what_the_source_says_is_told(self, fails: Exception, code: StatusCode) -> None:
        found = await self.refused(sft(), Scripted((), fails))
        assert (found.code(), found.details()) == (code, str(fails))
        assert ("retry-after" in (found.trailing_metadata() or {})) == (getattr(fails, "status", 0) == 503)

    @pytest.mark.parametrize("pieces", [(), (b"ab",)], ids=["before", "in the middle"])
    async def test_a_failure_nobody_foresaw_is_internal_and_says_no_more(
        self, pieces: Sequence[bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        found = await self.refused(sft(), Scripted(pieces, KeyError("secret")))
        assert (found.code(), found.details()) == (StatusCode.INTERNAL, "synthesis failed: KeyError")
        assert [record.name for record in caplog.records] == ["engines.tts.grpc_server"]

    async def test_no_sound_is_a_failure(self) -> None:
        assert (await self.refused(sft(), Scripted(()))).code() is StatusCode.INTERNAL

    async def test_an_unknown_call_is_unimplemented(self) -> None:
        async with serving(Scripted()) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/cosyvoice.CosyVoice/Other")
            assert await call(b"").code() is StatusCode.UNIMPLEMENTED


class TestLeaving:
    @pytest.mark.parametrize("reads", [True, False], ids=["while it is read", "while the engine waits for the reader"])
    async def test_a_client_that_leaves_ends_the_speech(self, reads: bool, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        source = Scripted()
        source.endless = True
        async with serving(source) as channel:
            call = asking(channel, sft())
            await call.read()
            for _ in range(100 if reads else 0):
                await call.read()
            if not reads:
                await asyncio.sleep(0.2)
            call.cancel()
            await until(lambda: source.left == 1)
            assert (await heard_one(channel, source)) == b"abcd"
        assert not caplog.records

    async def test_a_client_that_is_cut_off_ends_the_speech(self) -> None:
        source = Scripted()
        source.endless = True
        async with grpc_server.serve(source, "127.0.0.1", 0) as port:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await asking(channel, sft()).read()
            await until(lambda: source.left == 1)

    async def test_the_end_of_the_server_ends_the_speech(self) -> None:
        source = Scripted()
        source.endless = True
        async with grpc_server.serve(source, "127.0.0.1", 0) as port:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            await asking(channel, sft()).read()
        assert (source.running, source.left) == (0, 1)
        await channel.close()


async def heard_one(channel: grpc.aio.Channel, source: Scripted) -> bytes:
    source.endless = False
    _, pieces = await heard(channel, sft())
    return b"".join(pieces)


class TestHealth:
    @pytest.mark.parametrize("state", ["ready", "loading", "failed"])
    async def test_it_is_told_in_the_standard_way_and_in_ours(self, state: str) -> None:
        source = Scripted()
        source.report = Report(state, "模型", "cuda:0", "" if state == "ready" else "why")
        async with serving(source) as channel:
            call: grpc.aio.UnaryUnaryCall[bytes, bytes] = channel.unary_unary(wire.HEALTH)(b"")
            answer, told = await call, await call.initial_metadata()
        assert answer == (b"\x08\x01" if state == "ready" else b"\x08\x02")
        assert engine_health.decode(200, told[wire.REPORT_METADATA]) == source.report


async def test_a_port_that_is_taken_is_not_shared() -> None:
    async with grpc_server.serve(Scripted(), "127.0.0.1", 0) as port:
        with pytest.raises(RuntimeError):
            async with grpc_server.serve(Scripted(), "127.0.0.1", port):
                pass
