import asyncio
import io

import pytest

from engines.workers import messages
from engines.workers.messages import Answer, Cancel, Failed, Hello, Message, Piece, Work

EACH: tuple[Message, ...] = (
    Hello("model", "cpu", {"languages": ["en", "zh"]}),
    Failed("no such file"),
    Work(3, "transcribe", {"path": "/proc/1/fd/9", "hotwords": ["你好", "line\nbreak"]}, b"\x00\n{}"),
    Cancel(3),
    Piece(3, {"sample_rate": 24_000}, bytes(range(256)) * 100),
    Answer(3, 200, "two\nlines", {"text": "你好"}),
)


@pytest.mark.parametrize("message", EACH, ids=lambda message: type(message).__name__)
async def test_every_message_survives_the_pipe(message: Message) -> None:
    raw = messages.encode(message)
    assert messages.receive(io.BytesIO(raw)) == message
    stream = asyncio.StreamReader()
    stream.feed_data(raw * 2)
    assert [await messages.read(stream), await messages.read(stream)] == [message, message]


@pytest.mark.parametrize("size", [10, 63, 64, 65, 128, 1000])
async def test_a_line_may_be_longer_than_what_the_reader_holds(size: int) -> None:
    message = Answer(3, 200, "", {"text": "x" * size})
    stream = asyncio.StreamReader(limit=64)
    stream.feed_data(messages.encode(message) * 2)
    assert [await messages.read(stream), await messages.read(stream)] == [message, message]


async def test_a_line_without_end_is_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "LONGEST", 1000)
    stream = asyncio.StreamReader(limit=64)
    stream.feed_data(b"x" * 2000)
    with pytest.raises(ValueError, match="too long"):
        await messages.read(stream)
    with pytest.raises(ValueError, match="too long"):
        messages.encode(Answer(3, 200, "x" * 1000))


LINES = [
    b"\n", b"[]\n", b"{}\n", b'{"kind": "Nope", "size": 0}\n', b'{"kind": "Cancel", "size": 0}\n', b"\xff\n", b"3\n",
    b'{"kind": "Cancel", "number": 1, "size": -1}\n', b'{"kind": "Cancel", "number": 1, "size": 99999999999}\n',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
async def test_anything_else_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        messages.receive(io.BytesIO(line))
    stream = asyncio.StreamReader()
    stream.feed_data(line)
    with pytest.raises(ValueError):
        await messages.read(stream)


@pytest.mark.parametrize("cut", [0, 5, -1])
async def test_an_end_in_the_middle_is_an_end(cut: int) -> None:
    raw = messages.encode(Piece(1, {}, b"abc"))[: cut or None][:cut]
    with pytest.raises(EOFError):
        messages.receive(io.BytesIO(raw))
    stream = asyncio.StreamReader()
    stream.feed_data(raw)
    stream.feed_eof()
    with pytest.raises(EOFError):
        await messages.read(stream)


def test_what_was_said_is_not_in_a_messages_repr() -> None:
    said = (
        Answer(1, 200, "secret", {"text": "secret"}),
        Work(1, "speak", {"text": "secret"}, b"secret"),
        Piece(1, {"a": "secret"}, b"secret"),
    )
    assert "secret" not in repr(said)
