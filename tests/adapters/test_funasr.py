"""The adapter for live recognition: what reaches an engine, ours or upstream's, and what its answers become."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.adapters import funasr_stream
from gateway.adapters.connections import Client
from gateway.adapters.funasr import FunAsr
from gateway.adapters.funasr_http import FunAsrHttp
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineTimeout,
    EngineUnavailable,
    EngineUnreachable,
)
from gateway.events import Audio, Transcript
from gateway.settings import Settings
from gateway.verbs import Live, Recording, Transcribe
from gateway.wire import funasr_2pass as wire
from gateway.wire import funasr_http
from tests.adapters.conftest import Line, answer, peer

OURS = f"{wire.RESAMPLES}, {wire.ACKS}"


@dataclass(slots=True)
class Engine:
    """A scripted engine, and what reached it."""

    url: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    packets: list[bytes] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection is over."""

    async def hear(self, socket: ServerConnection) -> None:
        """Everything up to the end of the audio."""
        self.config = json.loads(await socket.recv())
        async for frame in socket:
            if isinstance(frame, str):
                self.end = json.loads(frame)
                return
            self.packets.append(frame)


Behave = Callable[[Engine, ServerConnection], Awaitable[None]]


@asynccontextmanager
async def scripted(behave: Behave, features: str = OURS) -> AsyncIterator[Engine]:
    made = Engine()

    async def connected(socket: ServerConnection) -> None:
        try:
            await behave(made, socket)
        except ConnectionClosed:
            pass
        finally:
            made.gone.set()

    def announce(_socket: ServerConnection, _request: Request, response: Response) -> None:
        if features:
            response.headers[wire.FEATURES] = features

    async with serve(
        connected, "127.0.0.1", 0, subprotocols=[wire.SUBPROTOCOL], process_response=announce, close_timeout=1
    ) as server:  # type: ignore[list-item]
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


def said(kind: str, text: str, **more: Any) -> str:
    return json.dumps({"mode": kind, "text": text, "wav_name": "live", "is_final": False} | more)


ACK = json.dumps({"mode": "2pass", "wav_name": "live", "is_final": True, "is_end": True})


def live(*pieces: bytes, rate: int = 16000, **more: Any) -> Transcribe:
    async def spoken() -> AsyncIterator[Audio]:
        for pcm in pieces:
            yield Audio(pcm, rate)

    return Transcribe(Live(spoken(), rate), **({"partials": True} | more))


def adapter(http: Client, url: str, **settings: Any) -> FunAsr:
    chosen = Settings(**settings)
    return FunAsr(url, http, chosen, whole=FunAsrHttp(url, http, chosen))


async def heard(http: Client, url: str, job: Transcribe, **settings: Any) -> list[Transcript]:
    async with asyncio.timeout(15), adapter(http, url, **settings).session(job) as events:
        return [event async for event in events]


def partial(text: str, utterance: int = 0) -> Transcript:
    return Transcript(text, "", final=False, utterance=utterance)


async def test_what_the_engine_says_counts_where_the_audio_breaks_off_as_well(http: Client) -> None:
    async def behave(_engine: Engine, socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps({"error": "no more room"}))
        await socket.close(wire.TOO_SLOW)

    async def spoken() -> AsyncIterator[Audio]:
        try:
            await asyncio.Event().wait()
        finally:
            raise BadRequest("the audio broke off")
        yield Audio(b"", 16_000)

    async with scripted(behave) as engine:
        with pytest.raises(EngineBusy, match="no more room"):
            await heard(http, engine.url, Transcribe(Live(spoken(), 16_000)))


class TestWholeRecordings:
    async def test_they_go_by_http(self, http: Client, recording: Path) -> None:
        async def behave(line: Line) -> None:
            head, _ = await line.request()
            assert head.startswith(b"POST /api/transcribe ")
            await line.send(answer(funasr_http.result("你好", "中文")))

        async with peer(behave) as engine:
            job = Transcribe(Recording(recording, 16000, 8000))
            assert await heard(http, engine.url, job) == [Transcript("你好", "中文")]


