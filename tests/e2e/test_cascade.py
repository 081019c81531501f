"""The cascade on the embedded engines, each a process of its own: a spoken question gets a spoken answer."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from gateway import adapters, cleanup
from gateway.adapters.http import client as http_client
from gateway.events import Audio, Phase, ReplyAudio, Transcript
from gateway.replicas import Replicas
from gateway.resample import Resampler
from gateway.settings import Settings
from gateway.supervise import free_port
from gateway.verbs import Begin, Change, Converse, Converser, End, Preset, Recording, State, Transcribe
from gateway.wire import wav
from tests.adapters.spoken import RATE, Client
from tests.engines.asr.sound import say, silence

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(name: str, folder: Path) -> Iterator[str]:
    """Its address."""
    port = free_port()
    command = [sys.executable, "-m", f"engines.{name}", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / f"{name}.log").open("wb") as output:
        engine = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        engine.terminate()
        engine.wait(10)


@asynccontextmanager
async def cascade(folder: Path) -> AsyncIterator[tuple[Converser, Replicas[Transcribe, Transcript]]]:
    with process("tts", folder) as speaks, process("asr", folder) as hears:
        settings = Settings(speak_urls=(speaks,), transcribe_urls=(hears,), transcribe_engine="funasr")
        async with http_client(settings) as http:
            speak = Replicas("tts", "", adapters.speakers(settings, http), slots=4, queue=8)
            transcribe = Replicas("asr", "", adapters.transcribers(settings, http), slots=4, queue=8)
            workspace = partial(cleanup.workspace, folder)
            (converse,) = adapters.conversers(settings, http, transcribe, speak, workspace)
            async with asyncio.timeout(60):
                while (await converse.health()).state is not State.READY:
                    await asyncio.gather(speak.refresh(), transcribe.refresh())
                    await asyncio.sleep(0.1)
            yield converse, transcribe


def spoken(client: Client, turn: int) -> bytes:
    """What a turn's reply sounds like, at RATE."""
    audio = [event.audio for event in client.events if isinstance(event, ReplyAudio) and event.turn == turn]
    pieces = [one for one in audio if isinstance(one, Audio)]
    return Resampler(pieces[0].sample_rate, RATE).feed(b"".join(one.pcm for one in pieces), last=True)


async def heard(transcribe: Replicas[Transcribe, Transcript], pcm: bytes, path: Path) -> str:
    path.write_bytes(wav.header(RATE, len(pcm) // 2) + pcm)
    async with transcribe.session(Transcribe(Recording(path, RATE, len(pcm) // 2))) as events:
        return " ".join([event.text async for event in events])


async def test_a_spoken_question_gets_a_spoken_answer_that_can_be_understood(tmp_path: Path) -> None:
    question = silence(0.3) + say("what is two plus three") + silence(0.2)
    async with cascade(tmp_path) as (converse, transcribe):
        client = Client()
        wishes = Change(persona="", voice=Preset("英文女"), language="", speech=True, tools=())
        async with converse.session(Converse(client.said(), wishes=wishes)) as events, asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(client.read(events))
            client.say(question, End())
            assert (await client.ended(1)).phase is Phase.DONE
            client.say(Begin(), silence(0.3) + say("what time is it") + silence(0.2), End())
            assert (await client.ended(2)).phase is Phase.DONE
            reading.cancel()
        assert "plus three is five" in client.text(1).lower()
        assert "five" in await heard(transcribe, spoken(client, 1), tmp_path / "reply.wav")
        assert client.text(2).startswith("It is ")
        assert len(spoken(client, 2)) > RATE
