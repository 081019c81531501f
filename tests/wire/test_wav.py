"""WAV headers: what is written is read back, and no header is believed beyond the bytes that are there."""

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.wav import HEADER_BYTES, UNKNOWN_LENGTH, Header, NotWav, header, read_header

FMT = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """A chunk with its pad byte; `size` is what it claims, where that is not the truth."""
    claim = len(body) if size is None else size
    return name + struct.pack("<I", claim) + body + b"\0" * (len(body) & 1)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@given(rate=st.integers(1, 768_000), frames=st.integers(0, 1000))
def test_what_is_written_is_read_back(rate: int, frames: int) -> None:
    file = header(rate, frames) + bytes(2 * frames)
    assert read_header(file, len(file)) == Header(rate, HEADER_BYTES, frames)


def test_the_standard_library_reads_what_is_written() -> None:
    pcm = struct.pack("<4h", 0, 1, -1, 32767)
    with wave.open(io.BytesIO(header(24000, 4) + pcm)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert file.readframes(10) == pcm


def test_a_stream_says_that_its_length_is_unknown_and_is_read_to_its_end() -> None:
    head = header(22050)
    assert len(head) == HEADER_BYTES
    assert struct.unpack_from("<I", head, 40) == (UNKNOWN_LENGTH,)
    assert struct.unpack_from("<I", head, 4) == (UNKNOWN_LENGTH,)
    assert read_header(head + bytes(10), HEADER_BYTES + 10) == Header(22050, HEADER_BYTES, 5)


@pytest.mark.parametrize("frames", [-1, UNKNOWN_LENGTH // 2 + 1])
def test_a_length_that_no_wav_file_can_say_is_not_written(frames: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        header(16000, frames)


@pytest.mark.parametrize(
    ("claim", "there", "frames"),
    [(100, 40, 20), (100, 0, 0), (0, 100, 0), (UNKNOWN_LENGTH, 7, 3), (7, 100, 3), (40, 40, 20)],
)
def test_a_length_that_lies_is_cut_to_the_bytes_that_are_there(claim: int, there: int, frames: int) -> None:
    file = riff(chunk(b"fmt ", FMT), chunk(b"data", b"", claim)) + bytes(there)
    assert read_header(file, len(file)).frames == frames


def test_only_the_head_needs_to_be_given() -> None:
    assert read_header(header(16000, 8000), HEADER_BYTES + 16000).frames == 8000


@pytest.mark.parametrize("odd", [b"", b"x", b"xy", b"xyz"])
def test_chunks_before_the_data_are_passed_over_even_odd_ones(odd: bytes) -> None:
    file = riff(chunk(b"LIST", odd), chunk(b"fmt ", FMT), chunk(b"note", odd), chunk(b"data", bytes(6)))
    found = read_header(file, len(file))
    assert (found.sample_rate, found.frames) == (16000, 3)
    assert file[found.start :] == bytes(6)


def test_a_longer_format_chunk_is_understood() -> None:
    file = riff(chunk(b"fmt ", FMT + b"\0\0"), chunk(b"data", bytes(4)))
    assert read_header(file, len(file)).frames == 2


@pytest.mark.parametrize("length", range(HEADER_BYTES))
def test_a_header_that_is_cut_off_is_no_wav(length: int) -> None:
    with pytest.raises(NotWav):
        read_header(header(16000, 0)[:length], length)


@pytest.mark.parametrize(
    "file",
    [
        riff(chunk(b"data", bytes(8)), chunk(b"fmt ", FMT)),
        riff(chunk(b"fmt ", FMT[:14])),
        riff(chunk(b"fmt ", FMT, size=10), chunk(b"data", b"")),
        riff(chunk(b"fmt ", FMT), chunk(b"LIST", b"", size=0xFFFFFFFF), chunk(b"data", bytes(8))),
        b"RIFX" + riff(chunk(b"fmt ", FMT), chunk(b"data", b""))[4:],
        riff(chunk(b"fmt ", FMT)),
    ],
    ids=["data first", "short format", "lying format", "endless chunk", "big-endian", "no data"],
)
def test_a_broken_order_of_chunks_is_no_wav(file: bytes) -> None:
    with pytest.raises(NotWav):
        read_header(file, len(file))


@pytest.mark.parametrize(
    ("kind", "channels", "rate", "bits"),
    [
        (3, 1, 16000, 32),
        (1, 2, 16000, 16),
        (1, 1, 16000, 8),
        (1, 1, 0, 16),
        (1, 1, 768_001, 16),
        (0xFFFE, 1, 16000, 16),
    ],
)
def test_other_audio_than_mono_s16le_is_no_wav_of_ours(kind: int, channels: int, rate: int, bits: int) -> None:
    form = struct.pack("<HHIIHH", kind, channels, rate, 0, 0, bits)
    with pytest.raises(NotWav, match="not mono s16le"):
        read_header(riff(chunk(b"fmt ", form), chunk(b"data", bytes(8))), 100)


def assert_header_or_not_wav(file: bytes, size: int) -> None:
    try:
        found = read_header(file, size)
    except NotWav:
        return
    assert found.sample_rate >= 1
    assert found.frames >= 0
    assert found.start + 2 * found.frames <= max(size, found.start)


@given(st.binary(max_size=200), st.integers(0, 2**33))
def test_any_bytes_give_a_header_or_not_wav(junk: bytes, size: int) -> None:
    assert_header_or_not_wav(junk, size)


@given(
    st.lists(st.tuples(st.sampled_from([b"fmt ", b"data", b"LIST"]), st.binary(max_size=20), st.integers(0, 2**32 - 1)))
)
def test_any_chunks_give_a_header_or_not_wav(chunks: list[tuple[bytes, bytes, int]]) -> None:
    file = riff(*(chunk(name, body, size) for name, body, size in chunks))
    assert_header_or_not_wav(file, len(file))


@given(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255))
def test_a_header_with_any_byte_changed_gives_a_header_or_not_wav(at: int, value: int) -> None:
    file = bytearray(header(16000, 4) + bytes(8))
    file[at] = value
    assert_header_or_not_wav(bytes(file), len(file))
