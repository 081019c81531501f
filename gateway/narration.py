"""Text, whole or still arriving, spoken sentence by sentence: in order, the next one synthesised while the last still
arrives, and each with the time at which it really begins and ends.

Rule 1: one sentence ahead at most, and none before the last one's first audio: nothing competes with what is heard
first.
Rule 2: a sentence that fails fails in its place: what comes before it is heard.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from gateway.errors import EngineBroke, GatewayError
from gateway.events import Audio
from gateway.sentences import Sentences
from gateway.tasks import task_group
from gateway.verbs import Speak, Verb

_AHEAD = 2
"""Sentences at the engine at a time."""
_PIECES = 64
"""Of a sentence ahead, unread; then its engine waits."""


@dataclass(frozen=True, slots=True)
class SentenceBegin:
    """Its first audio follows right behind."""

    index: int
    """From 1."""
    text: str = field(repr=False)
    start: float
    """Seconds of audio before it."""


@dataclass(frozen=True, slots=True)
class SentenceEnd:
    """All its audio is out."""

    index: int
    text: str = field(repr=False)
    start: float
    end: float
    """Seconds from the start of the first sentence's audio."""


Narrated = SentenceBegin | Audio | SentenceEnd


class Script:
    """A text as it comes, the sentences of it as they are whole. Bounded by its writer, who looks at `waiting`."""

    def __init__(self, text: str | None = None) -> None:
        """text: all of it, where it is known."""
        self._text = Sentences()
        self._sentences: deque[str] = deque()
        self._ended = False
        self._changed = asyncio.Event()
        if text is not None:
            self.feed(text)
            self.end()

    @property
    def waiting(self) -> int:
        """Characters that nobody has taken."""
        return self._text.held + sum(map(len, self._sentences))

    def feed(self, text: str) -> None:
        self._sentences += self._text.feed(text)
        self._changed.set()

    def flush(self) -> None:
        """What is there is a sentence, though nothing says so."""
        self._sentences += self._text.end()
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self.flush()

    def __aiter__(self) -> "Script":
        return self

    async def __anext__(self) -> str:
        while not self._sentences:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._sentences.popleft()


@asynccontextmanager
async def narrate(
    script: AsyncIterator[str], speak: Verb[Speak, Audio], wish: Speak
) -> AsyncIterator[AsyncIterator[Narrated]]:
    """The script's audio, and around each sentence's where it begins and ends. Leaving early cancels what is under way.

    script: sentences; wish: how they are spoken, whatever its text. The iterator raises what synthesis raises.
    """
    narration = _Narration(script, speak, wish)
    async with task_group() as tasks:
        writing = tasks.create_task(narration.write(tasks))
        async with aclosing(narration.read()) as events:
            yield events
        writing.cancel()
        narration.drop()


# Private


class _Narration:
    def __init__(self, script: AsyncIterator[str], speak: Verb[Speak, Audio], wish: Speak) -> None:
        self._script, self._speak, self._wish = script, speak, wish
        self._room = asyncio.Semaphore(_AHEAD)
        self._order: asyncio.Queue[_Sentence | None] = asyncio.Queue(_AHEAD + 1)
        self._under_way: set[asyncio.Task[None]] = set()

    async def write(self, tasks: asyncio.TaskGroup) -> None:
        """Brings the sentences to the engine, as there is room."""
        async for text in self._script:
            await self._room.acquire()
            sentence = _Sentence(text)
            task = tasks.create_task(sentence.synthesise(self._speak, replace(self._wish, text=text)))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            await self._order.put(sentence)
            await sentence.begun.wait()
        await self._order.put(None)

    async def read(self) -> AsyncGenerator[Narrated]:
        index, start, end = 0, 0.0, 0.0
        while (sentence := await self._order.get()) is not None:
            index += 1
            async for audio in sentence:
                if start == end:
                    yield SentenceBegin(index, sentence.text, start)
                end += len(audio.pcm) / 2 / audio.sample_rate
                yield audio
            self._room.release()
            yield SentenceEnd(index, sentence.text, start, end)
            start = end

    def drop(self) -> None:
        for task in self._under_way:
            task.cancel()


class _Sentence:
    """The audio of one sentence: synthesised in a task of its own, read in its turn."""

    def __init__(self, text: str) -> None:
        self.text = text
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