class TestWhatReachesTheEngine:
    async def told(self, http: Client, job: Transcribe) -> Engine:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            assert socket.request is not None
            assert (socket.request.path, socket.subprotocol) == ("/", "binary")
            await engine.hear(socket)
            await socket.send(ACK)

        async with scripted(behave) as engine:
            assert await heard(http, engine.url, job) == []
            await engine.gone.wait()
        return engine

    async def test_the_audio_in_packets_of_60_ms_and_then_its_end(self, http: Client) -> None:
        pcm = bytes(range(256)) * 40
        engine = await self.told(http, live(pcm[:100], pcm[100:5000], pcm[5000:]))
        assert b"".join(engine.packets) == pcm
        assert [len(packet) for packet in engine.packets] == [1920] * 5 + [640]
        assert engine.end == {"is_speaking": False, "is_end": True}

    async def test_the_rate_as_it_is(self, http: Client) -> None:
        engine = await self.told(http, live(bytes(2000), rate=8000))
        assert engine.config["audio_fs"] == 8000
        assert len(engine.packets[0]) == 960

    async def test_partials_are_asked_for_or_not(self, http: Client) -> None:
        assert (await self.told(http, live(bytes(2)))).config["mode"] == "2pass"
        assert (await self.told(http, live(bytes(2), partials=False))).config["mode"] == "offline"

    async def test_language_hotwords_and_figures(self, http: Client) -> None:
        config = (
            await self.told(http, live(bytes(2), language="中文", hotwords=("通义", "New York"), itn=False))
        ).config
        assert (config["svs_lang"], config["itn"], config["svs_itn"]) == ("zh", False, False)
        assert json.loads(config["hotwords"]).keys() == {"通义", "New York"}

    async def test_what_the_caller_left_out_is_left_out(self, http: Client) -> None:
        config = (await self.told(http, live(bytes(2), language="auto"))).config
        assert not {"svs_lang", "hotwords"} & config.keys()

    async def test_audio_leaves_before_the_next_piece_comes(self, http: Client) -> None:
        arrived = asyncio.Event()

        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(1920), 16000)
            await arrived.wait()
            yield Audio(bytes(1920), 16000)

        async def behave(_engine: Engine, socket: ServerConnection) -> None:
            await socket.recv()
            await socket.recv()
            arrived.set()
            await socket.recv()
            await socket.recv()
            await socket.send(ACK)

        async with scripted(behave) as engine:
            assert await heard(http, engine.url, Transcribe(Live(spoken(), 16000))) == []

    async def test_an_engine_that_reads_slowly_slows_the_speaker(self, http: Client) -> None:
        read, taken = asyncio.Event(), 0

        async def spoken() -> AsyncIterator[Audio]:
            nonlocal taken
            for _ in range(400):
                taken += 1
                yield Audio(bytes(64 * 1024), 16000)

        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await read.wait()
            await engine.hear(socket)
            await socket.send(ACK)

        async with scripted(behave) as engine:
            listening = asyncio.ensure_future(heard(http, engine.url, Transcribe(Live(spoken(), 16000))))
            before = -1
            while before != taken:
                before = taken
                await asyncio.sleep(0.1)
            assert taken < 200, "of 25 MB most is still with the speaker"
            read.set()
            assert await listening == []
            assert sum(map(len, engine.packets)) == 400 * 64 * 1024


