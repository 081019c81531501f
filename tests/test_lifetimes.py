"""How long things live: a request's files and its engine session, whatever ends the request. Real sockets."""

import asyncio
import gc
from pathlib import Path

import httpx
import pytest

from engines.scripted import End, Script, ScriptedEngine
from gateway.adapters.cascade_conversation import Conversation
from gateway.dialogue import Dialogue
from gateway.playout import Playout
from gateway.session import Session
from gateway.surfaces import openai_realtime_conversation as realtime
from gateway.surfaces.openai_realtime_line import Line
from gateway.surfaces.openai_realtime_transcription import Transcribing
from gateway.wire import fun_audio_chat as wire
from tests.conftest import Gateway, ready, register, running, speech
from tests.surfaces.realtime_client import MANUAL, PATH, dialled
from tests.surfaces.talker import stock, tone

ASK = {"text": "Hello there, how are you?"}


async def test_a_streamed_answer_arrives_whole_and_leaves_nothing(gateway: Gateway, engine: ScriptedEngine) -> None:
    answer = await gateway.client.post("/api/synthesize", json=ASK)
    assert answer.status_code == 200
    assert len(answer.content) == 44 + 10 * 4800
    await gateway.idle()
    assert engine.seen.finished == 1


async def test_an_upload_lives_while_the_engine_works_and_not_longer(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.script = Script(pause=0.3)
    asking = asyncio.ensure_future(gateway.client.post("/api/transcribe", files={"audio": speech()}))
    async with asyncio.timeout(5):
        while not engine.seen.running:
            await asyncio.sleep(0.01)
    assert any(path.suffix == ".wav" for path in gateway.scratch())
    assert (await asking).json()["text"] == "hello world"
    await gateway.idle()


@pytest.mark.parametrize("received", [0, 44, 45, 4800, 20001])
async def test_a_client_that_hangs_up_in_a_stream_cancels_the_engine(
    gateway: Gateway, engine: ScriptedEngine, received: int
) -> None:
    engine.script = Script(pieces=1000, pause=0.02)
    async with gateway.client.stream("POST", "/api/synthesize", json=ASK) as answer:
        size = 0
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
            if size >= received:
                break
    await abandoned(engine)
    await gateway.idle()


@pytest.mark.parametrize("sent", [0, 10, 300, 5_000, 100_000])
async def test_a_client_that_hangs_up_in_its_upload_leaves_nothing(
    gateway: Gateway, engine: ScriptedEngine, sent: int
) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n' + speech(10)
    head = f"POST /api/transcribe HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body) + 9}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{head}content-type: multipart/form-data; boundary=b\r\n\r\n".encode() + body[:sent])
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    await gateway.idle()
    assert engine.seen.asked == []


