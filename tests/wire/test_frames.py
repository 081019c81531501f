"""The short way's frames are those of the websockets library, and it is known where they begin."""

import random

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from gateway.wire import frames

OPENING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def parsed(data: bytes, mask: bool) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    found = Frame.parse(reader.read_exact, mask=mask)
    while True:
        try:
            next(found)
        except StopIteration as done:
            frame: Frame = done.value
            return frame


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1, 2, 125, 126, 300, frames.SHORT])
def test_a_message_is_written_and_read_as_the_library_does(size: int, masked: bool) -> None:
    message = random.Random(size).randbytes(size)
    found = parsed(frames.frame(message, masked=masked), masked)
    assert (found.opcode, found.fin, bytes(found.data)) == (Opcode.BINARY, True, message)
    written = Frame(Opcode.BINARY, message).serialize(mask=masked)
    assert frames.message(written, masked=masked) == message
    assert frames.message(written, masked=not masked) is None


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Opcode.TEXT, b"words"),
        Frame(Opcode.PING, b"ping"),
        Frame(Opcode.CLOSE, b"\x03\xe8"),
        Frame(Opcode.BINARY, b"half", fin=False),
        Frame(Opcode.CONT, b"the rest"),
        Frame(Opcode.BINARY, bytes(70_000)),
    ],
    ids=str,
)
def test_anything_else_is_for_the_library(frame: Frame) -> None:
    assert frames.message(frame.serialize(mask=True), masked=True) is None


@pytest.mark.parametrize("masked", [False, True])
def test_a_read_that_is_not_exactly_one_frame_is_for_the_library(masked: bool) -> None:
    one = Frame(Opcode.BINARY, b"some words").serialize(mask=masked)
    for data in (one + one, one[:-1], one[:1], b"", one + b"\x82"):
        assert frames.message(data, masked=masked) is None


def test_where_a_frame_begins_is_known_however_the_bytes_are_cut() -> None:
    chance = random.Random(1)
    stream, ends = OPENING, {len(OPENING)}
    for size in [0, 5, 125, 126, 300, 65_535, 65_536, 3]:
        for mask in (True, False):
            stream += Frame(Opcode.BINARY, chance.randbytes(size)).serialize(mask=mask)
            ends.add(len(stream))
    for most in (3, 20, 1000, 100_000):
        seen, at = frames.Frames(), 0
        while at < len(stream):
            step = chance.randint(1, most)
            seen.skip(stream[at : at + step])
            at = min(at + step, len(stream))
            assert seen.whole == (at in ends)
