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
