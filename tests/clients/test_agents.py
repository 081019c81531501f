"""@openai/agents, OpenAI's SDK for JavaScript, as it is published."""

from pathlib import Path
from typing import Any

import pytest

from tests.clients.chat import STORY
from tests.clients.conftest import RATE, node

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="session")]
SCRIPT = Path(__file__).with_name("agents.mjs")


def of(told: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in told if one["kind"] == kind]


@pytest.fixture
def said(hello: bytes, tmp_path: Path) -> str:
    path = tmp_path / "hello.pcm"
    path.write_bytes(hello)
    return str(path)


async def test_a_spoken_question_gets_a_spoken_answer(gateway: str, said: str) -> None:
    told = await node(SCRIPT, gateway, "answer", said)
    assert not of(told, "error")
    assert [one["text"] for one in of(told, "heard")] == ["hello world"]
    assert [one["text"] for one in of(told, "answer")] == ["You said: hello world."]
    assert sum(one["bytes"] for one in of(told, "audio")) / 2 / RATE > 1


async def test_a_function_is_called_and_its_result_answered(gateway: str, said: str) -> None:
    told = await node(SCRIPT, gateway, "function", said)
    assert not of(told, "error")
    assert [one["city"] for one in of(told, "called")] == ["Paris"]
    assert of(told, "answer")[-1]["text"] == "The answer is rain in Paris."


async def test_speech_interrupts_the_answer(gateway: str, said: str) -> None:
    told = await node(SCRIPT, gateway, "interrupt", said, said)
    assert not of(told, "error")
    assert of(told, "interrupted")
    assert "cancelled" in [one["status"] for one in of(told, "done")] or of(told, "truncated")
    assert of(told, "answer")[-1]["text"].strip() == STORY
