"""The cascade's voice: sentences as they come, spoken in order, the next one synthesised while the last still arrives.

Rule 1: one sentence ahead at most, and none before the last one's first audio: nothing competes with what is heard
first.
Rule 2: a sentence that fails fails in its place: what comes before it is heard.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from gateway.errors import EngineBroke, GatewayError
from gateway.events import Audio
from gateway.sentences import Sentences
from gateway.tasks import task_group
from gateway.verbs import Preset, Reference, Speak, Verb

_AHEAD = 2
"""Sentences at the engine at a time."""
_PIECES = 64
"""Of a sentence ahead, unread; then its engine waits."""


class Script:
    """The text of one reply as it comes, the sentences of it as they are whole. Bounded by its writer, who bounds the
    reply."""

    def __init__(self) -> None:
        self._text = Sentences()
        self._sentences: deque[str] = deque()
        self._ended = False
        self._changed = asyncio.Event()

    def feed(self, text: str) -> None:
        self._sentences += self._text.feed(text)
        self._changed.set()

    def end(self) -> None:
        self._sentences += self._text.end()
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> "Script":
        return self

    async def __anext__(self) -> str:
        while not self._sentences:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._sentences.popleft()


async def perform(
    script: Script,
    speak: Verb[Speak, Audio],
    voice: Preset | Reference,
    language: str,
    out: Callable[[Audio], Awaitable[None]],
) -> None:
    """Gives all of the script's audio to `out`, in order. Raises what synthesis raises."""
    room = asyncio.Semaphore(_AHEAD)
    order: asyncio.Queue[_Sentence | None] = asyncio.Queue(_AHEAD + 1)

    async def begin() -> None:
        async for text in script:
            await room.acquire()
            sentence = _Sentence()
            tasks.create_task(sentence.synthesise(speak, Speak(text, voice, language)))
            await order.put(sentence)
            await sentence.begun.wait()
        await order.put(None)

    async with task_group() as tasks:
        tasks.create_task(begin())
        while (sentence := await order.get()) is not None:
            async for audio in sentence:
                await out(audio)
            room.release()


class _Sentence:
    """The audio of one sentence: synthesised in a task of its own, read in its turn."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[Audio | None] = asyncio.Queue(_PIECES)
        self._error: GatewayError | None = None
        self.begun = asyncio.Event()
        """Set once its first audio is there, or none will come."""

    async def synthesise(self, speak: Verb[Speak, Audio], job: Speak) -> None:
        try:
            async with speak.session(job) as events:
                async for audio in events:
                    await self._pieces.put(audio)
                    self.begun.set()
            if not self.begun.is_set():
                self._error = EngineBroke("the engine gave no audio for a sentence")
        except GatewayError as exc:
            self._error = exc
        self.begun.set()
        await self._pieces.put(None)

    def __aiter__(self) -> AsyncIterator[Audio]:
        return self

    async def __anext__(self) -> Audio:
        audio = await self._pieces.get()
        if audio is not None:
            return audio
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration
