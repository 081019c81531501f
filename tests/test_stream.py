"""The last step: audio on its way to a client or into a file, whole or broken off, never cut short as if whole."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.encoding import Encoders
from gateway.errors import ClientGone, EngineBroke
from gateway.events import Audio
from gateway.exchange import Exchange
from gateway.stream import Encoded, Spoken, answer, wav_file
from gateway.wire import wav

ENCODERS = Encoders(1)


async def audio(*pieces: bytes, rate: int = 24000, pause: float = 0.0) -> AsyncIterator[Audio]:
    for piece in pieces:
        await asyncio.sleep(pause)
        yield Audio(piece, rate)


async def changing() -> AsyncIterator[Audio]:
    yield Audio(b"ab", 24000)
    yield Audio(b"cd", 22050)


async def dying() -> AsyncIterator[Audio]:
    yield Audio(b"ab", 24000)
    raise EngineBroke("it died")


async def wav_answer(http: Exchange, events: AsyncIterator[Audio], idle: float) -> None:
    async with Encoded(events, partial(ENCODERS.open, "wav")) as pieces:
        await answer(http, pieces, idle=idle)


class Wire:
    """What left for the client."""

    def __init__(self, slow: float = 0.0) -> None:
        self.sent: list[dict[str, Any]] = []
        self.http = Exchange({"type": "http", "headers": []}, self.receive, self.send)
        self._slow = slow

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(self._slow)
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class TestAnswer:
    async def test_a_stream_is_a_wav_of_unknown_length_with_its_rate_beside_it(self) -> None:
        wire = Wire()
        await wav_answer(wire.http, audio(b"ab", b"cd"), idle=1)
        assert wire.body == wav.header(24000) + b"abcd"
        assert (b"x-sample-rate", b"24000") in wire.sent[0]["headers"]
        assert wire.http.complete
        assert wire.sent[-1]["more_body"] is False

    async def test_header_and_first_piece_leave_together(self) -> None:
        wire = Wire()
        await wav_answer(wire.http, audio(b"ab", b"cd"), idle=1)
        assert [message.get("body") for message in wire.sent[:3]] == [None, wav.header(24000) + b"ab", b"cd"]

    @pytest.mark.parametrize("events", [changing, dying])
    async def test_a_failure_after_the_first_byte_never_looks_complete(self, events: Any) -> None:
        wire = Wire()
        with pytest.raises(EngineBroke):
            await wav_answer(wire.http, events(), idle=1)
        assert wire.http.started
        assert not wire.http.complete
        assert all(message.get("more_body", True) for message in wire.sent)

    async def test_an_engine_that_pauses_longer_than_a_client_may_is_not_the_client_s_fault(self) -> None:
        wire = Wire()
        await wav_answer(wire.http, audio(b"ab", pause=0.2), idle=0.05)
        assert wire.http.complete

    async def test_a_client_that_does_not_read_is_given_up(self) -> None:
        with pytest.raises(ClientGone):
            await wav_answer(Wire(slow=10).http, audio(b"ab"), idle=0.05)

    async def test_a_client_that_does_not_read_the_last_of_it_is_given_up(self) -> None:
        wire = Wire()

        async def full_at_the_end(message: dict[str, Any]) -> None:
            if not message.get("more_body", True):
                await asyncio.Event().wait()

        http = Exchange({"type": "http", "headers": []}, wire.receive, full_at_the_end)
        async with asyncio.timeout(2):
            with pytest.raises(ClientGone):
                await wav_answer(http, audio(b"ab"), idle=0.05)

    async def test_what_moves_slowly_but_moves_may_take_its_time(self) -> None:
        wire = Wire()
        await wav_answer(wire.http, audio(*[b"ab"] * 8, pause=0.02), idle=0.1)
        assert wire.body == wav.header(24000) + b"ab" * 8


class TestFile:
    async def test_a_file_says_its_true_length(self, tmp_path: Path) -> None:
        spoken = await wav_file(audio(b"ab", b"cdef"), tmp_path / "a.wav")
        assert spoken == Spoken(tmp_path / "a.wav", 24000, 3)
        assert spoken.path.read_bytes() == wav.header(24000, 3) + b"abcdef"

    async def test_many_pieces_arrive_in_order(self, tmp_path: Path) -> None:
        pieces = [bytes([number]) * 64 * 1024 for number in range(20)]
        spoken = await wav_file(audio(*pieces), tmp_path / "a.wav")
        assert spoken.seconds == 20 * 32 * 1024 / 24000
        assert spoken.path.read_bytes()[wav.HEADER_BYTES :] == b"".join(pieces)

    async def test_no_audio_is_a_broken_engine(self, tmp_path: Path) -> None:
        with pytest.raises(EngineBroke, match="no audio"):
            await wav_file(audio(), tmp_path / "a.wav")

    async def test_audio_without_end_is_a_broken_engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wav, "MOST_FRAMES", 2)
        assert (await wav_file(audio(b"abcd"), tmp_path / "a.wav")).frames == 2
        with pytest.raises(EngineBroke, match="no end"):
            await wav_file(audio(b"abcd", b"ef"), tmp_path / "a.wav")

    async def test_a_rate_that_changes_is_a_broken_engine(self, tmp_path: Path) -> None:
        with pytest.raises(EngineBroke, match="from 24000 to 22050"):
            await wav_file(changing(), tmp_path / "a.wav")


async def test_who_leaves_while_the_encoder_is_made_ready_leaves_it_closed() -> None:
    from gateway.encoding import Encoder, Encoders
    from gateway.stream import Encoded

    opened: list[Encoder] = []

    def begin(rate: int) -> Encoder:
        encoder = Encoders(1).open("mp3", rate)
        encoder.ready = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        opened.append(encoder)
        return encoder

    async def nothing() -> AsyncIterator[Audio]:
        return
        yield

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Encoded(nothing(), begin, 24000):
            pass
    assert opened[0]._line is None
