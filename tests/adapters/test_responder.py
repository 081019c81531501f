"""The built-in responder: what it makes of what is said to it."""

import random
import time
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.adapters.responder import Responder, answer
from gateway.adapters.responder_sums import in_english
from gateway.memory import Asked, Message, Role

NOW = datetime(2026, 11, 20, 9, 5, tzinfo=UTC)


def says(text: str, *before: str) -> str:
    return answer([Message(Role.USER, one) for one in (*before, text)], NOW)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("what is two plus three", "Two plus three is five."),
        ("What's 2+3?", "Two plus three is five."),
        ("what is to plus three", "Two plus three is five."),
        ("please calculate 2.5 * 4", "Two point five times four is ten."),
        ("twenty-one minus seven", "Twenty one minus seven is fourteen."),
        ("5-3", "Five minus three is two."),
        ("three minus five", "Three minus five is minus two."),
        ("minus five plus two", "Minus five plus two is minus three."),
        ("ten divided by four", "Ten divided by four is two point five."),
        ("one over three", "One divided by three is about zero point three three three three."),
        ("two plus three times four", "Two plus three times four is fourteen."),
        ("(2+3)*4", "(two plus three) times four is twenty."),
        ("one hundred and five times three", "One hundred and five times three is three hundred and fifteen."),
        ("two million plus one", "Two million plus one is two million one."),
        ("1,000 x 3", "One thousand times three is three thousand."),
        ("seven divided by zero", "Nothing can be divided by zero."),
        ("五加六等于几？", "五加六等于十一。"),
        ("请问二十一乘以三是多少", "二十一乘以三等于六十三。"),
        ("一百零五减五", "105减五等于100。"),
        ("两万加1", "20000加一等于20001。"),
        ("八除以零", "零不能做除数。"),
    ],
)
def test_it_does_sums(text: str, reply: str) -> None:
    assert says(text) == reply


@pytest.mark.parametrize(
    "text",
    ["two three", "what is two", "2**99", "9" * 16 + "+1", "1" + "+1" * 100, "__import__('os')", "((((1+1", "1+", "+"],
)
def test_it_gives_back_what_is_no_sum(text: str) -> None:
    assert says(text).startswith("You said: ")


@given(some.text(max_size=60) | some.from_regex(r"[0-9+*/() .-]{1,40}", fullmatch=True))
def test_it_always_has_an_answer(text: str) -> None:
    assert says(text)


def test_numbers_in_words_are_read_back_as_the_same_numbers() -> None:
    chance = random.Random(1)
    for number in [*range(130), *(chance.randrange(10**9) for _ in range(200))]:
        words = in_english(Fraction(number))
        assert says(f"{words} plus zero") == f"{words.capitalize()} plus zero is {words}."


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("Repeat after me: The cat sat.", "The cat sat."),
        ("please say good morning", "Good morning."),
        ("what time is it", "It is 09:05 UTC."),
        ("What's the time?", "It is 09:05 UTC."),
        ("what day is it today", "Today is Friday, November 20, 2026."),
        ("what is the date", "Today is Friday, November 20, 2026."),
        ("Hello!", "Hello. How can I help you?"),
        ("how are you today", "I am fine, thank you. How can I help you?"),
        ("thank you", "You are welcome."),
        ("soap", "You said: Soap."),
        ("stop the music", "You said: Stop the music."),
        ("跟我说：你很好", "你很好"),
        ("现在几点了？", "现在是9点5分。"),
        ("今天星期几", "今天是2026年11月20日，星期五。"),
        ("你好", "你好，我能帮你什么？"),
        ("我喜欢猫", "你说：我喜欢猫"),
    ],
)
def test_it_knows_a_few_things(text: str, reply: str) -> None:
    assert says(text) == reply


def test_it_says_what_it_can_do() -> None:
    assert "add, subtract" in says("help")
    assert "加减乘除" in says("你能做什么？")
    assert "I cannot look outside" in says("how is the weather in Berlin?")
    assert "看不到外面" in says("今天天气怎么样")


def test_it_remembers_what_was_said() -> None:
    assert says("what did I say", "my name is Ann") == "Before that you said: My name is Ann."
    assert says("我刚才说了什么", "我喜欢猫") == "你刚才说：我喜欢猫"
    assert says("what did I say") == "This is the first thing that you have said."


async def test_it_replies_sentence_by_sentence() -> None:
    asked = Asked((Message(Role.USER, "help"),))
    async with Responder(lambda: NOW).reply(asked) as pieces:
        found = [piece async for piece in pieces]
    assert found[:2] == ["I can repeat what you say. ", "I can tell the time and the date. "]
    assert "".join(str(piece) for piece in found) == says("help")


async def test_it_knows_what_time_it_is() -> None:
    async with Responder().reply(Asked((Message(Role.USER, "what time is it"),))) as pieces:
        assert [piece async for piece in pieces][0].startswith("It is ")  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["what " * 4000, "is " * 6000, "1 + " * 4000, "." * 20_000])
def test_a_long_question_keeps_nobody_else_waiting(text: str) -> None:
    """Patterns that try every pair of places would take seconds, in the event loop."""
    begun = time.process_time()
    assert len(says(text)) >= len(text) - 2
    assert time.process_time() - begun < 0.3
