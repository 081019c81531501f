"""OpenAI's SDK for Python: a conversation and a transcription, with somebody's real speech."""

import asyncio
import base64
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.clients.conftest import RATE

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="session")]


def sdk(gateway: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=gateway.replace("ws:", "http:").removesuffix("/realtime"), api_key="none")


async def say(line: Any, pcm: bytes) -> None:
    """In real time."""
    step = RATE // 25 * 2
    for at in range(0, len(pcm), step):
        await line.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + step]).decode())
        await asyncio.sleep(0.04)


async def test_a_spoken_question_gets_a_spoken_answer(gateway: str, hello: bytes) -> None:
    audio: Any = {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": {"type": "server_vad"}}}
    words, heard, sound = "", "", b""
    async with (
        sdk(gateway) as client,
        client.realtime.connect(model="gpt-realtime") as line,
        asyncio.timeout(30),
        asyncio.TaskGroup() as tasks,
    ):
        await line.session.update(session={"type": "realtime", "instructions": "Be brief.", "audio": audio})
        tasks.create_task(say(line, hello))
        async for event in line:
            assert event.type != "error", event
            if event.type == "conversation.item.input_audio_transcription.completed":
                heard = event.transcript
            elif event.type == "response.output_audio_transcript.delta":
                words += event.delta
            elif event.type == "response.output_audio.delta":
                sound += base64.b64decode(event.delta)
            elif event.type == "response.done":
                break
    assert (heard, words) == ("hello world", "You said: hello world.")
    assert len(sound) / 2 / RATE > 1
    assert event.response.usage is not None and event.response.usage.total_tokens


async def test_what_is_said_is_transcribed(gateway: str, hello: bytes) -> None:
    audio: Any = {"input": {"transcription": {"model": "gpt-4o-transcribe"}, "turn_detection": {"type": "server_vad"}}}
    async with (
        sdk(gateway) as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as line,
        asyncio.timeout(30),
        asyncio.TaskGroup() as tasks,
    ):
        await line.session.update(session={"type": "transcription", "audio": audio})
        tasks.create_task(say(line, hello))
        kinds = []
        async for event in line:
            assert event.type != "error", event
            kinds.append(event.type)
            if event.type == "conversation.item.input_audio_transcription.completed":
                break
    assert event.transcript.lower().strip(" .") == "hello world"
    assert "input_audio_buffer.speech_started" in kinds
    assert "conversation.item.input_audio_transcription.delta" in kinds
