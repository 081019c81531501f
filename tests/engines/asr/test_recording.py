import struct
from pathlib import Path

import numpy as np
import pytest

from engines.asr.recording import RATE, Unreadable, opened
from tests.engines.asr.sound import any_wav, as_wav

TONE = np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) * 0.5


def read(path: Path, body: bytes) -> bytes:
    path.write_bytes(body)
    with opened(path, lambda: None) as recording:
        return recording.read(0, recording.samples)


def wave24(samples: np.ndarray) -> bytes:
    return (samples * 2**31).astype("<i4").view("u1").reshape(-1, 4)[:, 1:].tobytes()


FORMATS = {
    "8 bit": any_wav((TONE * 127 + 128).astype("u1").tobytes(), 1, 1, RATE, 8),
    "24 bit": any_wav(wave24(TONE), 1, 1, RATE, 24),
    "32 bit": any_wav((TONE * 2**31).astype("<i4").tobytes(), 1, 1, RATE, 32),
    "float": any_wav(TONE.astype("<f4").tobytes(), 3, 1, RATE, 32),
    "double": any_wav(TONE.astype("<f8").tobytes(), 3, 1, RATE, 64),
    "stereo": any_wav(np.repeat((TONE * 32767).astype("<i2"), 2).tobytes(), 1, 2, RATE, 16),
    "extensible": any_wav(
        (TONE * 32767).astype("<i2").tobytes(), 0xFFFE, 1, RATE, 16, struct.pack("<HHIH14x", 22, 16, 0, 1)
    ),
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_sample_format_sounds_the_same(tmp_path: Path, form: str) -> None:
    heard = np.frombuffer(read(tmp_path / "a", FORMATS[form]), "<i2") / 32767
    assert len(heard) == len(TONE)
    assert np.abs(heard - TONE).max() < (0.02 if form == "8 bit" else 0.001)


@pytest.mark.parametrize("rate", [8000, 22050, 24000, 44100, 48000])
def test_every_rate_becomes_16_khz(tmp_path: Path, rate: int) -> None:
    tone = (np.sin(np.arange(3 * rate) * 2 * np.pi * 440 / rate) * 16000).astype("<i2")
    heard = np.frombuffer(read(tmp_path / "a", as_wav(tone.tobytes(), rate)), "<i2")
    assert abs(len(heard) - 3 * RATE) <= 1
    loudest = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
    assert abs(loudest - 440) < 1


def test_a_file_that_is_already_right_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(as_wav(bytes(range(100))))
    with opened(path, lambda: None) as recording:
        assert recording.file.name == str(path)
        assert recording.read(10, 5) == bytes(range(20, 30))
        assert recording.read(49, 5) == bytes(range(98, 100))
        assert recording.read(60, 5) == b""


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    body = bytearray(as_wav(bytes(100)))
    body[40:44] = b"\xff\xff\xff\xff"
    assert len(read(tmp_path / "a", bytes(body))) == 100


def test_a_large_chunk_before_the_audio_is_skipped(tmp_path: Path) -> None:
    body = as_wav(b"\1\2" * 50)
    junk = struct.pack("<4sI", b"LIST", 100_001) + bytes(100_002)
    assert read(tmp_path / "a", body[:12] + junk + body[12:]) == b"\1\2" * 50


def test_a_float_that_is_no_number_is_silence(tmp_path: Path) -> None:
    body = any_wav(np.array([np.nan, np.inf, -9.0], "<f4").tobytes(), 3, 1, RATE, 32)
    assert np.frombuffer(read(tmp_path / "a", body), "<i2").tolist() == [0, 32767, -32767]


WRONG = {
    "empty": b"",
    "text": b"this is not audio, it is a sentence",
    "mp3": b"ID3\x04" + bytes(100),
    "header only": as_wav(b"")[:20],
    "no data": as_wav(b"")[:36],
    "data before fmt": b"RIFF\0\0\0\0WAVEdata\4\0\0\0\0\0\0\0",
    "a-law": any_wav(bytes(100), 6, 1, 8000, 8),
    "no channels": any_wav(bytes(100), 1, 0, 8000, 16),
    "no rate": any_wav(bytes(100), 1, 1, 0, 16),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_readable_audio_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable, match="WAV"):
        read(tmp_path / "a", WRONG[name])


def test_a_conversion_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(as_wav(bytes(10**6), 8000))

    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), opened(tmp_path / "a", check):
        pass
