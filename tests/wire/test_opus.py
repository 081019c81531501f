"""Ogg Opus streams: nothing of a sound is lost, and nothing that is no sound gets through."""

import random
import subprocess
from itertools import pairwise

import numpy as np
import pytest
import sphn
from hypothesis import given
from hypothesis import strategies as st
from imageio_ffmpeg import get_ffmpeg_exe

from gateway.wire import opus
from gateway.wire.opus import FRAME, RATE, NotOpus, Packer, Pages, Unpacker, check, is_header, seconds

Samples = np.ndarray[tuple[int], np.dtype[np.int16]]


def tone(length: float, hertz: float = 440.0) -> bytes:
    t = np.arange(int(RATE * length)) / RATE
    return (np.sin(2 * np.pi * hertz * t) * 12000).astype("<i2").tobytes()


def pages_of(messages: list[bytes]) -> list[bytes]:
    cut = Pages()
    return [page for message in messages for page in cut.feed(message)]


def page(*packets: bytes, flags: int = 0) -> bytes:
    """A page by hand, its checksum wrong: nobody looks at it."""
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
    return b"OggS\0" + bytes((flags,)) + bytes(20) + bytes((len(table),)) + table + b"".join(packets)


def number(one: bytes) -> int:
    return int.from_bytes(one[18:22], "little")


SPEECH = Packer().feed(tone(1.0))
GOOD = pages_of(SPEECH)


