import wave
from pathlib import Path

import pytest

from engines.scripted import End, Script, ScriptedEngine
from gateway.wire import engine_health
from tests.cli.conftest import voxgate
from tests.conftest import running


async def test_a_text_becomes_a_wav_file(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        said = await voxgate("say", "Hello.", "-o", str(tmp_path / "out.wav"), "--url", gateway.url)
    assert (said.status, said.out) == (0, ""), said.err
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert file.getnframes() == 24000, "ten pieces of 4800 bytes"


async def test_a_voice_that_nobody_has_is_one_line(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        said = await voxgate("say", "Hello.", "--voice", "Nobody", "-o", str(tmp_path / "o.wav"), "--url", gateway.url)
    assert said.status == 2
    assert said.err.startswith("voxgate: unknown speaker_id; there are default, 中文女")
    assert said.err.count("\n") == 1


async def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        said = await voxgate("say", "Hello.", "-o", "/nowhere/o.wav", "--url", gateway.url)
    assert (said.status, said.err) == (2, "voxgate: /nowhere/o.wav: No such file or directory\n")


async def test_speech_that_breaks_off_is_no_success(tmp_path: Path) -> None:
    async with ScriptedEngine(Script(end=End.DIE)) as engine, running(tmp_path, engine) as gateway:
        said = await voxgate("say", "Hello.", "-o", str(tmp_path / "out.wav"), "--url", gateway.url)
    assert (said.status, said.err) == (2, "voxgate: the gateway broke off (RemoteProtocolError)\n")


async def test_it_tells_what_it_waits_for(tmp_path: Path) -> None:
    progress = engine_health.Progress("model CosyVoice", 43, 100)
    loading = Script(health=engine_health.Report("loading", progress=progress))
    async with ScriptedEngine(loading) as engine, running(tmp_path, engine) as gateway:
        said = await voxgate("say", "Hello.", "--wait", "1", "--url", gateway.url)
    assert said.status == 2
    assert "waiting: tts is loading: model CosyVoice 43 %\n" in said.err
    assert said.err.splitlines()[-1].startswith("voxgate: not ready within 1 s: tts is loading")


@pytest.mark.parametrize("url", ["nowhere", "ftp://a", "http://"])
async def test_an_address_that_is_none_is_one_line(url: str) -> None:
    said = await voxgate("say", "Hello.", "--wait", "0.1", "--url", url)
    assert said.status == 2
    assert said.err == f"voxgate: {url} is no address; it looks like http://127.0.0.1:9090\n"


async def test_a_gateway_that_is_not_there_is_told(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    said = await voxgate("say", "Hello.", "--wait", "0.1", "--url", url)
    assert said.err.splitlines()[-1] == f"voxgate: not ready within 0.1 s: nobody answers at {url}"
