from pathlib import Path

from engines.scripted import ScriptedEngine
from tests.cli.conftest import voxgate
from tests.conftest import running
from tests.engines.asr.sound import as_wav, noise


async def test_what_is_said_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(as_wav(noise(1, -20)))
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        one = await voxgate("transcribe", str(tmp_path / "a.wav"), "--url", gateway.url)
        two = await voxgate("transcribe", *[str(tmp_path / "a.wav")] * 2, "--language", "en", "--url", gateway.url)
    assert (one.status, one.out) == (0, "hello world\n"), one.err
    assert two.out == f"{tmp_path}/a.wav: hello world\n" * 2
    assert all(b'name="language"' in body for path, body in engine.seen.asked[1:])


async def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    async with ScriptedEngine() as engine, running(tmp_path, engine) as gateway:
        none = await voxgate("transcribe", str(tmp_path / "none.wav"), "--url", gateway.url)
        bad = await voxgate("transcribe", str(tmp_path / "a.wav"), "--url", gateway.url)
    assert (none.status, none.err) == (2, f"voxgate: {tmp_path}/none.wav: No such file or directory\n")
    assert bad.status == 2
    assert bad.err.startswith(f"voxgate: {tmp_path}/a.wav: the file cannot be decoded as audio")
    assert bad.err.endswith("(422)\n")
