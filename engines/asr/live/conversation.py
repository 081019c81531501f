"""Which answers the streams of a connection get, in which order.

Answers to a stream keep their order whatever takes longer: deltas of
an utterance, then the utterance whole, then deltas of the next one. While a second pass works, the stream is heard on.

`is_final`: of whole utterances, on the last one of the stream; of deltas in the mode online, on the last one of each
utterance, without text where there is no more. Where nothing said is_final and no end ack is wanted, an answer without
text says it at the end.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from engines.asr.live.events import Began, Delta, Ended, Event
from engines.asr.live.intake import Intake, TooSlow
from engines.asr.live.models import ModelFailed, Models, NoModel, NotKnown, Stream
from engines.asr.live.resampler import Resampler
from engines.asr.live.tape import Samples, Tape, at
from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_2pass import Config, Kind, Mode
from gateway.wire.funasr_frames import Audio, Change, Command, Finish, Frames, Open, Unreadable

log = logging.getLogger(__name__)

MOST_SECOND_PASSES = 8
"""Of one stream at a time; then it is heard no further until one of them is done."""
_WORTHWHILE = at(120)
"""Samples that are worth a call. With half as many a live worker on a CPU took 1.6 times the time per audio."""
_LEAST = at(60)
"""Samples; what is shorter is no utterance, and recognisers cannot take it."""
_REACH = at(3000)
"""How far back an utterance may begin when it is noticed."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """The connection ends after it."""

    code: int
    error: str = ""


Answer = str | Farewell
"""A frame, none where it is empty, or the end."""
Say = Callable[[Answer | Awaitable[Answer]], Awaitable[None]]
"""Takes an answer, or one that is still being made; whatever comes after it waits for it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    idle: float = 120.0
    """Without any frame from the client."""
    linger: float = 10.0
    """After the end of a stream, for another one."""


class Conversation:
    """All of a connection, from its first frame to its farewell."""

    def __init__(self, models: Models, intake: Intake, say: Say, tasks: asyncio.TaskGroup, patience: Patience) -> None:
        """tasks: owns what is at work for the connection."""
        self._models, self._intake, self._say, self._tasks, self._patience = models, intake, say, tasks, patience
        self._frames = Frames(only_pcm=True)
        self._commands: deque[Command] = deque()

    async def run(self) -> None:
        """Ends with a farewell; whatever is wrong is said in it."""
        try:
            await self._say(await self._streams())
        except TooSlow as exc:
            await self._say(Farewell(wire.TOO_SLOW, str(exc)))
        except NoModel as exc:
            await self._say(Farewell(wire.TOO_SLOW, f"{exc}; try again later"))
        except ModelFailed as exc:
            await self._say(Farewell(wire.ENGINE_FAILED, str(exc)))
        except (Unreadable, NotKnown) as exc:
            await self._say(Farewell(wire.UNREADABLE, str(exc)))
        except Exception as exc:
            log.exception("a stream failed")
            await self._say(Farewell(wire.ENGINE_FAILED, f"recognition failed: {type(exc).__name__}"))

    # Private

    async def _streams(self) -> Farewell:
        ended = False
        while True:
            command = await self._next(self._patience.linger if ended else self._patience.idle)
            match command:
                case Open(asked):
                    ended = await self._stream(asked)
                    if not ended:
                        break
                case Finish(ack):
                    await self._say(wire.last_words(self._frames.asked, ack=ack, final=False))
                    ended = True
                case None:
                    break
        return Farewell(wire.DONE) if ended else self._idle()

    async def _stream(self, asked: Config) -> bool:
        """Whether the client has ended it."""
        self._intake.rate = asked.rate
        async with self._models.stream(asked) as stream:
            hearing = Hearing(asked, self._models, stream, self._say, self._tasks)
            while (command := await self._next(self._patience.idle)) is not None:
                match command:
                    case Audio(pcm):
                        await hearing.audio(pcm)
                    case Change(asked):
                        hearing.asked = asked
                    case Finish(ack):
                        await hearing.finish(ack)
                        return True
        return False

    async def _next(self, seconds: float) -> Command | None:
        """None where the client says nothing for so long. Raises Unreadable and TooSlow."""
        while not self._commands:
            try:
                async with asyncio.timeout(seconds):
                    frame = await self._intake.get()
            except TimeoutError:
                return None
            read = self._frames.text(frame) if isinstance(frame, str) else self._frames.audio(frame)
            self._commands.extend(read)
        return self._commands.popleft()

    def _idle(self) -> Farewell:
        return Farewell(wire.IDLE, f"nothing has come for {self._patience.idle:g} s")


