"""The adapter for upstream's own WebSocket servers, before doubles of each of them."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from gateway import adapters
from gateway.adapters import funasr as module
from gateway.adapters import funasr_stream
from gateway.adapters.funasr import FunAsrWs
from gateway.errors import BadRequest, EngineBroke, EngineTimeout, EngineUnreachable
from gateway.events import Audio, Transcript
from gateway.settings import Settings, SettingsError
from gateway.verbs import Live, Recording, State, Transcribe
from gateway.wire import wav
from tests.adapters.spoken import RATE, silence, tone
from tests.adapters.stock_funasr import Kind, Stock, stock

PYTHON = [Kind.PYTHON_1_3, Kind.PYTHON_1_4]
ALL = [*PYTHON, Kind.CPP_STREAMS, Kind.CPP_FILES]
SAID = silence(0.3) + tone(0.9) + silence(0.5) + tone(0.6)
"""Two utterances; the second one has no pause behind it."""


def recorded(folder: Path, pcm: bytes = SAID) -> Recording:
    path = folder / "audio.wav"
    path.write_bytes(wav.header(RATE, len(pcm) // 2) + pcm)
    return Recording(path, RATE, len(pcm) // 2)


def live(pcm: bytes = SAID, **more: Any) -> Transcribe:
    async def spoken() -> AsyncIterator[Audio]:
        for at in range(0, len(pcm), 3200):
            yield Audio(pcm[at : at + 3200], RATE)

    return Transcribe(Live(spoken(), RATE), **({"partials": True} | more))


async def heard(engine: Stock, job: Transcribe, **settings: Any) -> list[Transcript]:
    made = FunAsrWs(engine.url, Settings(**settings))
    async with asyncio.timeout(15), made.session(job) as events:
        return [event async for event in events]


def loud(pcm: bytes) -> float:
    """Seconds of it."""
    return float((np.abs(np.frombuffer(pcm, "<i2").astype(int)) > 1000).sum()) / RATE


def texts(found: list[Transcript]) -> list[str]:
    return [one.text for one in found if one.final]


async def promptly(seconds: float, began: float) -> None:
    assert asyncio.get_running_loop().time() - began < seconds, "no silence had to be waited for"


class TestRecordings:
    @pytest.mark.parametrize("kind", ALL, ids=str)
    async def test_all_that_is_said_is_recognised_and_ends_at_once(self, tmp_path: Path, kind: Kind) -> None:
        async with stock(kind) as engine:
            began = asyncio.get_running_loop().time()
            found = await heard(engine, Transcribe(recorded(tmp_path)))
            await promptly(funasr_stream._SILENCE, began)
        assert texts(found) == [f"heard {number}." for number in range(1, len(engine.heard) + 1)]
        assert len(engine.heard) == (1 if kind is Kind.CPP_FILES else 2)
        assert sum(map(loud, engine.heard)) == pytest.approx(loud(SAID), abs=0.15)
        assert engine.configs[0]["mode"] == "offline"

    @pytest.mark.parametrize("kind", ALL, ids=str)
    async def test_of_silence_nothing_is_heard(self, tmp_path: Path, kind: Kind) -> None:
        async with stock(kind) as engine:
            began = asyncio.get_running_loop().time()
            assert texts(await heard(engine, Transcribe(recorded(tmp_path, silence(1))))) == []
            await promptly(funasr_stream._SILENCE, began)

    async def test_the_server_for_files_may_take_its_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(funasr_stream, "_FIRST_SILENCE", 0.05)
        async with stock(Kind.CPP_FILES) as engine:
            engine.slow = 0.3
            assert texts(await heard(engine, Transcribe(recorded(tmp_path)))) == ["heard 1."]

    async def test_one_that_never_answers_is_given_up(self, tmp_path: Path) -> None:
        async with stock(Kind.CPP_FILES) as engine:
            engine.slow = 1.5
            with pytest.raises(EngineTimeout):
                await heard(engine, Transcribe(recorded(tmp_path)), engine_idle_timeout=0.3)

    async def test_what_the_server_for_files_knows_of_words_is_passed_on(self, tmp_path: Path) -> None:
        async with stock(Kind.CPP_FILES) as engine:
            engine.texts = ["stop the music"]
            (found,) = await heard(engine, Transcribe(recorded(tmp_path)))
        assert [(word.text, word.start, word.end) for word in found.words] == [
            ("stop", 0.0, 0.09),
            ("the", 0.1, 0.19),
            ("music", 0.2, 0.29),
        ]

    async def test_times_that_are_not_those_of_the_recording_are_not(self, tmp_path: Path) -> None:
        async with stock(Kind.PYTHON_1_4) as engine:
            engine.texts = ["one"]
            found = await heard(engine, Transcribe(recorded(tmp_path)))
        assert all(not one.words for one in found)


class TestLive:
    @pytest.mark.parametrize("kind", [*PYTHON, Kind.CPP_STREAMS], ids=str)
    async def test_deltas_add_up_and_the_second_pass_replaces_them(self, kind: Kind) -> None:
        async with stock(kind) as engine:
            began = asyncio.get_running_loop().time()
            found = await heard(engine, live(tone(1.3) + silence(0.5) + tone(1.3)))
            await promptly(funasr_stream._SILENCE, began)
        assert texts(found) == ["heard 1.", "heard 2."]
        first = [one.text for one in found if one.utterance == 0 and not one.final]
        assert first[:2] == ["a", "ab"]
        assert [one.utterance for one in found] == sorted(one.utterance for one in found)
        assert engine.configs[0]["mode"] == "2pass"

    @pytest.mark.parametrize("kind", PYTHON, ids=str)
    async def test_another_rate_is_refused_rather_than_heard_wrong(self, kind: Kind) -> None:
        async def spoken() -> AsyncIterator[Audio]:
            yield Audio(bytes(960), 8000)

        async with stock(kind) as engine:
            with pytest.raises(BadRequest, match="16000 Hz only"):
                await heard(engine, Transcribe(Live(spoken(), 8000)))
            assert not engine.configs

    async def test_a_second_pass_that_fails_is_a_failure(self) -> None:
        async with stock(Kind.PYTHON_1_4) as engine:
            engine.fails = "out of memory"
            with pytest.raises(EngineBroke, match="out of memory"):
                await heard(engine, live())

    async def test_who_leaves_early_is_gone(self) -> None:
        async with stock(Kind.PYTHON_1_4) as engine:
            made = FunAsrWs(engine.url, Settings())
            async with asyncio.timeout(10), made.session(live(tone(3))) as events:
                assert (await anext(events)).text == "a"
            async with asyncio.timeout(5):
                while engine.open:
                    await asyncio.sleep(0.01)


class TestHotwords:
    @pytest.mark.parametrize("kind", PYTHON, ids=str)
    async def test_are_words_for_the_python_server(self, kind: Kind) -> None:
        async with stock(kind) as engine:
            await heard(engine, live(hotwords=("阿里巴巴", "Voxgate")))
        assert engine.configs[0]["hotwords"] == "阿里巴巴 Voxgate"

    @pytest.mark.parametrize("kind", [Kind.CPP_STREAMS], ids=str)
    async def test_are_json_for_the_others(self, kind: Kind) -> None:
        async with stock(kind) as engine:
            assert texts(await heard(engine, live(hotwords=("阿里巴巴",)))) == ["heard 1.", "heard 2."]
        assert json.loads(engine.configs[0]["hotwords"]) == {"阿里巴巴": 20}


class TestHealth:
    async def test_whoever_opens_a_websocket_is_ready_and_not_asked_each_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with stock(Kind.PYTHON_1_3) as engine:
            made = FunAsrWs(engine.url, Settings())
            for _ in range(5):
                assert (await made.health()).state is State.READY
            assert engine.opened == 1
            monkeypatch.setattr(module, "_TRUSTED_SECONDS", 0.0)
            made._trust()
            await made.health()
            assert engine.opened == 2

    async def test_one_that_is_gone_is_down_at_the_next_question(self) -> None:
        async with stock(Kind.PYTHON_1_3) as engine:
            made = FunAsrWs(engine.url, Settings())
            assert (await made.health()).state is State.READY
        with pytest.raises(EngineUnreachable):
            async with made.session(live()):
                pass
        health = await made.health()
        assert health.state is State.DOWN and health.reason


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two that are self-signed, of a name that is not the host's, and out of date: as upstream's bundled one is."""
    folder = tmp_path_factory.mktemp("certificates")
    made = []
    for number in range(2):
        key, path = folder / f"{number}.key", folder / f"{number}.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", path, "-subj"]
            + ["/CN=alibaba", "-days", "1"],
            check=True,
            capture_output=True,
        )
        made.append(path)
    return made


