"""Conversation made of the other verbs: endpointing → transcribe → a reply → speak.

Rule 1: what is said is recognised while it is said, what is replied is spoken while the reply is still being made.
Rule 2: a turn holds its place at the gate from its End until all of it is synthesised, not until it is heard.
Rule 3: turns of one conversation follow one another; Begin and Cancel end all of them at once.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.adapters.cascade_conversation import Conversation, Parts, Replier
from gateway.adapters.cascade_recognition import LONGEST, MOST_UNHEARD
from gateway.admission import Gate
from gateway.cutter import Ears
from gateway.endpointing import Endpointer
from gateway.events import Audio, Conversed, Transcript
from gateway.memory import Memory
from gateway.recogniser import Recogniser
from gateway.segments import RATE
from gateway.settings import Settings
from gateway.tasks import task_group
from gateway.utterances import Utterances
from gateway.verbs import Converse, Converser, EngineHealth, Speak, State, Transcribe, Verb

SLOTS = 8
"""Turns at a time, where no setting says."""
_WORST_FIRST = (State.DOWN, State.FAILED, State.LOADING)


class Cascade:
    url = "cascade"
    packed = False
    follows = True

    def __init__(
        self,
        settings: Settings,
        transcribe: Verb[Transcribe, Transcript],
        speak: Verb[Speak, Audio],
        replier: Replier,
        scratch: Path,
        ears: Callable[[Settings, int], Ears] = Endpointer,
    ) -> None:
        """scratch: where recordings lie for engines that take whole ones only."""
        self._settings, self._transcribe, self._speak, self._replier = settings, transcribe, speak, replier
        self._scratch, self._ears = scratch, ears
        self.gate = Gate("converse", settings.converse_slots or SLOTS, settings.converse_queue)
        self.memory = Memory(settings.converse_history, settings.converse_keep)

    def __repr__(self) -> str:
        return f"<cascade: {self.gate!r} {self.memory!r}>"

    @asynccontextmanager
    async def session(self, job: Converse) -> AsyncIterator[AsyncIterator[Conversed]]:
        parts = Parts(self._settings, self._hear(), self._speak, self._replier, self.gate)
        held = self.memory.open(job.resume)
        try:
            async with task_group() as tasks:
                conversation = Conversation(parts, job.wishes, held, tasks)
                working = tasks.create_task(conversation.work(job.said))
                try:
                    yield conversation.events
                finally:
                    working.cancel()
                    conversation.leave()
        finally:
            self.memory.close(held)

    async def health(self) -> EngineHealth:
        """As ready as the verbs that it is made of, and for their reasons."""
        heard, spoken = self._transcribe.health(), self._speak.health()
        for state in _WORST_FIRST:
            for name, one in (("recognition", heard), ("synthesis", spoken)):
                if one.state is state:
                    reason = f"{name}: {one.reason or one.progress or state}"
                    return EngineHealth(state, one.model, one.device, reason, one.progress)
        return EngineHealth(State.READY, f"{heard.model} + {spoken.model}")

    # Private

    def _hear(self) -> Callable[[str], Utterances]:
        """The ears of one conversation, which ask once whether the recogniser hears live."""
        recogniser = Recogniser(self._transcribe, self._scratch, at_once=1)

        def hear(language: str) -> Utterances:
            return Utterances(
                self._transcribe,
                self._settings,
                self._scratch,
                sample_rate=RATE,
                language=language,
                longest=LONGEST,
                recogniser=recogniser,
                ears=self._ears(self._settings, RATE),
                latest=MOST_UNHEARD,
            )

        return hear


_: type[Converser] = Cascade