async def test_a_client_that_hangs_up_while_recognition_runs_cancels_the_engine(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    engine.script = Script(pause=30)
    with pytest.raises(httpx.ReadTimeout):
        await gateway.client.post("/api/transcribe", files={"audio": speech()}, timeout=0.5)
    await abandoned(engine)
    await gateway.idle()


async def test_a_client_that_hangs_up_before_its_file_is_made_cancels_the_synthesis(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    voice = await register(gateway)
    engine.script = Script(pieces=1000, pause=0.05)
    with pytest.raises(httpx.ReadTimeout):
        await gateway.client.post("/v1/tts", json=tts(voice), timeout=0.5)
    await abandoned(engine)
    await gateway.idle()
    assert not list((gateway.settings.data_dir / "store" / "files").glob("*"))


async def test_an_engine_that_dies_in_its_answer_breaks_the_transfer_off(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    engine.script = Script(end=End.DIE)
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        await gateway.client.post("/api/synthesize", json=ASK)
    await gateway.idle()


async def test_an_engine_that_dies_before_its_first_byte_is_a_clean_error(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    engine.script = Script(pieces=0, end=End.DIE)
    answer = await gateway.client.post("/api/synthesize", json=ASK)
    assert answer.status_code == 502
    assert answer.json()["success"] is False
    await gateway.idle()


async def test_an_engine_that_dies_while_a_file_is_made_is_a_clean_error(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    voice = await register(gateway)
    engine.script = Script(end=End.DIE)
    answer = await gateway.client.post("/v1/tts", json=tts(voice))
    assert answer.status_code == 502
    assert answer.json()["message"]
    await gateway.idle()
    assert not list((gateway.settings.data_dir / "store" / "files").glob("*"))


async def test_an_engine_that_is_gone_is_a_clean_503(gateway: Gateway, engine: ScriptedEngine) -> None:
    await engine.stop()
    answer = await gateway.client.post("/api/synthesize", json=ASK)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_an_engine_that_gives_no_audio_is_an_error_not_an_empty_file(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    engine.script = Script(pieces=0)
    assert (await gateway.client.post("/api/synthesize", json=ASK)).status_code == 502


async def test_an_engine_that_falls_silent_in_its_answer_is_given_up(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.script = Script(end=End.HANG)
    async with running(tmp_path, engine, engine_idle_timeout=0.4) as gateway:
        await ready(gateway)
        with pytest.raises(httpx.RemoteProtocolError):
            await gateway.client.post("/api/synthesize", json=ASK)
        await abandoned(engine)
        await gateway.idle()


async def test_an_engine_that_never_answers_is_a_timeout(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.script = Script(pause=60)
    async with running(tmp_path, engine, engine_total_timeout=0.6) as gateway:
        await ready(gateway)
        answer = await gateway.client.post("/api/transcribe", files={"audio": speech()})
        assert answer.status_code == 504
        await abandoned(engine)
        await gateway.idle()


async def test_an_engine_may_think_long_about_a_recording(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.script = Script(pause=1.5)
    async with running(tmp_path, engine, engine_idle_timeout=0.3, answer_pulse=0.5) as gateway:
        await ready(gateway)
        answer = await gateway.client.post("/api/transcribe", files={"audio": speech()})
        assert answer.text.startswith("  ")
        assert answer.json()["text"] == "hello world"


async def test_a_client_that_stops_reading_is_given_up(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.script = Script(pieces=10_000, piece=bytes(64 * 1024))
    async with running(tmp_path, engine, client_idle_timeout=0.5) as gateway:
        await ready(gateway)
        body = b'{"text": "hello"}'
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"POST /api/synthesize HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await reader.readexactly(100)
        await abandoned(engine, within=3)
        writer.transport.abort()
        await gateway.idle(5)


async def test_shutting_down_ends_running_requests_and_leaves_nothing(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.script = Script(pieces=10_000, pause=0.05)
    async with running(tmp_path, engine, shutdown_grace=1.0) as gateway:
        await ready(gateway)
        asking = asyncio.ensure_future(gateway.client.post("/api/synthesize", json=ASK))
        while not engine.seen.running:
            await asyncio.sleep(0.01)
        gateway.server.should_exit = True
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
        await abandoned(engine)
    assert not list((tmp_path / "data" / "scratch").glob("run-*"))


async def test_a_request_that_outlasts_the_shutdown_is_told_to_come_again(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.script = Script(pause=60)
    async with running(tmp_path, engine, shutdown_grace=1.0) as gateway:
        await ready(gateway)
        asking = asyncio.ensure_future(gateway.client.post("/api/transcribe", files={"audio": speech()}))
        while not engine.seen.running:
            await asyncio.sleep(0.01)
        gateway.server.should_exit = True
        answer = await asking
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        await abandoned(engine)
    assert not list((tmp_path / "data" / "scratch").glob("run-*"))


async def test_repeated_hang_ups_leak_no_connection_and_no_slot(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.script = Script(pieces=1000, pause=0.01)
    for _ in range(20):
        async with gateway.client.stream("POST", "/api/synthesize", json=ASK) as answer:
            await anext(answer.aiter_bytes())
    await gateway.idle()
    assert repr(gateway.state["speak"].gate) == "<tts: 0/4 running, 0/32 waiting>"
    engine.script = Script()
    assert (await gateway.client.post("/api/synthesize", json=ASK)).status_code == 200


@pytest.mark.parametrize("left", ["at once", "in what it says", "in the reply", "after it"])
async def test_what_a_conversation_held_is_freed_when_its_client_leaves_and_not_when_garbage_is_collected(
    gateway: Gateway, engine: ScriptedEngine, left: str
) -> None:
    engine.script = Script(pause=0.01)
    gc.collect()
    before = set(map(id, conversations()))  # other tests' failures may hold some
    gc.disable()
    try:
        async with stock(gateway) as client:
            await client.wish(speech=True)
            if left == "in what it says":
                await client.speak(tone(1.0))
            elif left != "at once":
                await client.socket.send(wire.encode(wire.Text("Say this after me, please.")))
                await client.event("reply_started" if left == "in the reply" else "reply_done", turn=1)
            client.socket.transport.abort()
        async with asyncio.timeout(5):
            while gateway.state["converse"].gate.running or gateway.server.server_state.tasks:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not [one for one in conversations() if id(one) not in before]
    finally:
        gc.enable()


@pytest.mark.parametrize("left", ["at once", "in what it says", "in the reply", "after it", "in a transcription"])
async def test_what_realtime_held_is_freed_when_its_client_leaves_and_not_when_garbage_is_collected(
    gateway: Gateway, engine: ScriptedEngine, left: str
) -> None:
    engine.script = Script(pause=0.01)
    gc.collect()
    before = set(map(id, conversations()))
    gc.disable()
    try:
        kind = "transcription" if left == "in a transcription" else "realtime"
        async with dialled(gateway, f"{PATH}&intent={kind}") as client:
            await client.send("session.update", session={"type": kind, **MANUAL})
            await client.until("session.updated")
            if left in ("in what it says", "in a transcription"):
                await client.say(tone(1.0))
            elif left != "at once":
                await client.write("Say this after me, please.")
                await client.send("response.create")
                await client.until("response.created" if left == "in the reply" else "response.done")
            client.socket.transport.abort()
        async with asyncio.timeout(5):
            while gateway.state["converse"].gate.running or gateway.server.server_state.tasks:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not [one for one in conversations() if id(one) not in before]
    finally:
        gc.enable()


def conversations() -> list[object]:
    """All that is there of any."""
    kinds = (Dialogue, Session, Playout, Conversation, realtime.Conversation, Transcribing, Line)
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


def tts(voice: str, text: str = "Hello there.") -> dict[str, str]:
    return {"device_id": "device-1", "voice_id": voice, "text": text}


async def abandoned(engine: ScriptedEngine, within: float = 1.0) -> None:
    """Waits for the engine to see that nobody listens any more; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while engine.seen.running or not engine.seen.abandoned:
            await asyncio.sleep(0.01)
