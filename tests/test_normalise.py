"""What an uploaded file becomes, and what happens to those that are none: no hang, no leftover, no leak."""

import asyncio
import shutil
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from gateway.errors import AudioRejected, GatewayError
from gateway.normalise import Decoder
from gateway.settings import Settings, SettingsError
from gateway.verbs import Recording
from gateway.wire import wav
from tests import hostile

REFUSED = {
    "empty.wav": "audio_empty",
    "one_byte.mp3": "audio_undecodable",
    "random.bin": "audio_undecodable",
    "text.txt": "audio_undecodable",
    "page.html": "audio_undecodable",
    "picture.png": "audio_undecodable",
    "archive.zip": "audio_undecodable",
    "archive.tar": "audio_undecodable",
    "header_only.wav": "audio_empty",
    "no_sound.mp4": "audio_undecodable",
    "local.m3u8": "audio_undecodable",
    "local_m3u8_named.mp3": "audio_undecodable",
    "network.m3u8": "audio_undecodable",
    "concat.txt": "audio_undecodable",
    "concat_named.wav": "audio_undecodable",
    "session.sdp": "audio_undecodable",
    "dash.mpd": "audio_undecodable",
    "ten_hours.flac": "audio_too_long",
    "1_Hz.wav": "audio_too_long",
    "4_GHz.wav": "audio_undecodable",
    "0_Hz.wav": "audio_undecodable",
    "0_channels.wav": "audio_undecodable",
    "255_channels.wav": "audio_undecodable",
    "65535_channels.wav": "audio_undecodable",
    "cut_voice.m4a": "audio_undecodable",
}
"""The files that cannot be used. The other hostile ones hold some sound: it is returned, or they are refused too."""
SHORTENED = {"claims_4GB.wav": 0.1, "nan.wav": 0.1, "cut_stereo_44k.wav": 1.5, "cut_voice.mp3": 1.5}
GOOD = (*hostile.FORMATS, "film.mp4", "mp3_named.wav", "wav_named.mp3", "no_extension")


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