class TestTls:
    def serving(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return context

    async def test_the_certificate_that_is_named_is_accepted_whatever_its_name(self, certificates: list[Path]) -> None:
        async with stock(Kind.PYTHON_1_4, self.serving(certificates[0])) as engine:
            found = await heard(engine, live(), transcribe_certificate=certificates[0])
        assert texts(found) == ["heard 1.", "heard 2."]

    async def test_another_one_is_not(self, certificates: list[Path]) -> None:
        async with stock(Kind.PYTHON_1_4, self.serving(certificates[1])) as engine:
            with pytest.raises(EngineUnreachable, match="another certificate"):
                await heard(engine, live(), transcribe_certificate=certificates[0])
            assert not engine.configs

    async def test_none_is_without_a_name(self, certificates: list[Path]) -> None:
        async with stock(Kind.PYTHON_1_4, self.serving(certificates[0])) as engine:
            with pytest.raises(EngineUnreachable, match="not trusted"):
                await heard(engine, live())

    def test_a_file_that_is_none_stops_the_start(self, tmp_path: Path) -> None:
        (tmp_path / "x.pem").write_text("nothing")
        for path in (tmp_path / "x.pem", tmp_path / "missing.pem"):
            with pytest.raises(SettingsError, match="transcribe_certificate"):
                FunAsrWs("wss://127.0.0.1:1", Settings(transcribe_certificate=path))


class TestSettings:
    @pytest.mark.parametrize("url", ["ws://asr:10095", "wss://asr:10095", "ws://[::1]:10095/path"])
    def test_a_server_is_named_by_its_websocket(self, url: str) -> None:
        chosen = Settings.model_validate({"transcribe_engine": "funasr_ws", "transcribe_urls": url})
        adapters.check(chosen)

    @pytest.mark.parametrize(
        ("engine", "url"), [("funasr_ws", "http://asr:10095"), ("funasr", "ws://asr:10095"), ("funasr_http", "wss://a")]
    )
    def test_another_protocol_is_refused(self, engine: str, url: str) -> None:
        chosen = Settings.model_validate({"transcribe_engine": engine, "transcribe_urls": url})
        with pytest.raises(SettingsError, match="transcribe_urls"):
            adapters.check(chosen)


class TestTheDouble:
    """What the adapter has to stand is really there."""

    async def test_the_old_server_looks_at_the_end_only_with_more_audio(self) -> None:
        async with (
            stock(Kind.PYTHON_1_3) as engine,
            connect(engine.url, proxy=None, subprotocols=[Subprotocol("binary")]) as socket,
        ):
            await socket.send(b"dropped" * 2)
            await socket.send(json.dumps({"mode": "offline", "chunk_size": [5, 10, 5]}))
            await socket.send(tone(0.5))
            await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 0.2)
            await socket.send(bytes(1920))
            assert json.loads(await socket.recv())["is_final"]
            assert engine.dropped == 1
