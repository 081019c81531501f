import numpy as np
import pytest

from engines.tts import prompt
from engines.tts.job import Malformed

from .sound import tone, wav_of

VOICE = tone(150, 2.0, 16_000)


def test_a_mono_file_is_read() -> None:
    found = prompt.read(wav_of(VOICE, 16_000))
    assert found.sample_rate == 16_000
    assert np.allclose(found.samples, VOICE, atol=1e-3)


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