class TestTranscripts:
    async def answered(self, http: Client, *frames: str, **more: Any) -> list[Transcript]:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            for frame in frames:
                await socket.send(frame)

        async with scripted(behave) as engine:
            return await heard(http, engine.url, live(bytes(1920), **more))

    async def test_partials_grow_and_the_second_pass_replaces_them(self, http: Client) -> None:
        assert await self.answered(
            http,
            said("2pass-online", "今天"),
            said("2pass-online", ""),
            said("2pass-online", "天七"),
            said("2pass-offline", "今天天气。", start_time=270, end_time=3210),
            said("2pass-online", "很"),
            said("2pass-offline", "很好。"),
            ACK,
        ) == [
            partial("今天"),
            partial("今天天七"),
            Transcript("今天天气。", "", start=0.27, end=3.21),
            partial("很", 1),
            Transcript("很好。", "", utterance=1),
        ]

    async def test_silence_is_no_transcript(self, http: Client) -> None:
        assert await self.answered(http, said("2pass-offline", "", is_final=True), ACK) == []

    async def test_a_second_pass_that_hears_nothing_takes_the_partial_back(self, http: Client) -> None:
        found = await self.answered(http, said("2pass-online", "嗯"), said("2pass-offline", ""), ACK)
        assert found == [partial("嗯"), Transcript("", "")]

    async def test_words_without_a_second_pass_are_not_lost(self, http: Client) -> None:
        found = await self.answered(http, said("2pass-online", "今天"), ACK)
        assert found == [partial("今天"), Transcript("今天", "")]

    async def test_whole_utterances_only(self, http: Client) -> None:
        found = await self.answered(http, said("offline", "今天。"), said("offline", "很好。"), ACK, partials=False)
        assert found == [Transcript("今天。", ""), Transcript("很好。", "", utterance=1)]

    async def test_they_come_while_audio_still_arrives(self, http: Client) -> None:
        seen = asyncio.Event()

        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(1920), 16000)
            await seen.wait()

        async def behave(_engine: Engine, socket: ServerConnection) -> None:
            await socket.recv()
            await socket.recv()
            await socket.send(said("2pass-online", "今天"))
            await socket.recv()
            await socket.send(ACK)

        async with scripted(behave) as engine:
            job = Transcribe(Live(spoken(), 16000), partials=True)
            async with adapter(http, engine.url).session(job) as events:
                assert await anext(events) == partial("今天")
                seen.set()
                assert [event async for event in events] == [Transcript("今天", "")]


