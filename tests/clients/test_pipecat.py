"""Pipecat's OpenAI Realtime service, as it is published: it raises for every event that it does not know."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.clients.chat import ChatApi
from tests.clients.conftest import RATE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, at import
    for name in ("services.openai.realtime.llm", "pipeline.worker", "workers.runner"):
        pytest.importorskip(f"pipecat.{name}", reason="needs pipecat, which `make test-clients` installs")

from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMRunFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

pytestmark = [
    pytest.mark.clients,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore"),  # its own
]
FRAME = RATE // 50 * 2


class Ear(FrameProcessor):  # type: ignore[misc]
    """Keeps what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)


class Bot:
    """A pipeline that runs."""

    def __init__(self, worker: PipelineWorker, context: LLMContext, ear: Ear) -> None:
        self._worker, self.context, self._ear = worker, context, ear

    async def run(self) -> None:
        await self._worker.queue_frames([LLMRunFrame()])

    async def say(self, pcm: bytes) -> None:
        """In real time."""
        for at in range(0, len(pcm), FRAME):
            piece = pcm[at : at + FRAME].ljust(FRAME, b"\0")
            await self._worker.queue_frames([InputAudioRawFrame(piece, RATE, 1)])
            await asyncio.sleep(0.02)

    async def until(self, wanted: Callable[[], Any], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not wanted():
                await asyncio.sleep(0.02)

    def said(self, role: str) -> list[str]:
        return [
            str(one["content"]).strip()
            for one in self.context.get_messages()
            if one["role"] == role and "content" in one
        ]

    @property
    def seconds(self) -> float:
        """Of sound."""
        return sum(len(one.audio) for one in self._ear.frames if isinstance(one, TTSAudioRawFrame)) / 2 / RATE

    @property
    def errors(self) -> list[str]:
        return [one.error for one in self._ear.frames if isinstance(one, ErrorFrame)]


@asynccontextmanager
async def bot(url: str, instructions: str = "Be brief.", tools: list[Any] | None = None) -> AsyncIterator[Bot]:
    turns = events.TurnDetection(silence_duration_ms=500)
    heard = events.AudioInput(transcription=events.InputAudioTranscription(), turn_detection=turns)
    wishes = events.SessionProperties(audio=events.AudioConfiguration(input=heard))
    settings = OpenAIRealtimeLLMService.Settings(system_instruction=instructions, session_properties=wishes)
    service = OpenAIRealtimeLLMService(api_key="none", base_url=url, settings=settings)
    context, up, ear = LLMContext([], tools or []), Ear(), Ear()
    user, assistant = LLMContextAggregatorPair(context)
    pipeline = Pipeline([up, user, service, ear, assistant])
    worker = PipelineWorker(pipeline, params=PipelineParams(enable_metrics=True, enable_usage_metrics=True))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(runner.run())
        found = Bot(worker, context, ear)
        yield found
        assert not found.errors
        assert not [one.error for one in up.frames if isinstance(one, ErrorFrame)]
        await runner.cancel()
        await running


async def test_it_speaks_first_and_answers_what_is_said(gateway: str, hello: bytes) -> None:
    async with bot(gateway) as client:
        await client.run()
        await client.until(lambda: client.said("assistant"))
        await client.say(hello)
        await client.until(lambda: len(client.said("assistant")) == 2)
        assert client.said("user") == ["hello world"]
        assert client.said("assistant") == ["You said: nothing.", "You said: hello world."]
        assert client.seconds > 2


async def test_a_function_is_called_and_its_result_answered(gateway: str, hello: bytes) -> None:
    async def weather(params: FunctionCallParams, city: str) -> None:
        """Tells the weather.

        Args:
            city: Where.
        """
        await params.result_callback(f"rain in {city}")

    async with bot(gateway, tools=[weather]) as client:
        await client.run()
        await client.until(lambda: client.said("assistant"))
        assert client.said("assistant") == ['The answer is "rain in Paris".']


async def test_speech_interrupts_the_answer(gateway: str, hello: bytes, chat: ChatApi) -> None:
    async with bot(gateway, "Tell a long story.") as client:
        await client.run()
        await client.until(lambda: client.seconds > 0)
        await client.say(hello)
        await client.until(lambda: len(client.said("user")) == 1)
        await client.until(lambda: client.said("assistant"))
        asked = chat.asked[-1]["messages"]
        assert asked[-1] == {"role": "user", "content": "hello world"}
