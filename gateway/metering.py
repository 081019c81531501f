"""Audio is counted where it passes: in the session of a verb, so that no surface can forget it.

Rule 1: `speak` costs what was synthesised; `transcribe` a recording as a whole, or live audio as it comes; `converse`
what is said and what is replied. What the cascade asks of other verbs is part of the conversation and costs nothing.
Rule 2: who has no key costs nothing, and nothing stands in the way of the audio then.
Rule 3: what can be resumed belongs to a tenant: a token is good only for whom it was given.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from gateway.caller import Caller, Right
from gateway.events import Audio, Conversed, Opus, ReplyAudio, Resumable, Transcript
from gateway.verbs import Converse, Direct, Live, Recording, Said, Speak, Transcribe
from gateway.wire import opus

J = TypeVar("J")
E = TypeVar("E")
T = TypeVar("T")
Seal = Callable[[str, str], str]
"""(tenant, token) → what proves that this token is this tenant's."""


class Meter(Protocol[J, E]):
    """Of one verb."""

    @property
    def right(self) -> Right: ...

    def asked(self, job: J, caller: Caller) -> J:
        """The job as the engine is to get it. Raises QuotaUsed where it is known to be too long."""
        ...

    def begun(self, job: J, events: AsyncIterator[E], caller: Caller) -> AsyncIterator[E]:
        """The engine has accepted it: its events, as they are to be passed on."""
        ...


class SpeakMeter:
    right = Right.SPEAK

    def asked(self, job: Speak, caller: Caller) -> Speak:
        return job

    def begun(self, job: Speak, events: AsyncIterator[Audio], caller: Caller) -> AsyncIterator[Audio]:
        return _Passing(events, caller, partial(_count, caller, self.right))


class TranscribeMeter:
    right = Right.TRANSCRIBE

    def asked(self, job: Transcribe, caller: Caller) -> Transcribe:
        audio = job.audio
        if isinstance(audio, Recording):
            caller.afford(audio.seconds)
            return job
        pieces = _Passing(audio.pieces, caller, partial(_count, caller, self.right))
        return replace(job, audio=Live(pieces, audio.sample_rate))

    def begun(self, job: Transcribe, events: AsyncIterator[Transcript], caller: Caller) -> AsyncIterator[Transcript]:
        if isinstance(job.audio, Recording):
            caller.charge(self.right, job.audio.seconds)
        return events


class ConverseMeter:
    right = Right.CONVERSE

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    def asked(self, job: Converse, caller: Caller) -> Converse:
        kind = _DirectSaid if isinstance(job.said, Direct) else _Passing
        said = kind(job.said, caller, partial(_count, caller, self.right))
        return replace(job, said=said, resume=self._opened(job.resume, caller.tenant))

    def begun(self, job: Converse, events: AsyncIterator[Conversed], caller: Caller) -> AsyncIterator[Conversed]:
        def passed(event: Conversed) -> Conversed:
            if isinstance(event, Resumable):
                return Resumable(f"{event.token}.{self._seal(caller.tenant, event.token)}", event.resumed)
            if isinstance(event, ReplyAudio):
                _count(caller, self.right, event.audio)
            return event

        return _Passing(events, caller, passed)

    # Private

    def _opened(self, resume: str, tenant: str) -> str:
        """Empty where it is not this tenant's: the conversation begins anew then."""
        token, _, seal = resume.rpartition(".")
        good = hmac.compare_digest(seal.encode(errors="replace"), self._seal(tenant, token).encode())
        return token if good else ""


# Private


def _count(caller: Caller, right: Right, item: T) -> T:
    if isinstance(item, Audio):
        caller.charge(right, len(item.pcm) / 2 / item.sample_rate)
    elif isinstance(item, Opus):
        caller.charge(right, opus.seconds(item.page))
    return item


class _Passing(Generic[T]):
    """Items on their way, each looked at before it is passed on."""

    def __init__(self, items: AsyncIterator[T], caller: Caller, passed: Callable[[T], T]) -> None:
        self._items, self._next = items, items.__anext__
        self._caller, self._passed = caller, passed

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item = self._passed(await self._next())
        if self._caller.over:
            await asyncio.sleep(0)  # it is being ended: what it does goes no further than here
        return item


class _DirectSaid(_Passing[Said]):
    """With the short way for Opus, both ways; what does not go there comes as an item, and is counted then."""

    def direct(self, hear: Callable[[Opus], bool]) -> None:
        def heard(page: Opus) -> bool:
            taken = hear(page)
            if taken:
                self._passed(page)
            return taken

        self._inner.direct(heard)

    def reply(self, audio: ReplyAudio) -> bool:
        taken = self._inner.reply(audio)
        if taken and isinstance(audio.audio, Opus):
            self._passed(audio.audio)
        return taken

    @property
    def _inner(self) -> Direct:
        assert isinstance(self._items, Direct)
        return self._items
