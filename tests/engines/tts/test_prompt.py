import struct

import numpy as np
import pytest

from engines.tts import prompt
from engines.tts.job import Malformed

from .sound import SHARED, tone, wav_of

VOICE = tone(150, 2.0, 16_000)


def wav_as(kind: int, bits: int, data: bytes, more: bytes = b"") -> bytes:
    """A mono file at 16 kHz in any format, with something else before its samples."""
    form = struct.pack("<HHIIHH", kind, 1, 16_000, 16_000 * bits // 8, bits // 8, bits) + more
    chunks = ((b"fmt ", form), (b"LIST", b"odd\0"[:3]), (b"data", data))
    body = b"".join(name + struct.pack("<I", len(each)) + each + b"\0" * (len(each) % 2) for name, each in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def test_a_mono_file_is_read() -> None:
    found = prompt.read(wav_of(VOICE, 16_000))
    assert found.sample_rate == 16_000
    assert np.allclose(found.samples, VOICE, atol=1e-3)


@pytest.mark.parametrize(
    "file",
    [
        wav_as(3, 32, VOICE.astype("<f4").tobytes()),
        wav_as(3, 64, VOICE.astype("<f8").tobytes()),
        wav_as(1, 32, (VOICE * (2**31 - 1)).astype("<i4").tobytes()),
        wav_as(0xFFFE, 16, (VOICE * 32_767).astype("<i2").tobytes(), struct.pack("<HHIH14x", 22, 16, 4, 1)),
        wav_as(0xFFFE, 32, VOICE.astype("<f4").tobytes(), struct.pack("<HHIH14x", 22, 32, 4, 3)),
    ],
    ids=["float", "double", "32 bits", "extensible", "extensible float"],
)
def test_every_usual_kind_of_sample_is_read(file: bytes) -> None:
    assert np.allclose(prompt.read(file).samples, VOICE, atol=1e-3)


def test_the_recording_that_upstream_clients_send_by_default_is_read() -> None:
    if not (file := SHARED / "zero_shot_prompt_zh.wav").exists():
        pytest.skip("the shared recordings are not here")
    found = prompt.read(file.read_bytes())
    assert found.sample_rate == 24_000 and 3 < len(found.samples) / found.sample_rate < 4


def test_stereo_is_averaged() -> None:
    both = np.asarray(np.column_stack([VOICE, np.zeros_like(VOICE)]).reshape(-1), np.float32)
    assert np.allclose(prompt.read(wav_of(both, 16_000, channels=2)).samples, VOICE / 2, atol=1e-3)


def test_equal_files_have_equal_digests() -> None:
    assert prompt.read(wav_of(VOICE)).digest == prompt.read(wav_of(VOICE)).digest
    assert prompt.read(wav_of(VOICE)).digest != prompt.read(wav_of(np.asarray(VOICE / 2, np.float32))).digest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable PCM WAV"),
        (wav_of(VOICE, 16_000)[:30], "it ends too early"),
        (wav_as(7, 8, bytes(32_000)), "8 bits of format 7"),
        (wav_as(3, 32, np.full(32_000, np.nan, "<f4").tobytes()), "no numbers"),
        (b"ID3\x04 this is an mp3", "not a readable PCM WAV"),
        (wav_of(VOICE, 16_000)[:20], "not a readable PCM WAV"),
        (wav_of(VOICE[:2_000], 16_000), "at least 1.0 s"),
        (wav_of(np.tile(VOICE, 16), 16_000), "more than 30 s"),
        (wav_of(VOICE * 0.001, 16_000), "silent"),
        (wav_of(VOICE, 4_000), "4000 Hz"),
        (wav_of(VOICE, 16_000, channels=4), "4 channels"),
    ],
)
def test_a_useless_reference_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        prompt.read(data)


def test_a_length_claimed_in_the_header_is_not_believed() -> None:
    honest = wav_of(VOICE, 16_000)
    boasting = honest[:40] + b"\xff\xff\xff\xff" + honest[44:]
    assert len(prompt.read(boasting).samples) == len(VOICE)
