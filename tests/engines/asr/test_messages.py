import pytest

from engines.asr import messages
from engines.asr.messages import Answer, Cancel, Failed, Hello, Message, Work

EACH: tuple[Message, ...] = (
    Hello("model", "cpu", ("en", "zh")),
    Failed("no such file"),
    Work(3, "/proc/1/fd/9", "en", ("你好", "line\nbreak")),
    Cancel(3),
    Answer(3, 200, "two\nlines"),
)


@pytest.mark.parametrize("message", EACH, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_pipe_in_one_line(message: Message) -> None:
    line = messages.encode(message)
    assert line.index(b"\n") == len(line) - 1
    assert messages.decode(line) == message


@pytest.mark.parametrize("line", [b"", b"\n", b"[]", b"{}", b'{"kind": "Nope"}', b'{"kind": "Cancel"}', b"\xff", b"3"])
def test_anything_else_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        messages.decode(line)


def test_what_was_said_is_not_in_a_messages_repr() -> None:
    assert "secret" not in repr(Answer(1, 200, "secret")) + repr(Work(1, "", "en", ("secret",)))
