"""With a gateway before a conversation engine of the test's own, which says what was said to it."""

import wave
from pathlib import Path

from engines.scripted import Script, ScriptedEngine
from gateway.errors import EngineBroke
from gateway.wire import engine_health
from tests.cli.conftest import voxgate
from tests.conftest import ready, running
from tests.engines.asr.sound import as_wav
from tests.surfaces.talker import Talker, pitch, talks, tone


def recording(path: Path, hertz: float, seconds: float = 0.6) -> str:
    path.write_bytes(as_wav(tone(seconds, hertz, 16_000)))
    return str(path)


def sound(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        return file.readframes(file.getnframes())


async def test_each_file_is_a_turn_and_its_reply_is_written(tmp_path: Path) -> None:
    files = [recording(tmp_path / "a.wav", 440), recording(tmp_path / "b.wav", 880)]
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        await talks(await ready(gateway), Talker())
        said = await voxgate("talk", *files, "-o", str(tmp_path / "reply.wav"), "--url", gateway.url)
    assert said.status == 0, said.err
    assert "turn 1" in said.out and "turn 2" in said.out
    assert "(turn 1 completed; after the end of speech: " in said.err and "first_audio" in said.err
    heard = sound(tmp_path / "reply.wav")
    assert abs(pitch(heard[: len(heard) // 2]) - 440) < 5 and abs(pitch(heard[len(heard) // 2 :]) - 880) < 5


async def test_a_turn_that_fails_is_told_and_is_no_success(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        await talks(await ready(gateway), Talker(fails=EngineBroke("the engine is out of memory")))
        name = recording(tmp_path / "a.wav", 440)
        said = await voxgate("talk", name, "-o", str(tmp_path / "reply.wav"), "--url", gateway.url)
    assert said.status == 1, said.err
    assert "error: the engine is out of memory" in said.err


async def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        await talks(await ready(gateway), Talker())
        said = await voxgate("talk", "nowhere.wav", "-o", str(tmp_path / "reply.wav"), "--url", gateway.url)
    assert (said.status, said.err) == (2, "voxgate: nowhere.wav: no such file\n")


async def test_it_tells_that_the_engines_load(tmp_path: Path) -> None:
    loading = Script(health=engine_health.Report("loading", progress=engine_health.Progress("model", 1, 4)))
    async with ScriptedEngine(loading) as engine, running(tmp_path, engine) as gateway:
        said = await voxgate("talk", "a.wav", "--wait", "0.5", "--url", gateway.url)
    assert said.status == 2
    assert "waiting: s2s is loading: recognition: model, 25 %" in said.err