class TestPacker:
    def test_a_message_is_a_page_and_the_first_has_the_headers_before_it(self) -> None:
        sizes = [len(pages_of([message])) for message in SPEECH]
        assert sizes == [3] + [1] * 24
        assert [number(one) for one in GOOD] == list(range(27))
        assert GOOD[0][28:].startswith(b"OpusHead") and GOOD[1][28:].startswith(b"OpusTags")
        assert GOOD[0][5] & 2, "the beginning of the stream"
        assert [is_header(one) for one in GOOD] == [True, True] + [False] * 25

    def test_a_page_is_40_ms(self) -> None:
        assert {round(seconds(one), 6) for one in GOOD[2:]} == {0.04}
        granules = [int.from_bytes(one[6:14], "little") for one in GOOD[2:]]
        assert {later - earlier for earlier, later in pairwise(granules)} == {1920}

    @pytest.mark.parametrize("extra", [0, 1, 100, 500, FRAME - 1])
    def test_the_end_loses_no_sample(self, extra: int) -> None:
        """A click at the very end is heard by whoever reads what is sent."""
        pcm = tone(0.4) + bytes(2 * extra) + np.full(24, 20000, "<i2").tobytes()
        packer, reader = Packer(), sphn.OpusStreamReader(RATE)
        heard = np.concatenate([reader.append_bytes(one) for one in packer.feed(pcm) + packer.end()])
        assert np.abs(heard[len(pcm) // 2 - 30 :]).max() > 0.2

    def test_decoders_that_skip_what_they_are_told_to_skip_hear_the_first_sample(self) -> None:
        said = np.random.default_rng(1).normal(0, 4000, RATE // 2).astype("<i2")
        packer = Packer()
        stream = b"".join(packer.feed(said.tobytes()) + packer.end())
        command = [get_ffmpeg_exe(), "-v", "warning", "-f", "ogg", "-i", "-", "-f", "s16le", "-ar", str(RATE), "-"]
        found = subprocess.run(command, input=stream, capture_output=True, check=True)
        assert not found.stderr, "such as a wrong checksum"
        heard = np.frombuffer(found.stdout, "<i2")
        size = 2 * len(heard)
        both = np.fft.rfft(heard.astype(float), size) * np.conj(np.fft.rfft(said.astype(float), size))
        assert (np.fft.irfft(both).argmax() + 2) % size <= 4, "in its place to two samples"

    def test_the_stream_goes_on_after_an_end(self) -> None:
        packer = Packer()
        first = packer.feed(tone(0.1)) + packer.end()
        second = packer.feed(tone(0.1)) + packer.end()
        numbers = [number(one) for one in pages_of(first + second)]
        assert numbers == list(range(len(numbers)))
        assert not any(is_header(one) for one in pages_of(second))

    def test_what_is_dropped_is_not_heard_later(self) -> None:
        packer = Packer()
        packer.feed(tone(0.05))
        packer.drop()
        heard = heard_in(packer.feed(bytes(2 * FRAME * 3)), SPEECH[:1])
        assert np.abs(heard[-FRAME:]).max() < 100

    @given(st.lists(st.integers(0, 5000), max_size=10))
    def test_the_pieces_do_not_matter(self, cuts: list[int]) -> None:
        pcm, packer, made, at = tone(0.3), Packer(), [], 0
        for cut in cuts:
            made += packer.feed(pcm[at : at + 2 * cut])
            at += 2 * cut
        assert made + packer.feed(pcm[at:]) == Packer().feed(pcm)


def heard_in(messages: list[bytes], before: list[bytes]) -> Samples:
    unpacker = Unpacker()
    for one in pages_of(before):
        unpacker.feed(one)
    return np.frombuffer(b"".join(unpacker.feed(one) for one in pages_of(messages)), "<i2")


class TestPages:
    @given(st.lists(st.integers(0, 400), max_size=40))
    def test_any_cut_gives_the_same_pages(self, cuts: list[int]) -> None:
        stream, cut, found, at = b"".join(SPEECH), Pages(), [], 0
        for size in cuts:
            found += cut.feed(stream[at : at + size])
            at += size
        assert found + cut.feed(stream[at:]) == GOOD

    @given(st.binary(max_size=300))
    def test_any_bytes_are_pages_or_refused(self, data: bytes) -> None:
        try:
            found = Pages().feed(data)
        except NotOpus:
            return
        assert data.startswith(b"".join(found))

    def test_it_goes_on_after_garbage(self) -> None:
        cut = Pages()
        for garbage in (b"\xfc\x01\x02raw packet", b"RIFF", b"OggX", b"Ogg" + bytes(40)):
            with pytest.raises(NotOpus, match="not in Ogg pages"):
                cut.feed(garbage)
            assert cut.feed(GOOD[2]) == [GOOD[2]]

    def test_garbage_in_a_message_costs_that_message_and_no_more(self) -> None:
        cut = Pages()
        with pytest.raises(NotOpus):
            cut.feed(GOOD[2] + b"garbage")
        assert cut.feed(GOOD[3]) == [GOOD[3]]

    def test_what_it_holds_is_bounded(self) -> None:
        cut = Pages()
        biggest = b"OggS" + bytes(22) + b"\xff" + b"\xff" * 255
        assert cut.feed(biggest + bytes(255 * 255 - 1)) == []
        assert len(cut._rest) < 65_308
        assert len(cut.feed(b"\0")) == 1


class TestSeconds:
    @pytest.mark.parametrize(
        ("toc", "more", "expected"),
        [
            (0x00, b"", 0.01),
            (0x08, b"", 0.02),
            (0x18, b"", 0.06),
            (0x60, b"", 0.01),
            (0x68, b"", 0.02),
            (0x80, b"", 0.0025),
            (0xF8, b"", 0.02),
            (0xF9, b"", 0.04),
            (0xFA, b"\0", 0.04),
            (0xFB, b"\x03", 0.06),
            (0x1B, b"\x02", 0.12),
        ],
    )
    def test_a_packet_says_how_long_it_is(self, toc: int, more: bytes, expected: float) -> None:
        assert seconds(page(bytes((toc,)) + more)) == pytest.approx(expected)
        assert check(page(bytes((toc,)) + more)) == pytest.approx(expected)

    def test_packets_add_up(self) -> None:
        """Upstream's web page sends two packets of 20 ms in a page."""
        assert seconds(page(b"\x08" + bytes(30), b"\x08" + bytes(300))) == pytest.approx(0.04)

    def test_the_rest_of_a_packet_counts_in_the_page_where_it_began(self) -> None:
        begun = page(b"\x08" + bytes(254))[:-1]  # 255 bytes: the table would go on with 0
        begun = begun[:26] + b"\1\xff" + begun[29:] + b"\0"
        assert check(begun) == pytest.approx(0.02)
        assert check(page(bytes(10), b"\x08", flags=1)) == pytest.approx(0.02)

    def test_headers_have_none(self) -> None:
        assert check(GOOD[0]) == check(GOOD[1]) == seconds(GOOD[0]) == 0

    def test_audio_that_only_begins_like_a_header_is_none(self) -> None:
        assert not is_header(page(b"OpusHead", b"\x08"))
        assert is_header(page(b"OpusTags" + bytes(1000)))


class TestCheck:
    @pytest.mark.parametrize(
        "packet",
        [
            b"",
            b"\xf8" + bytes(1276),
            b"\xf9" + bytes(3),
            b"\xf9" + bytes(2 * 1276),
            b"\xfa",
            b"\xfa\xfc",
            b"\xfa\x05" + bytes(4),
            b"\xfb",
            b"\xfb\x00",
            b"\xfb\x3f",
            b"\x1b\x03",
            b"\xfb\x02" + bytes(3),
            b"\xfb\x42",
            b"\xfb\x42\xff",
            b"\xfb\x42\x09" + bytes(4),
            b"\xfb\x82\x05" + bytes(4),
            b"\xfb\x82",
        ],
        ids=lambda packet: f"{packet[:3].hex()} and {len(packet)} bytes",
    )
    def test_a_packet_that_breaks_the_rules_is_refused(self, packet: bytes) -> None:
        with pytest.raises(NotOpus):
            check(page(packet))

    @pytest.mark.parametrize(
        "packet",
        [
            b"\xf8" + bytes(1275),
            b"\xf9" + bytes(4),
            b"\xfa\x02" + bytes(7),
            b"\xfa\xfc\x01" + bytes(256 + 3),
            b"\xfb\x02" + bytes(4),
            b"\xfb\x42\x03" + bytes(4 + 3),
            b"\xfb\x42\xff\x01" + bytes(4 + 255),
            b"\xfb\x82\x02" + bytes(7),
            b"\xfb\xc2\x03\x02" + bytes(7 + 3),
        ],
        ids=lambda packet: f"{packet[:3].hex()} and {len(packet)} bytes",
    )
    def test_one_that_keeps_them_is_read_by_the_decoder_too(self, packet: bytes) -> None:
        length = check(page(packet))
        assert length == pytest.approx(seconds(page(packet)))
        reader = sphn.OpusStreamReader(RATE)
        for one in (*GOOD[:3], page(packet)):
            heard = reader.append_bytes(one)
        assert len(heard) / RATE == pytest.approx(length)

    def test_a_page_of_packets_that_claim_much_is_refused(self) -> None:
        with pytest.raises(NotOpus, match="more than 5 s"):
            check(page(*[b"\x1b\x02"] * 42))
        assert check(page(*[b"\x1b\x02"] * 41)) == pytest.approx(4.92)


class TestUnpacker:
    def test_what_was_packed_is_heard(self) -> None:
        heard = np.frombuffer(b"".join(map(Unpacker().feed, GOOD)), "<i2").astype(float)
        assert len(heard) == RATE
        spectrum = np.abs(np.fft.rfft(heard))
        assert abs(np.argmax(spectrum) * RATE / len(heard) - 440) < 2
        assert 10000 < np.abs(heard[2400:-2400]).max() < 14000

    def test_it_goes_on_after_garbage(self) -> None:
        unpacker = Unpacker()
        for one in GOOD[:6]:
            unpacker.feed(one)
        for garbage in (page(b""), page(b"\xfb\x3f"), page(b"\xf8" + bytes(1300))):
            with pytest.raises(NotOpus):
                unpacker.feed(garbage)
            assert len(unpacker.feed(GOOD[7])) // 2 in (0, FRAME), "a reader that begins anew may hold back a page"
            assert len(unpacker.feed(GOOD[8])) // 2 == FRAME

    def test_no_page_gives_more_than_it_says(self) -> None:
        """Random damage to good pages, and pages of random packets: never an error of another kind, never a flood."""
        chance, unpacker, refused = random.Random(7), Unpacker(), 0
        for _ in range(4000):
            damaged = bytearray(chance.choice(GOOD))
            if chance.random() < 0.5:
                for _ in range(chance.randint(1, 4)):
                    damaged[chance.randrange(5, len(damaged))] = chance.randrange(256)
            else:
                table = bytes(chance.choice((0, 1, 2, 3, 20, 254, 255)) for _ in range(chance.choice((0, 1, 2, 255))))
                damaged[26:] = bytes((len(table),)) + table + chance.randbytes(sum(table))
            try:
                for one in pages_of([bytes(damaged)]):
                    assert len(unpacker.feed(one)) / 2 / RATE <= seconds(one) + opus._MOST_PACKET_SECONDS
            except NotOpus:
                refused += 1
        assert 500 < refused < 3500
