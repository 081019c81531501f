"""The published models on a GPU, as the server runs them: what only they can show. `make test-gpu`.

They are looked for in MODELS_DIR and never fetched here: `python -m engines.provision s2s` does that.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect

from engines import settings
from engines.s2s.backends import Samples
from engines.workers import devices
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus, turns
from tests.engines.asr.sound import say
from tests.engines.s2s.backends.talking import Client, ready, serving, spoken

pytestmark = pytest.mark.gpu

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server with the published models, ready."""
    chosen = settings.load()
    if not devices.gpus():
        pytest.skip("nvidia-smi lists no GPU")
    for name in (chosen.s2s_model_id, chosen.s2s_vocoder_model_id):
        if not (Path(name).is_dir() or (chosen.models_dir / name).is_dir()):
            pytest.skip(f"{name} is not in {chosen.models_dir.absolute()}")
    models = {"MODELS_DIR": os.environ.get("MODELS_DIR") or str(chosen.models_dir.absolute())}
    with serving(tmp_path_factory.mktemp("s2s"), **models) as port:
        assert "cuda" in ready(port, 900)["device"]
        yield port


def asked(text: str) -> list[wire.Message]:
    return spoken(np.frombuffer(say(text), "<i2").astype(np.float32) / np.float32(32768))


async def test_a_question_is_answered_in_words_and_in_sound(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}{wire.PATH}", proxy=None) as connection:
        client = Client(connection)
        await client.say(wire.metadata({"language": "en"}))
        done = await client.turn(*asked("What is the capital of France?"))
        assert done.status == "completed"
        assert "Paris" in client.text
        assert "�" not in client.text and "<|" not in client.text
        assert 0.5 < len(client.sound) / 2 / opus.RATE < 60
        assert done.timings["first_audio"] < 3.0
        await client.say(wire.Control(wire.Action.START))
        assert (await client.turn(*asked("Which language do people speak there?"))).status == "completed"
        assert "French" in client.text, "it knows what was said before"


async def test_it_stops_within_a_step(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}{wire.PATH}", proxy=None) as connection:
        client = Client(connection)
        for message in asked("Please tell me a very long story about a dragon."):
            await client.say(message)
        await client.until(lambda: len(client.sound) > opus.RATE)
        started = time.monotonic()
        assert (await client.turn(wire.Control(wire.Action.START))).status == "cancelled"
        await client.say(wire.metadata({"speech": False}))
        assert (await client.turn(*asked("What is two plus two?"))).status == "completed"
        assert time.monotonic() - started < 10
        assert client.text.strip() and not client.sound


async def test_it_calls_a_tool_and_answers_with_what_that_says(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}{wire.PATH}", proxy=None) as connection:
        client = Client(connection)
        await client.say(wire.metadata({"tools": [_TOOL], "language": "en"}))
        assert (await client.turn(*asked("What is the weather in London today?"))).status == "completed"
        call = next(event for event in client.events if isinstance(event, turns.ToolCall))
        assert call.name == "get_weather" and "london" in call.arguments.lower()
        result = {"tool_results": [{"id": call.id, "output": "Heavy rain, 12 degrees"}]}
        assert (await client.turn(wire.metadata(result))).status == "completed"
        assert "rain" in client.text.lower()


async def test_the_voices_differ(port: int) -> None:
    heights: list[float] = []
    for voice in ("中文女", "中文男"):
        async with connect(f"ws://127.0.0.1:{port}{wire.PATH}", proxy=None) as connection:
            client = Client(connection)
            await client.say(wire.metadata({"voice": voice}))
            assert (await client.turn(wire.Text("Please count from one to ten."))).status == "completed"
            heights.append(pitch(np.frombuffer(client.sound, "<i2").astype(np.float32)))
    woman, man = heights
    assert woman > 1.2 * man


def pitch(sound: Samples) -> float:
    """Hz: the median over the loud stretches, by autocorrelation."""
    size = opus.RATE // 20
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    loud = frames[np.abs(frames).mean(axis=1) > np.abs(frames).mean()]
    lags = np.arange(opus.RATE // 400, opus.RATE // 60)
    found = [lags[np.argmax([frame[lag:] @ frame[: size - lag] for lag in lags])] for frame in loud - loud.mean()]
    return float(opus.RATE / np.median(found))
