from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import wav
from gateway.wire.containers import HEAD_BYTES, is_headerless
from tests import hostile


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile.sounds(imageio_ffmpeg.get_ffmpeg_exe(), tmp_path_factory.mktemp("sounds"))


def test_every_format_that_the_decoder_reads_is_told_from_pcm(sounds: dict[str, Path]) -> None:
    missed = [name for name, path in sounds.items() if is_headerless(path.read_bytes()[:HEAD_BYTES])]
    assert missed == []


def test_headerless_pcm_is_no_container() -> None:
    for pitch in range(50, 4000, 37):
        for level in (0, 5, 1025, 32767):
            tone = level * np.sin(2 * np.pi * pitch * np.arange(HEAD_BYTES // 2) / 16000)
            assert is_headerless(tone.astype("<i2").tobytes())


@pytest.mark.parametrize("start", [b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80\x43\x80\x00", b"\xff\xff\xff\xff"])
def test_samples_that_look_like_a_frame_of_mpeg_are_samples(start: bytes) -> None:
    assert is_headerless(start + bytes(HEAD_BYTES))
    assert is_headerless(start)


def test_a_wav_without_a_single_sample_is_a_wav() -> None:
    assert not is_headerless(wav.header(16000, 0))
    assert is_headerless(b"")


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>not found</html>", b'{"error": "not found"}', b"\x89PNG\r\n\x1a\n"]
)
def test_what_a_server_sends_in_place_of_audio_is_not_taken_for_it(body: bytes) -> None:
    assert not is_headerless(body)


@given(st.binary(max_size=64))
def test_no_bytes_break_it(head: bytes) -> None:
    is_headerless(head)
    is_headerless(b"\xff\xfb" + head)
    is_headerless(b"\xff\xf1" + head)