class Hearing:
    """One stream, from its config to its end."""

    def __init__(self, asked: Config, models: Models, stream: Stream, say: Say, tasks: asyncio.TaskGroup) -> None:
        self.asked = asked
        self._models, self._stream, self._say, self._tasks = models, stream, say, tasks
        self._resampler, self._tape = Resampler(asked.rate), Tape()
        self._waiting: list[Samples] = []
        self._passes = asyncio.Semaphore(MOST_SECOND_PASSES)
        self._start: int | None = None
        """Of the running utterance, in milliseconds."""
        self._so_far = ""
        """The words of the running utterance, by its deltas."""
        self._final = False
        """Whether the last answer was said to be final."""

    async def audio(self, pcm: bytes) -> None:
        """Raises ModelFailed."""
        self._waiting.append(self._resampler.add(pcm))
        if sum(map(len, self._waiting)) >= _WORTHWHILE:
            await self._feed(last=False)

    async def finish(self, ack: bool) -> None:
        """Raises ModelFailed."""
        self._waiting.append(self._resampler.finish())
        await self._feed(last=True)
        await self._say(wire.last_words(self.asked, ack=ack, final=self._final))

    # Private

    async def _feed(self, *, last: bool) -> None:
        samples, self._waiting = np.concatenate(self._waiting), []
        self._tape.add(samples)
        events = await self._stream.feed(samples, last=last)
        for event, following in zip_longest(events, events[1:]):
            await self._heard(event, following, last=last)
        self._tape.forget(self._tape.end - _REACH if self._start is None else at(self._start))

    async def _heard(self, event: Event, following: Event | None, *, last: bool) -> None:
        """following: the next event that is known already."""
        match event:
            case Began(start):
                self._start, self._so_far = start, ""
            case Delta(text):
                self._so_far += text
                if self.asked.mode is Mode.TWO_PASS:
                    await self._answer(Kind.FIRST_PASS, text, final=False)
                elif self.asked.mode is Mode.ONLINE:
                    ends = following if isinstance(following, Ended) else None
                    await self._answer(Kind.ONLINE, text, final=ends is not None, span=ends)
            case Ended():
                self._start = None
                if self.asked.mode is not Mode.ONLINE:
                    await self._utterance(event, final=last and following is None)
                elif not self._final:
                    await self._answer(Kind.ONLINE, "", final=True, span=event)

    async def _answer(self, kind: Kind, text: str, *, final: bool, span: Ended | None = None) -> None:
        self._final = final
        await self._say(self._result(kind, text, final, span))

    async def _utterance(self, span: Ended, *, final: bool) -> None:
        self._final = final
        if not self._models.second_pass:
            await self._say(self._whole(self._so_far, span, self.asked, final))
            return
        samples = self._tape.cut(at(span.start), at(span.end)).copy()
        await self._passes.acquire()
        await self._say(self._tasks.create_task(self._second_pass(samples, span, self.asked, final)))

    async def _second_pass(self, samples: Samples, span: Ended, asked: Config, final: bool) -> Answer:
        try:
            text = await self._models.recognise(samples, asked) if len(samples) >= _LEAST else ""
        except ModelFailed as exc:
            return Farewell(wire.ENGINE_FAILED, str(exc))
        finally:
            self._passes.release()
        return self._whole(text, span, asked, final)

    def _whole(self, text: str, span: Ended, asked: Config, final: bool) -> str:
        if asked.mode is Mode.OFFLINE:
            return self._result(Kind.OFFLINE, text, final, span) if text or final else ""
        return self._result(Kind.SECOND_PASS, text, final, span)  # without text it takes the deltas back

    def _result(self, kind: Kind, text: str, final: bool, span: Ended | None) -> str:
        start, end = (span.start, span.end) if span else (None, None)
        return wire.result(wire.Result(kind, text, self.asked.name, final, start, end))
