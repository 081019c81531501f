"""What OpenAI's clients read: events of speech, models, pages of lists."""

import json
from typing import Any

import pytest

from gateway.wire import openai_audio as wire


def event(data: bytes) -> tuple[str, dict[str, Any]]:
    kind, body, *rest = data.decode().split("\n")
    assert rest == ["", ""]
    return kind.removeprefix("event: "), json.loads(body.removeprefix("data: "))


def test_a_piece_of_audio_is_an_event() -> None:
    assert event(wire.delta(b"\x00\xff\n")) == ("speech.audio.delta", {"type": "speech.audio.delta", "audio": "AP8K"})


@pytest.mark.parametrize(("seconds", "tokens"), [(0.05, 1), (0.051, 2), (1.0, 20), (0.1 + 0.2, 6), (2.4, 48)])
def test_a_token_of_speech_is_begun_each_50_ms(seconds: float, tokens: int) -> None:
    kind, data = event(wire.done(7, seconds))
    assert kind == data["type"] == "speech.audio.done"
    assert data["usage"] == {"input_tokens": 7, "output_tokens": tokens, "total_tokens": 7 + tokens}


def test_a_page_names_its_ends() -> None:
    page = wire.listed([{"id": "a"}, {"id": "b"}], more=True)
    assert page == {
        "object": "list",
        "data": [{"id": "a"}, {"id": "b"}],
        "first_id": "a",
        "last_id": "b",
        "has_more": True,
    }
    assert wire.listed([]) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
