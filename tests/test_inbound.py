"""Live audio as clients send it: whatever the form and wherever it is cut, its pitch, its length and its rate."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.inbound import FORMATS, inbound
from gateway.wire import opus, wav
from tests.opus_talk import packets, prefixed


def tone(sample_rate: int, seconds: float = 1.0, channels: int = 1) -> bytes:
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.repeat(8000 * np.sin(2 * np.pi * 440 * t), channels).astype("<i2").tobytes()


def pitch(pcm: bytes, sample_rate: int) -> float:
    """Hz, of the middle."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    heard = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 10 * sample_rate))
    return float(np.argmax(heard) / 10)


async def heard(form: str, messages: list[bytes], sample_rate: int = 16000) -> tuple[bytes, int]:
    """(PCM, its rate)."""
    ear = inbound(form, sample_rate)
    found = [piece for message in messages if (piece := await ear.feed(message)) is not None]
    assert len({piece.sample_rate for piece in found}) == 1
    assert all(piece.pcm and len(piece.pcm) % 2 == 0 for piece in found)
    return b"".join(piece.pcm for piece in found), found[0].sample_rate


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 3, 333, 640, 100_000])
async def test_pcm_of_any_number_of_bytes_is_whole(size: int) -> None:
    pcm = tone(16000, 0.1)
    assert await heard("pcm", cut(pcm + b"\x01", size)) == (pcm, 16000)


@pytest.mark.parametrize("form", ["wav", "pcm"])
@pytest.mark.parametrize("size", [1, 7, 44, 640, 100_000])
async def test_w7_a_wav_is_read_wherever_its_header_is_cut(form: str, size: int) -> None:
    """W7: WAV over a WebSocket works, at the rate that its header states."""
    pcm = tone(8000, 0.1)
    file = wav.header(8000, len(pcm) // 2) + pcm
    assert await heard(form, cut(file, size)) == (pcm, 8000)


async def test_w7_chunks_around_the_samples_are_no_sound() -> None:
    """W7: a list of titles before, a cut-off chunk behind."""
    pcm = tone(16000, 0.1)
    head = wav.header(16000, len(pcm) // 2)
    file = head[:36] + b"LIST" + struct.pack("<I", 5) + b"title\0" + head[36:] + pcm + b"LIST\xff\0\0\0rest"
    assert await heard("wav", cut(file, 100)) == (pcm, 16000)


async def test_a_streamed_wav_of_unknown_length_goes_on() -> None:
    pcm = tone(16000, 0.1)
    for length in (0, 0xFFFFFFFF):
        file = wav.header(16000)[:40] + struct.pack("<I", length) + pcm
        assert await heard("wav", [file]) == (pcm, 16000)


async def test_stereo_becomes_mono() -> None:
    pcm = tone(16000, 0.1, channels=2)
    head = bytearray(wav.header(16000, len(pcm) // 2))
    head[22], head[32:34] = 2, b"\4\0"
    assert await heard("wav", cut(bytes(head) + pcm, 333)) == (tone(16000, 0.1), 16000)


async def test_samples_named_wav_without_a_header_are_samples() -> None:
    pcm = tone(16000, 0.1)
    assert await heard("wav", cut(pcm, 640)) == (pcm, 16000)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
@pytest.mark.parametrize("form", ["opus", "opu"])
@pytest.mark.parametrize("framed", [True, False])
async def test_bare_opus_packets_keep_pitch_and_length(sample_rate: int, form: str, framed: bool) -> None:
    sent = packets(tone(sample_rate, 2), sample_rate)
    pcm, rate = await heard(form, [prefixed(one) if framed else one for one in sent])
    assert (rate, len(pcm) / 2 / rate) == (opus.RATE, pytest.approx(2.0, abs=0.021))
    assert pitch(pcm, rate) == pytest.approx(440, abs=0.25)


async def test_several_packets_with_their_lengths_may_share_a_message() -> None:
    sent = [prefixed(one) for one in packets(tone(16000, 2))]
    pcm, rate = await heard("opu", cut_list(sent, 10))
    assert len(pcm) / 2 / rate == pytest.approx(2.0, abs=0.021)


def cut_list(parts: list[bytes], size: int) -> list[bytes]:
    return [b"".join(parts[at : at + size]) for at in range(0, len(parts), size)]


@pytest.mark.parametrize("size", [1, 100, 5000])
async def test_ogg_opus_may_be_cut_anywhere(size: int) -> None:
    packer = opus.Packer()
    stream = b"".join(packer.feed(tone(opus.RATE, 2)) + packer.end())
    pcm, rate = await heard("opus", cut(stream, size))
    assert (rate, pitch(pcm, rate)) == (opus.RATE, pytest.approx(440, abs=0.25))
    assert len(pcm) / 2 / rate == pytest.approx(2.0, abs=0.1)


def riff(form: bytes) -> bytes:
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data\4\0\0\0"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("wav", riff(struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32))),
        ("wav", riff(struct.pack("<HHIIHH", 1, 6, 16000, 0, 12, 16))),
        ("wav", b"RIFF\0\0\0\0WAVE" + b"data\4\0\0\0"),
        ("wav", b"RIFF\0\0\0\0WAVE" + b"LIST\xff\xff\xff\x7f" + bytes(70_000)),
        ("opus", b"OggS\0" + bytes(22) + b"\1\5hello"),
        ("opu", b"\xff" * 2000),
        ("opu", b"\3" + bytes(5)),
    ],
)
async def test_what_cannot_be_heard_is_refused_by_name(form: str, message: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        await inbound(form, 16000).feed(message)
    assert refused.value.code == "audio_undecodable"


@given(
    st.sampled_from(FORMATS), st.lists(st.binary(max_size=300), max_size=8), st.sampled_from([b"", b"RIFF", b"OggS\0"])
)
@settings(max_examples=60)
async def test_no_bytes_break_it(form: str, messages: list[bytes], start: bytes) -> None:
    ear = inbound(form, 16000)
    for message in [start, *messages]:
        try:
            piece = await ear.feed(message)
        except BadRequest:
            break
        assert piece is None or (piece.pcm and len(piece.pcm) % 2 == 0)
