"""The server as it is started, with upstream's own network and vocoder in worker processes behind it."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect

from engines.s2s.backends import Samples
from gateway.wire import fun_audio_chat as wire
from gateway.wire import opus
from tests.engines.s2s.backends.conftest import WARNINGS, TinyThinker
from tests.engines.s2s.backends.talking import Client, ready, serving, spoken

pytest.importorskip("torch", reason="the packages of the real engines are not installed")
pytestmark = [pytest.mark.engine, *map(pytest.mark.filterwarnings, WARNINGS)]


async def test_a_conversation(
    tiny_thinker: TinyThinker,
    tiny_vocoder: Path,
    cosyvoice_source: Path,
    fun_audio_chat_source: Path,
    sound: Samples,
    tmp_path: Path,
) -> None:
    environment = {
        "MODELS_DIR": str(tmp_path),
        "S2S_MODEL_ID": str(tiny_thinker("endless")),
        "S2S_VOCODER_MODEL_ID": str(tiny_vocoder),
        "COSYVOICE_SOURCE": str(cosyvoice_source),
        "FUN_AUDIO_CHAT_SOURCE": str(fun_audio_chat_source),
        "S2S_GPUS": "cpu",
    }
    with serving(tmp_path, **environment) as port:
        told = await asyncio.to_thread(ready, port)
        assert (told["model"], told["device"]) == ("endless", "cpu")
        async with connect(f"ws://127.0.0.1:{port}{wire.PATH}", proxy=None) as connection:
            client = Client(connection)

            # The reply would go on for a minute and a half; the user has heard enough.
            for message in spoken(sound):
                await client.say(message)
            await client.until(lambda: len(client.sound) > 2 * opus.RATE)
            assert client.text.startswith("啦啦")
            started = time.monotonic()
            cut_short = await client.turn(wire.Control(wire.Action.START))
            assert (cut_short.turn, cut_short.status) == (1, "cancelled")
            assert time.monotonic() - started < 1.0

            # The model is free again, and does something else now.
            wish = wire.metadata({"speech": False, "system_prompt": "You are a pirate."})
            done = await client.turn(wish, *spoken(sound))
            assert (done.turn, done.status, client.text, client.sound) == (2, "completed", "Yes, quite.", b"")

            # And speaks again, in the other voice, to a written turn.
            await client.say(wire.metadata({"speech": True, "voice": "中文男"}))
            client.sound = b""
            await client.say(wire.Text("And?"))
            await client.until(lambda: len(client.sound) > opus.RATE)
            assert np.abs(np.frombuffer(client.sound, "<i2")).max() > 0
            assert (await client.turn(wire.Control(wire.Action.START))).status == "cancelled"
            assert client.errors == [""]
    assert "And?" not in (tmp_path / "log").read_text(), "nobody's words are logged"
    assert not list(tmp_path.glob("**/*.wav"))
