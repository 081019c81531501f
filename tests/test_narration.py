"""A text spoken sentence by sentence, with the times that its audio really has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.errors import EngineBroke, EngineBusy, GatewayError
from gateway.events import Audio
from gateway.narration import Narrated, Script, SentenceBegin, SentenceEnd, narrate
from gateway.verbs import EngineHealth, Preset, Speak, State

RATE = 1000
WISH = Speak("", Preset("ann"), "en", 1.5, "gladly")


@dataclass
class Voice:
    """Speaks 10 ms for each character, a piece of it at a time; the sample is the sentence's number."""

    fails: str = ""
    """The sentence that fails after its first piece."""
    mute: str = ""
    gate: asyncio.Event | None = None
    """Until it is set, no sentence is spoken."""
    asked: list[Speak] = field(default_factory=list)
    open: int = 0
    most: int = 0

    @asynccontextmanager
    async def session(self, job: Speak) -> AsyncIterator[AsyncIterator[Audio]]:
        self.asked.append(job)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield self._audio(job.text, len(self.asked))
        finally:
            self.open -= 1

    async def _audio(self, text: str, number: int) -> AsyncIterator[Audio]:
        if self.gate is not None:
            await self.gate.wait()
        if text == self.mute:
            return
        for at in range(len(text)):
            await asyncio.sleep(0)
            if text == self.fails and at:
                raise EngineBroke("it died")
            yield Audio(bytes((number, 0)) * 10, RATE)

    def health(self) -> EngineHealth:
        return EngineHealth(State.READY)


async def told(script: Script, voice: Voice) -> list[Narrated]:
    async with asyncio.timeout(5), narrate(script, voice, WISH) as events:
        return [event async for event in events]


async def test_each_sentence_begins_and_ends_where_its_audio_does() -> None:
    voice = Voice()
    events = await told(Script("One two. And three! 好。"), voice)
    marks = [event for event in events if not isinstance(event, Audio)]
    assert marks == [
        SentenceBegin(1, "One two.", 0.0),
        SentenceEnd(1, "One two.", 0.0, pytest.approx(0.08)),
        SentenceBegin(2, "And three!", pytest.approx(0.08)),
        SentenceEnd(2, "And three!", pytest.approx(0.08), pytest.approx(0.18)),
        SentenceBegin(3, "好。", pytest.approx(0.18)),
        SentenceEnd(3, "好。", pytest.approx(0.18), pytest.approx(0.20)),
    ]
    inside: list[bytes] = []
    for event in events:
        if isinstance(event, SentenceBegin):
            inside = []
        elif isinstance(event, Audio):
            inside.append(event.pcm)
        else:
            assert b"".join(inside) == bytes((event.index, 0)) * 10 * len(event.text), "its own audio, and all of it"


async def test_each_is_spoken_as_it_is_wished() -> None:
    voice = Voice()
    await told(Script("One. Two."), voice)
    assert voice.asked == [Speak(text, Preset("ann"), "en", 1.5, "gladly") for text in ("One.", "Two.")]


async def test_the_first_is_heard_while_the_text_still_comes() -> None:
    script, voice = Script(), Voice()
    async with asyncio.timeout(5), narrate(script, voice, WISH) as events:
        for token in ("On", "e.", " Tw"):
            script.feed(token)
        assert [await anext(events) for _ in range(6)][-1] == SentenceEnd(1, "One.", 0.0, pytest.approx(0.04))
        script.feed("o.")
        script.end()
        assert [event async for event in events][-1] == SentenceEnd(2, "Two.", pytest.approx(0.04), pytest.approx(0.08))


async def test_a_text_that_rests_can_be_made_a_sentence() -> None:
    script, voice = Script(), Voice()
    script.feed("no end")
    assert script.waiting == 6
    script.flush()
    script.feed(" of it")
    assert (script.waiting, await anext(script), script.waiting) == (12, "no end", 6)
    script.end()
    await told(script, voice)
    assert [job.text for job in voice.asked] == ["of it"]


async def test_a_text_without_words_is_no_sentence() -> None:
    assert await told(Script("... 🙂 ?!"), Voice()) == []
    assert await told(Script(""), Voice()) == []


async def test_one_sentence_ahead_and_no_more() -> None:
    voice = Voice()
    await told(Script("One. Two. Three. Four. Five."), voice)
    assert (voice.most, len(voice.asked)) == (2, 5)


async def test_no_sentence_is_asked_for_before_the_first_one_is_heard() -> None:
    voice = Voice(gate=asyncio.Event())
    async with asyncio.timeout(5), narrate(Script("One. Two."), voice, WISH) as events:
        first = asyncio.ensure_future(anext(events))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(voice.asked) == 1
        assert voice.gate is not None
        voice.gate.set()
        assert await first == SentenceBegin(1, "One.", 0.0)


@pytest.mark.parametrize(("voice", "heard"), [(Voice(fails="Two."), 5), (Voice(mute="Two."), 4)])
async def test_a_sentence_that_fails_fails_in_its_place(voice: Voice, heard: int) -> None:
    events: list[Narrated] = []
    keep = events.append
    with pytest.raises(GatewayError):
        async with asyncio.timeout(5), narrate(Script("One. Two. Three."), voice, WISH) as running:
            async for event in running:
                keep(event)
    assert sum(isinstance(event, Audio) for event in events) == heard
    assert (events[5], voice.open) == (SentenceEnd(1, "One.", 0.0, pytest.approx(0.04)), 0)


async def test_who_leaves_early_leaves_nothing_at_the_engine() -> None:
    voice, script = Voice(), Script("One. Two. Three.")
    async with asyncio.timeout(5), narrate(script, voice, WISH) as events:
        await anext(events)
        await anext(events)
    assert voice.open == 0
    with pytest.raises(EngineBusy):
        async with asyncio.timeout(5), narrate(Script("One. Two."), voice, WISH) as events:
            await anext(events)
            raise EngineBusy("somebody else's")
    assert voice.open == 0