@pytest.fixture(scope="session")
def good(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile.sounds(ffmpeg, tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def bad(ffmpeg: str, good: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile.hostile(ffmpeg, tmp_path_factory.mktemp("bad"), good)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(Settings())


def script(folder: Path, body: str, **settings: object) -> Decoder:
    """A decoder whose ffmpeg is a shell script."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return Decoder(Settings(ffmpeg=str(path), **settings))  # type: ignore[arg-type]


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def alive(process: psutil.Process) -> bool:
    """Not a grandchild that is dead but that init has not reaped yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def samples(recording: Recording) -> np.ndarray:
    return np.fromfile(recording.path, "<i2", offset=wav.HEADER_BYTES)


@pytest.mark.parametrize("name", GOOD)
async def test_every_container_becomes_16_kHz_mono(
    decoder: Decoder, good: dict[str, Path], tmp_path: Path, name: str
) -> None:
    recording = await decoder.to_wav(good[name], tmp_path / "out.wav", max_seconds=600)
    pcm = samples(recording)
    assert recording.sample_rate == 16000
    assert recording.frames == len(pcm) == pytest.approx(16000 * hostile.SECONDS, rel=0.02)
    assert recording.path.read_bytes()[: wav.HEADER_BYTES] == wav.header(16000, len(pcm))
    pitch = np.argmax(np.abs(np.fft.rfft(pcm[8000:24000] * np.hanning(16000))))  # one second: bins of 1 Hz
    assert pitch == pytest.approx(440, abs=2)
    assert list(tmp_path.iterdir()) == [recording.path]


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
async def test_a_file_that_is_no_usable_sound_is_refused_with_its_reason(
    decoder: Decoder, bad: dict[str, Path], tmp_path: Path, name: str, code: str
) -> None:
    started = time.monotonic()
    with pytest.raises(AudioRejected) as refused:
        await decoder.to_wav(bad[name], tmp_path / "out.wav", max_seconds=600)
    assert refused.value.code == code
    assert time.monotonic() - started < 5
    assert list(tmp_path.iterdir()) == []
    assert children() == []


async def test_damaged_files_give_what_can_be_saved_or_are_refused(
    decoder: Decoder, bad: dict[str, Path], tmp_path: Path
) -> None:
    for name in sorted(bad.keys() - REFUSED):
        try:
            recording = await decoder.to_wav(bad[name], tmp_path / "out.wav", max_seconds=600)
        except AudioRejected as refused:
            assert refused.code in ("audio_undecodable", "audio_empty"), name
            assert name not in SHORTENED
            assert list(tmp_path.iterdir()) == []
        else:
            assert 0 < recording.seconds <= hostile.SECONDS * 1.02, name
            assert recording.seconds == pytest.approx(SHORTENED.get(name, recording.seconds), abs=0.05)
    assert children() == []


async def test_reasons_are_in_a_users_words(decoder: Decoder, bad: dict[str, Path], tmp_path: Path) -> None:
    async def reason(name: str, max_seconds: float = 600) -> str:
        with pytest.raises(AudioRejected) as refused:
            await decoder.to_wav(bad[name], tmp_path / "out.wav", max_seconds=max_seconds)
        return str(refused.value)

    assert await reason("empty.wav") == "the file is empty"
    assert await reason("header_only.wav") == "the file holds no sound"
    assert await reason("no_sound.mp4") == "the file has no sound track"
    assert await reason("local.m3u8") == "files of this kind are not accepted as audio"
    assert await reason("cut_voice.m4a") == "the file cannot be decoded as audio: moov atom not found"
    assert await reason("ten_hours.flac", 30) == "the recording is longer than 30 seconds"
    for name in REFUSED:
        text = await reason(name)
        assert "/" not in text and "\n" not in text and "0x" not in text and len(text) < 200, text


async def test_the_longest_recording_allowed_is_whole_and_one_sample_more_is_refused(
    decoder: Decoder, tmp_path: Path
) -> None:
    source = tmp_path / "in.wav"
    source.write_bytes(hostile.wav(bytes(32000)))
    assert (await decoder.to_wav(source, tmp_path / "out.wav", max_seconds=1)).frames == 16000
    source.write_bytes(hostile.wav(bytes(32002)))
    with pytest.raises(AudioRejected) as refused:
        await decoder.to_wav(source, tmp_path / "out.wav", max_seconds=1)
    assert refused.value.code == "audio_too_long"
    assert not (tmp_path / "out.wav").exists()


async def test_names_that_look_like_options_patterns_or_protocols_are_only_names(
    decoder: Decoder, good: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-i", "%03d.wav", "http:x", "concat:a|b", "a b'\"\n.wav", "声音.wav"):
        shutil.copy(good["stereo_44k.wav"], name)
        assert (await decoder.to_wav(Path(name), Path("out.wav"), max_seconds=60)).frames == 48000


async def test_eight_at_once_are_each_decoded(decoder: Decoder, good: dict[str, Path], tmp_path: Path) -> None:
    work = [decoder.to_wav(good["voice.mp3"], tmp_path / f"{n}.wav", max_seconds=60) for n in range(8)]
    assert {recording.frames for recording in await asyncio.gather(*work)} == {48000}
    assert children() == []


async def test_a_client_that_leaves_takes_the_decoder_and_its_children_along(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    slow = script(tmp_path, f"touch {tmp_path}/out.wav; sleep 60 & sleep 60")
    task = asyncio.get_running_loop().create_task(slow.to_wav(source, tmp_path / "out.wav", max_seconds=60))
    while len(children()) < 3:
        await asyncio.sleep(0.01)
    family = children()
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1
    while any(alive(process) for process in family):  # a grandchild is killed too, but only init can wait for it
        await asyncio.sleep(0.01)
        assert time.monotonic() - started < 2
    assert not (tmp_path / "out.wav").exists()


async def test_a_client_that_leaves_before_its_turn_waits_for_nobody(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    slow = script(tmp_path, "sleep 60", decode_slots=1)
    first, second = (
        asyncio.get_running_loop().create_task(slow.to_wav(source, tmp_path / "out.wav", max_seconds=60))
        for _ in range(2)
    )
    while not children():
        await asyncio.sleep(0.01)
    for task in (second, first):
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()
    assert children() == []


async def test_a_decoder_that_hangs_is_ended_by_the_clock(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    hung = script(tmp_path, f"touch {tmp_path}/out.wav; sleep 60", decode_wall_seconds=0.2)
    with pytest.raises(AudioRejected) as refused:
        await hung.to_wav(source, tmp_path / "out.wav", max_seconds=60)
    assert refused.value.code == "audio_decode_timeout"
    assert not (tmp_path / "out.wav").exists()
    assert children() == []


async def test_a_decoder_that_burns_the_cpu_is_ended_by_the_kernel(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    burning = script(tmp_path, "while :; do :; done", decode_cpu_seconds=1)
    with pytest.raises(AudioRejected) as refused:
        await burning.to_wav(source, tmp_path / "out.wav", max_seconds=60)
    assert refused.value.code == "audio_decode_timeout"


async def test_a_decoder_that_writes_without_end_is_ended_by_the_kernel(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    flood = script(tmp_path, f"exec dd if=/dev/zero of={tmp_path}/out.wav bs=4096")
    with pytest.raises(AudioRejected) as refused:
        await flood.to_wav(source, tmp_path / "out.wav", max_seconds=1)
    assert refused.value.code == "audio_too_long"
    assert not (tmp_path / "out.wav").exists()


async def test_a_decoder_that_complains_without_end_is_heard_only_at_first(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    loud = script(
        tmp_path, "i=0; while [ $i -lt 20000 ]; do echo '[x @ 0x1] bad /etc/passwd' >&2; i=$((i+1)); done; exit 1"
    )
    with pytest.raises(AudioRejected, match="cannot be decoded") as refused:
        await loud.to_wav(source, tmp_path / "out.wav", max_seconds=60)
    assert len(str(refused.value)) < 200


async def test_every_limit_is_set_and_nothing_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    (source := tmp_path / "in").write_bytes(b"x")
    asking = "for limit in t v f n c; do ulimit -$limit; done; env; ls /proc/self/fd | wc -l"
    limited = script(tmp_path, f"({asking}) >{tmp_path}/seen; exit 1", decode_cpu_seconds=7, decode_memory_bytes=2**29)
    with pytest.raises(AudioRejected):
        await limited.to_wav(source, tmp_path / "out.wav", max_seconds=60)
    seen = (tmp_path / "seen").read_text()
    assert seen.split()[:5] == ["7", str(2**19), str((60 + 2) * 32000 // 512), "32", "0"]
    assert "SECRET" not in seen
    assert int(seen.split()[-1]) <= 5


async def test_limits_leave_room_for_normal_files(good: dict[str, Path], tmp_path: Path) -> None:
    half = Decoder(Settings(decode_memory_bytes=2**29))
    for name in ("film.mp4", "voice.webm", "voice.wma", "voice.flac"):
        assert (await half.to_wav(good[name], tmp_path / "out.wav", max_seconds=60)).seconds > 2.9


async def test_a_decoder_that_cannot_start_is_our_fault(tmp_path: Path) -> None:
    (source := tmp_path / "in").write_bytes(b"x")
    gone = script(tmp_path, "")
    (tmp_path / "ffmpeg").unlink()
    with pytest.raises(GatewayError, match="cannot be started") as failed:
        await gone.to_wav(source, tmp_path / "out.wav", max_seconds=60)
    assert failed.value.status == 500


def test_a_missing_program_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="no such program"):
        Decoder(Settings(ffmpeg="/no/such/ffmpeg"))


def tone(sample_rate: int, seconds: float = 1.0, pitch: float = 440.0) -> bytes:
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return (8000 * np.sin(2 * np.pi * pitch * t)).astype("<i2").tobytes()


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
async def test_headerless_pcm_keeps_its_pitch_and_length(decoder: Decoder, tmp_path: Path, sample_rate: int) -> None:
    source = tmp_path / "body"
    source.write_bytes(tone(sample_rate) + b"\x7f")  # half a sample more
    recording = await decoder.to_wav(source, tmp_path / "out.wav", max_seconds=60, headerless=sample_rate)
    pcm = samples(recording)
    assert recording.frames == pytest.approx(16000, abs=64)
    heard = np.abs(np.fft.rfft(pcm[2000:14000] * np.hanning(12000), 160_000))  # bins of 0.1 Hz
    assert np.argmax(heard) / 10 == pytest.approx(440, abs=0.25)  # a cent
    assert np.abs(pcm[2000:14000]).max() == pytest.approx(8000, rel=0.02)


@pytest.mark.parametrize("name", GOOD)
async def test_a_file_with_a_header_is_never_taken_for_headerless_pcm(
    decoder: Decoder, good: dict[str, Path], tmp_path: Path, name: str
) -> None:
    recording = await decoder.to_wav(good[name], tmp_path / "out.wav", max_seconds=600, headerless=8000)
    assert recording.frames == pytest.approx(16000 * hostile.SECONDS, rel=0.02)


async def test_headerless_pcm_has_the_same_limits(decoder: Decoder, tmp_path: Path) -> None:
    source, into = tmp_path / "body", tmp_path / "out.wav"
    for seconds, fits in ((2.0, True), (2.01, False)):
        source.write_bytes(tone(16000, seconds))
        if fits:
            assert (await decoder.to_wav(source, into, max_seconds=2, headerless=16000)).seconds == 2
        else:
            with pytest.raises(AudioRejected) as refused:
                await decoder.to_wav(source, into, max_seconds=2, headerless=16000)
            assert refused.value.code == "audio_too_long"
    for content in (b"", b"\x01"):
        source.write_bytes(content)
        with pytest.raises(AudioRejected) as refused:
            await decoder.to_wav(source, into, max_seconds=2, headerless=16000)
        assert refused.value.code in ("audio_empty", "audio_undecodable")