class TestUpstream:
    """Its servers do not resample, call every utterance final, and before 1.4.0 do not say when they are done."""

    async def answered(self, http: Client, *frames: str, close: bool, features: str = "") -> list[Transcript]:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            for frame in frames:
                await socket.send(frame)
            if not close:
                await socket.wait_closed()

        async with scripted(behave, features) as engine:
            return await heard(http, engine.url, live(bytes(1920)))

    async def test_the_end_of_the_connection_ends_a_stream(self, http: Client) -> None:
        found = await self.answered(http, said("2pass-offline", "好。", is_final=True), close=True)
        assert found == [Transcript("好。", "")]

    async def test_so_does_its_ack(self, http: Client) -> None:
        found = await self.answered(http, said("2pass-offline", "好。", is_final=True), ACK, close=False)
        assert found == [Transcript("好。", "")]

    async def test_so_does_silence_where_there_is_neither(self, http: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(funasr_stream, "_SILENCE", 0.2)
        frames = [said("2pass-offline", "好。", is_final=True), said("2pass-offline", "吗？", is_final=True)]
        found = await self.answered(http, *frames, close=False)
        assert [one.text for one in found] == ["好。", "吗？"]

    async def test_one_that_never_says_anything_ends_too(self, http: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(funasr_stream, "_FIRST_SILENCE", 0.2)
        assert await self.answered(http, close=False) == []

    async def test_a_speaker_may_be_silent_for_longer(self, http: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(funasr_stream, "_FIRST_SILENCE", 0.05)
        monkeypatch.setattr(funasr_stream, "_SILENCE", 0.05)

        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(1920), 16000)
            await asyncio.sleep(0.5)

        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send(said("2pass-offline", "好。"))

        async with scripted(behave, "") as engine:
            found = await heard(http, engine.url, Transcribe(Live(spoken(), 16000)))
        assert found == [Transcript("好。", "")]

    async def test_another_rate_is_refused_before_any_audio(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)

        async with scripted(behave, "") as engine:
            with pytest.raises(BadRequest, match="16000 Hz only, not 8000") as caught:
                await heard(http, engine.url, live(bytes(1920), rate=8000))
            assert caught.value.code == "rate_unsupported"
            await engine.gone.wait()
            assert not engine.config


class TestFailures:
    async def fails(self, http: Client, behave: Behave, features: str = OURS, **settings: Any) -> Exception:
        async with scripted(behave, features) as engine:
            with pytest.raises(Exception) as caught:
                await heard(http, engine.url, live(bytes(1920)), **settings)
            async with asyncio.timeout(5):
                await engine.gone.wait()
        return caught.value

    @pytest.mark.parametrize("frame", ["{", "null", '{"mode": "x"}', b"\0\0"])
    async def test_an_answer_that_is_none(self, http: Client, frame: str | bytes) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send(frame)
            await socket.wait_closed()

        assert isinstance(await self.fails(http, behave), EngineBroke)

    async def test_an_answer_without_end(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send("x" * 2_000_000)
            await socket.wait_closed()

        assert isinstance(await self.fails(http, behave), EngineBroke)

    @pytest.mark.parametrize(
        ("code", "error"),
        [(wire.ENGINE_FAILED, EngineBroke), (wire.TOO_SLOW, EngineBusy), (wire.UNREADABLE, BadRequest)],
    )
    async def test_what_the_engine_says_is_wrong(self, http: Client, code: int, error: type[Exception]) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send(wire.fault(wire.Fault("a worker died")))
            await socket.close(code)

        found = await self.fails(http, behave)
        assert type(found) is error
        assert "a worker died" in str(found)

    async def test_an_ack_that_says_it_failed(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send(wire.ended(wire.Ended("2pass", "live", "out of memory")))

        found = await self.fails(http, behave)
        assert isinstance(found, EngineBroke)
        assert "out of memory" in str(found)

    async def test_an_engine_that_dies_in_the_middle(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            socket.transport.abort()

        assert isinstance(await self.fails(http, behave), EngineBroke)

    async def test_ours_that_closes_without_its_ack(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send(said("2pass-offline", "今天。"))

        assert isinstance(await self.fails(http, behave), EngineBroke)

    async def test_ours_that_falls_silent_after_the_end(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.wait_closed()

        assert isinstance(await self.fails(http, behave, engine_idle_timeout=0.2), EngineTimeout)

    async def test_one_that_ends_before_the_speaker_does(self, http: Client) -> None:
        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(1920), 16000)
            await asyncio.Event().wait()

        async def behave(_engine: Engine, socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(ACK)

        async with scripted(behave) as engine:
            with pytest.raises(EngineBroke):
                await heard(http, engine.url, Transcribe(Live(spoken(), 16000)))

    async def test_nobody_there(self, http: Client) -> None:
        with pytest.raises(EngineUnreachable):
            await heard(http, "http://127.0.0.1:9", live(bytes(2)))

    async def test_nobody_answers_the_handshake(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.hung_up()
            await line.reader.read()

        async with peer(behave) as engine:
            with pytest.raises(EngineUnreachable):
                await heard(http, engine.url, live(bytes(2)), engine_connect_timeout=0.2)

    async def test_a_connection_closed_in_the_handshake(self, http: Client) -> None:
        async def behave(line: Line) -> None:
            await line.request()

        async with peer(behave) as engine:
            with pytest.raises(EngineUnavailable):
                await heard(http, engine.url, live(bytes(2)))

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (HTTPStatus.SERVICE_UNAVAILABLE, EngineBusy),
            (HTTPStatus.TOO_MANY_REQUESTS, EngineBusy),
            (HTTPStatus.INTERNAL_SERVER_ERROR, EngineBroke),
            (HTTPStatus.NOT_FOUND, BadRequest),
            (HTTPStatus.FORBIDDEN, BadRequest),
            (HTTPStatus.OK, BadRequest),
        ],
    )
    async def test_a_handshake_that_is_refused(self, http: Client, status: int, error: type[Exception]) -> None:
        async def behave(line: Line) -> None:
            await line.request()
            await line.send(answer(funasr_http.error("not now"), int(status), "retry-after: 7\r\n"))

        async with peer(behave) as engine:
            with pytest.raises(error) as caught:
                await heard(http, engine.url, live(bytes(2)))
        assert type(caught.value) is error
        if error is EngineBusy:
            assert caught.value.retry_after == 7  # type: ignore[attr-defined]
        if error is BadRequest:
            assert caught.value.code == "live_unsupported"  # type: ignore[attr-defined]

    async def test_a_translation_is_refused_unless_the_speech_is_known_to_be_english(self, http: Client) -> None:
        with pytest.raises(BadRequest) as caught:
            await heard(http, "http://127.0.0.1:9", live(bytes(2), translate=True))
        assert caught.value.code == "translation_unsupported"
        with pytest.raises(EngineUnreachable):  # that one is asked
            await heard(http, "http://127.0.0.1:9", live(bytes(2), translate=True, language="English"))

    async def test_a_speaker_that_breaks_breaks_the_session(self, http: Client) -> None:
        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(1920), 16000)
            raise BadRequest("that is not audio")

        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)

        async with scripted(behave) as engine:
            with pytest.raises(BadRequest, match="that is not audio"):
                await heard(http, engine.url, Transcribe(Live(spoken(), 16000)))
            await engine.gone.wait()
            assert not engine.end, "a broken stream is not a finished one"


class TestLeaving:
    async def test_who_leaves_early_is_gone_at_once(self, http: Client) -> None:
        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(1920), 16000)
            await asyncio.Event().wait()

        async def behave(_engine: Engine, socket: ServerConnection) -> None:
            await socket.recv()
            await socket.send(said("2pass-online", "今"))
            async for _ in socket:
                pass

        async with scripted(behave) as engine:
            job = Transcribe(Live(spoken(), 16000), partials=True)
            async with adapter(http, engine.url).session(job) as events:
                assert await anext(events) == partial("今")
            async with asyncio.timeout(0.5):
                await engine.gone.wait()

    async def test_a_cancelled_caller_leaves_nothing_behind(self, http: Client) -> None:
        begun = asyncio.Event()

        async def behave(_engine: Engine, socket: ServerConnection) -> None:
            await socket.recv()
            begun.set()
            async for _ in socket:
                pass

        async def spoken() -> AsyncIterator[Audio]:
            await asyncio.Event().wait()
            yield Audio(b"", 16000)

        async with scripted(behave) as engine:
            before = asyncio.all_tasks()
            listening = asyncio.ensure_future(heard(http, engine.url, Transcribe(Live(spoken(), 16000))))
            await begun.wait()
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
            async with asyncio.timeout(0.5):
                await engine.gone.wait()
            await asyncio.sleep(0)
            assert {
                task for task in asyncio.all_tasks() - before if "heard" in repr(task) or "speak" in repr(task)
            } == set()

    async def test_a_failing_caller_keeps_its_failure(self, http: Client) -> None:
        async def behave(engine: Engine, socket: ServerConnection) -> None:
            await engine.hear(socket)
            await socket.send(said("2pass-online", "今"))
            await socket.wait_closed()

        async with scripted(behave) as engine:
            with pytest.raises(ZeroDivisionError):
                async with adapter(http, engine.url).session(live(bytes(1920))) as events:
                    await anext(events)
                    _ = 1 / 0
            async with asyncio.timeout(0.5):
                await engine.gone.wait()
