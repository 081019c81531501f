"""The utterances of one stream at the recogniser: in order, no more than there is place for, none without an outcome.

Rule 1: each is heard while it is said, by engines that can; else, or where that breaks, as a recording, one at a time.
Rule 2: while one is still being finished the next is heard already, and no third.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from gateway.errors import EngineBusy, GatewayError
from gateway.events import Transcript
from gateway.recogniser import Recogniser
from gateway.segments import RATE, Segment
from gateway.tasks import task_group
from gateway.verbs import Live, Transcribe

log = structlog.get_logger(__name__)

LEFT_OUT = "left_out"
"""Code of an utterance that was given up for later ones."""


class Bell:
    """Wakes everybody who waits for it now."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event.clear()

    async def wait(self) -> None:
        await self._event.wait()


@dataclass(eq=False, slots=True)
class Utterance:
    number: int
    segment: Segment
    live: bool
    """Whether it is heard while it is said; else once it is whole."""
    taken: bool = False
    """Whether the recogniser has all of it, or wants no more."""
    deadline: asyncio.Timeout | None = None
    """Of its live session."""
    task: asyncio.Task[None] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def behind(self) -> float:
        """Seconds of it that the recogniser could have taken."""
        if self.taken or (not self.live and not self.segment.ended):
            return 0.0
        return self.segment.unread if self.live else self.segment.seconds

    def rest(self) -> None:
        """Nothing comes of it for a while: its live session is left, and it is recognised as a recording."""
        if self.deadline is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time())


Outcome = Transcript | GatewayError
Ask = Callable[[Live], Transcribe]
"""What is wanted of an utterance."""


class Recognition:
    """One stream's."""

    def __init__(
        self,
        recogniser: Recogniser,
        ask: Ask,
        changed: Bell,
        *,
        silent: bool,
        heard: Callable[[Utterance, str], None],
        found: Callable[[Utterance, Outcome], None],
    ) -> None:
        """silent: whether utterances may be silence, for which no engine is asked; heard: told what it seems to be so
        far; found: told once for each utterance, after its segment has ended; changed: rung whenever something did."""
        self._recogniser, self._ask, self._changed = recogniser, ask, changed
        self._silent, self._heard, self._found = silent, heard, found
        self.unfinished: list[Utterance] = []
        """In order; those without a task wait for a place."""
        self._last = False

    @property
    def behind(self) -> float:
        """Seconds that the recogniser could have taken and has not."""
        return sum(one.behind for one in self.unfinished)

    def add(self, number: int, segment: Segment) -> Utterance:
        utterance = Utterance(number, segment, self._recogniser.hears_live)
        self.unfinished.append(utterance)
        self._changed.ring()
        return utterance

    def end(self) -> None:
        """Nothing more is added."""
        self._last = True
        self._changed.ring()

    def leave(self) -> None:
        """Nobody is told any more. Whoever was has this one: else both would wait for the garbage collector."""
        self._heard = self._found = _nobody

    def drop(self, utterance: Utterance) -> None:
        """Nothing more is told of it, and its recogniser is left."""
        utterance.segment.close()
        if utterance.task is not None:
            utterance.task.cancel()
        elif utterance in self.unfinished:
            self._finish(utterance)

    def keep(self, seconds: float) -> None:
        """Of what waits for the recogniser the latest; the rest is given up."""
        waiting = [one for one in self.unfinished if one.task is None]
        while len(waiting) > 1 and sum(one.segment.seconds for one in waiting) > seconds:
            given_up = waiting.pop(0)
            self._finish(given_up)
            self._found(given_up, EngineBusy("recognition is slower than speech", code=LEFT_OUT))

    async def work(self) -> None:
        """Until the last one has its outcome."""
        before: Utterance | None = None
        async with task_group() as tasks:
            while (utterance := await self._next()) is not None:
                utterance.task = tasks.create_task(self._recognise(utterance, before))
                utterance.task.add_done_callback(partial(self._done, utterance))
                before = utterance

    # Private

    async def _next(self) -> Utterance | None:
        """The next for which there is a place. None where no more will come."""
        while True:
            running = sum(one.task is not None for one in self.unfinished)
            if running < self._recogniser.at_once:
                if running < len(self.unfinished):
                    return self.unfinished[running]
                if self._last:
                    return None
            await self._changed.wait()

    async def _recognise(self, utterance: Utterance, before: Utterance | None) -> None:
        outcome: Outcome
        try:
            outcome = _placed(await self._transcript(utterance, before), utterance)
        except GatewayError as exc:
            outcome = exc
        except Exception:
            log.exception("recognition failed")
            outcome = GatewayError()
        self._take(utterance)
        await utterance.segment.whole()  # it may have failed in the middle
        self._found(utterance, outcome)

    async def _transcript(self, utterance: Utterance, before: Utterance | None) -> Transcript:
        segment, job = utterance.segment, self._ask(Live(utterance.segment, RATE))
        if self._silent:
            utterance.live = False
            if not await segment.heard():
                return Transcript("", "")
            utterance.live = self._recogniser.hears_live
        found = await self._live(utterance, job)
        utterance.live = False
        self._changed.ring()
        if found is None:
            if before is not None:
                await before.over.wait()
            await segment.whole()
            self._take(utterance)
            found = await self._recogniser.whole(segment, job)
        return found

    async def _live(self, utterance: Utterance, job: Transcribe) -> Transcript | None:
        """None where it has to be recognised as a recording."""
        try:
            async with asyncio.timeout(None) as utterance.deadline:
                return await self._recogniser.live(utterance.segment, job, partial(self._heard, utterance))
        except TimeoutError:
            return None
        finally:
            utterance.deadline = None

    def _take(self, utterance: Utterance) -> None:
        utterance.taken = True
        self._changed.ring()

    def _done(self, utterance: Utterance, _: asyncio.Task[None]) -> None:
        self._finish(utterance)

    def _finish(self, utterance: Utterance) -> None:
        utterance.over.set()
        self.unfinished.remove(utterance)
        self._changed.ring()


def _placed(found: Transcript, utterance: Utterance) -> Transcript:
    """With its number, and with times even where the engine knows none."""
    segment = utterance.segment
    start = segment.start / RATE if found.start is None else found.start
    end = segment.end / RATE if found.end is None else found.end
    return replace(found, utterance=utterance.number, start=start, end=end)


def _nobody(_: Utterance, __: object) -> None:
    """Is told what nobody wants to hear."""
