"""Steps out of what upstream's generate() puts, and text out of tokens."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.s2s.backends.fun_audio_chat_streamer import Step, Streamer, Text

END_OF_SPEECH = 6562


class Tensor:
    """As much of torch's as is used."""

    def __init__(self, *numbers: int, dimensions: int) -> None:
        self._numbers, self._dimensions = numbers, dimensions

    def dim(self) -> int:
        return self._dimensions

    def flatten(self) -> Any:
        return np.array(self._numbers)


def steps(*put: Tensor) -> list[Step]:
    given: list[Step] = []
    streamer = Streamer(given.append, END_OF_SPEECH)
    streamer.put(Tensor(7, 8, 9, dimensions=2))  # the prompt
    for value in put:
        streamer.put(value)
    streamer.end()
    return given


def token(number: int) -> Tensor:
    return Tensor(number, dimensions=1)


def codes(*numbers: int) -> Tensor:
    return Tensor(*numbers, dimensions=2)


def test_the_prompt_is_no_step_and_each_token_goes_with_its_codes() -> None:
    assert steps(token(1), token(2), codes(10, 11, 12), token(3), codes(13, 14, 15)) == [
        Step(1), Step(2, (10, 11, 12)), Step(3, (13, 14, 15)),
    ]  # fmt: skip


def test_only_codes_that_can_be_heard_are_given() -> None:
    assert steps(token(1), codes(6561, 6563, 6560, 0, 6564)) == [Step(1, (6560, 0))]


def test_the_token_beside_the_end_of_speech_is_no_part_of_the_reply() -> None:
    group = codes(*[END_OF_SPEECH] * 5)
    assert steps(token(1), codes(1, 2, 3, 4, 5), token(2), group, token(3)) == [Step(1, (1, 2, 3, 4, 5)), Step(3)]


def test_without_speech_each_token_is_a_step() -> None:
    assert steps(token(1), token(2)) == [Step(1), Step(2)]


def decode(ids: list[int]) -> str:
    return bytes(ids).decode(errors="replace")


def read(data: bytes) -> list[str]:
    text = Text(decode, silent={300})
    return [text.add(byte) for byte in data]


@given(st.text())
def test_text_comes_in_whole_characters_and_complete(text: str) -> None:
    pieces = read(text.encode())
    assert "".join(pieces) == text
    assert "�" in text or not any("�" in piece for piece in pieces)


def test_lines_and_spaces_are_kept() -> None:
    assert "".join(read(b"a \n\n b\n")) == "a \n\n b\n"


@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_lose_no_text(data: bytes) -> None:
    """What is left at the end may be a part of a character."""
    assert "".join(read(data + b"x")) == (data + b"x").decode(errors="replace")


def test_marks_are_no_text() -> None:
    text = Text(decode, silent={300})
    assert [text.add(number) for number in (300, 104, 300, 105)] == ["", "h", "", "i"]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_part_of_a_character_is_not_shown(cut: int) -> None:
    assert "".join(read("ok🌞".encode()[: 2 + cut])) == "ok"
