"""One client's conversation, whatever the engine does: every word arrives, every turn ends once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import gateway.hearing
from gateway.dialogue import MOST_TURNS, Dialogue, Ended, Out, Speech, Trouble
from gateway.endpointing import Started, Stopped
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineLoading, EngineTimeout, GatewayError, TooLarge
from gateway.events import (
    Audio,
    Conversed,
    Opus,
    Phase,
    ReplyAudio,
    ReplyText,
    Resumable,
    ToolCall,
    Transcript,
    Turn,
)
from gateway.metrics import Metrics
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.verbs import Begin, Cancel, Change, Converse, End, ToolResult, Write
from gateway.wire import opus
from tests.conftest import SHARED_AUDIO
from tests.puppet_converser import Played, Puppet, group

RATE = 24_000
FRAME = RATE // 50


def sound(seconds: float, seed: int = 1, rate: int = RATE) -> bytes:
    """PCM of which no two pieces are alike."""
    return np.random.default_rng(seed).integers(-9000, 9000, int(seconds * rate)).astype("<i2").tobytes()


def pieces(pcm: bytes, samples: int = FRAME, rate: int = RATE) -> list[Audio]:
    return [Audio(pcm[at : at + 2 * samples], rate) for at in range(0, len(pcm), 2 * samples)]


def working(turn: int) -> Turn:
    return Turn(turn, Phase.WORKING)


def done(turn: int) -> Turn:
    return Turn(turn, Phase.DONE)


def reply(turn: int, pcm: bytes = b"\1\0") -> ReplyAudio:
    return ReplyAudio(turn, Audio(pcm, RATE))


class Client:
    """A dialogue at work, and what came out of it."""

    def __init__(self, dialogue: Dialogue, replicas: Replicas[Converse, Conversed], metrics: Metrics) -> None:
        self.dialogue, self.replicas, self.metrics = dialogue, replicas, metrics
        self.told: list[Out] = []

    async def speak(self, pcm: bytes) -> None:
        for piece in pieces(pcm):
            await self.dialogue.hear(piece)

    async def read(self) -> None:
        async for event in self.dialogue.events():
            self.told.append(event)

    async def until(self, wanted: Callable[["Client"], Any], seconds: float = 3.0) -> None:
        async with asyncio.timeout(seconds):
            while not wanted(self):
                await asyncio.sleep(0.001)

    async def ends(self, count: int = 1) -> list[Ended]:
        await self.until(lambda client: len(client.ended) >= count)
        return self.ended

    @property
    def ended(self) -> list[Ended]:
        return [event for event in self.told if isinstance(event, Ended)]

    @property
    def troubles(self) -> list[Trouble]:
        return [event for event in self.told if isinstance(event, Trouble)]


@asynccontextmanager
async def talking(
    *puppets: Puppet, sessions: int = 8, reading: bool = True, settings: dict[str, Any] | None = None, **given: Any
) -> AsyncIterator[Client]:
    """A client before these engines; afterwards nothing may be left."""
    replicas, metrics = await group(*puppets, sessions=sessions), Metrics()
    dialogue = Dialogue(replicas, Settings(**settings or {}), metrics, **given)
    client = Client(dialogue, replicas, metrics)
    before = asyncio.all_tasks()
    reader = asyncio.create_task(client.read())
    if not reading:
        reader.cancel()
    async with dialogue.at_work():
        yield client
    if not reading:
        reader = asyncio.create_task(client.read())
    await asyncio.wait_for(reader, 1)
    assert asyncio.all_tasks() <= before
    assert all(played.closed for puppet in puppets for played in puppet.played)
    assert repr(replicas.gate).startswith("<s2s: 0/")
    assert b"voxgate_conversations 0.0" in metrics.exposition()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class TestWhatIsSaid:
    async def test_an_idle_connection_costs_no_engine_and_no_task(self) -> None:
        before = asyncio.all_tasks()
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.change(Change(persona="a pirate"))
            await client.dialogue.cancel()
            await settle()
            assert len(asyncio.all_tasks() - before) == 1, "the one that reads, which is the test's"
            assert not puppet.played

    @pytest.mark.parametrize("samples", [FRAME, 1, 4800, 24_000])
    async def test_a_burst_that_ends_at_once_arrives_whole(self, samples: int) -> None:
        said = sound(5.0 if samples > 1 else 0.05)
        async with talking(puppet := Puppet()) as client:
            for piece in pieces(said, samples):
                await client.dialogue.hear(piece)
            await client.dialogue.end()
            await settle()
            assert puppet.last.pcm == said
            assert puppet.last.said[-1] == End()

    async def test_every_sample_of_three_turns_arrives_in_its_turn(self) -> None:
        async with talking(puppet := Puppet()) as client:
            for turn in (1, 2, 3):
                await client.dialogue.begin()
                await client.speak(sound(1.0, turn))
                await client.dialogue.end()
                await settle()
                puppet.last.tell(done(turn))
            await client.ends(3)
            assert puppet.last.pcm == sound(1.0, 1) + sound(1.0, 2) + sound(1.0, 3)
            assert puppet.last.controls == [Begin(), End()] * 3

    async def test_recording_is_on_at_first_and_what_is_heard_while_it_is_off_is_dropped(self) -> None:
        async with talking(puppet := Puppet()) as client:
            assert client.dialogue.recording
            await client.speak(sound(0.1, 1))
            await client.dialogue.end()
            assert not client.dialogue.recording
            await client.speak(sound(0.1, 2))
            await settle()
            await client.dialogue.begin()
            await client.speak(sound(0.1, 3))
            await client.dialogue.end()
            await settle()
            assert puppet.last.pcm == sound(0.1, 1) + sound(0.1, 3)

    async def test_an_end_of_nothing_is_refused(self) -> None:
        async with talking(puppet := Puppet()) as client:
            for prepare in (settle, client.dialogue.begin):
                await prepare()
                with pytest.raises(BadRequest) as refused:
                    await client.dialogue.end()
                assert refused.value.code == "nothing_recorded"
                assert not client.dialogue.recording
            await client.dialogue.begin()
            await client.speak(sound(0.1))
            await client.dialogue.end()
            with pytest.raises(BadRequest):
                await client.dialogue.end()
            await settle()
            assert puppet.last.controls == [Begin(), End()], "two in a row are one"

    async def test_what_comes_while_the_engine_opens_waits_for_it(self) -> None:
        puppet = Puppet()
        puppet.opens.clear()
        async with talking(puppet) as client:
            await client.speak(sound(2.0))
            await client.dialogue.end()
            await settle()
            assert not puppet.played
            puppet.opens.set()
            await client.until(lambda _: puppet.played and End() in puppet.last.said)
            assert puppet.last.pcm == sound(2.0)

    async def test_an_engine_that_takes_nothing_costs_bounded_memory_and_controls_still_get_in(self) -> None:
        puppet = Puppet()
        puppet.reads = False
        async with talking(puppet) as client:
            with pytest.raises(TooLarge) as refused:
                for _ in range(100):
                    await client.speak(sound(1.0))
            assert refused.value.code == "too_far_ahead"
            await client.dialogue.end()
            await client.dialogue.begin()
            await client.speak(sound(1.0))
            assert "1.00 s" in repr(client.dialogue), "what a Begin makes worthless is forgotten"
            for _ in range(1000):
                await client.dialogue.begin()
                await client.dialogue.change(Change(persona="x"))
                await client.dialogue.cancel()
            assert "2 items" in repr(client.dialogue)
            assert [one.status for one in await client.ends()] == ["cancelled"]

    async def test_turns_that_wait_are_bounded(self) -> None:
        async with talking(puppet := Puppet()) as client:
            for turn in range(MOST_TURNS):
                await client.dialogue.write(f"{turn}")
            with pytest.raises(TooLarge) as refused:
                await client.dialogue.write("one more")
            assert refused.value.code == "too_many_turns"
            await settle()
            puppet.last.tell(done(1))
            await client.ends()
            await client.dialogue.write("one more")

    async def test_a_client_that_only_writes_and_cancels_and_reads_nothing_is_stopped(self) -> None:
        puppet = Puppet()
        puppet.reads = False
        async with talking(puppet, reading=False) as client:
            with pytest.raises(TooLarge):
                for _ in range(100_000):
                    await client.dialogue.write("x")
                    await client.dialogue.cancel()

    async def test_wishes_reach_the_engine_that_runs_and_the_one_that_comes(self) -> None:
        async with talking(puppet := Puppet(), wishes=Change(persona="", language="en", speech=True)) as client:
            await client.dialogue.change(Change(persona="a pirate"))
            await client.dialogue.write("hello")
            await settle()
            assert puppet.last.job.wishes == Change(persona="a pirate", language="en", speech=True)
            await client.dialogue.change(Change(speech=False))
            await settle()
            assert puppet.last.said[-1] == Change(speech=False)
            puppet.last.tell(EngineBroke("gone"))
            await client.ends()
            await client.dialogue.write("again")
            await settle()
            assert puppet.last.job.wishes == Change(persona="a pirate", language="en", speech=False)


class TestTurns:
    async def test_a_turn_comes_out_as_the_engine_tells_it(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.speak(sound(0.1))
            await settle()
            puppet.last.tell(Resumable("token", False), Transcript("what", "", final=False, utterance=1))
            await settle()
            await client.dialogue.end()
            await settle()
            told: list[Conversed] = [
                Turn(1, Phase.QUEUED, 2, 1.5),
                working(1),
                Transcript("what is it", "en", utterance=1),
                ReplyText(1, "It is"),
                reply(1),
                ReplyText(1, " late."),
            ]
            puppet.last.tell(*told, done(1))
            (ended,) = await client.ends()
            assert client.told[2:-1] == told
            assert (ended.turn, ended.status) == (1, "completed")
            assert set(ended.timings) == {"queued", "recognition", "first_token", "first_audio"}

    async def test_times_are_measured_from_the_end_of_the_speech(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.speak(sound(0.1))
            await client.dialogue.end()
            await settle()
            for event in (Transcript("a", "", utterance=1), ReplyText(1, "b"), reply(1), ReplyText(1, "b"), reply(1)):
                await asyncio.sleep(0.05)
                puppet.last.tell(event)
            puppet.last.tell(done(1))
            (ended,) = await client.ends()
            found = [ended.timings[name] for name in ("recognition", "first_token", "first_audio")]
            assert found == pytest.approx([0.05, 0.1, 0.15], abs=0.04)
            counted = client.metrics.exposition().decode()
            assert 'voxgate_turn_first_audio_seconds_count{adapter="puppet"} 1.0' in counted
            assert 'voxgate_turns_total{adapter="puppet",status="completed"} 1.0' in counted

    @pytest.mark.parametrize(
        ("code", "kind"), [("engine_busy", EngineBusy), ("nothing_understood", GatewayError), ("", GatewayError)]
    )
    async def test_a_turn_that_fails_says_why_and_the_next_one_goes_to_the_same_session(
        self, code: str, kind: type[GatewayError]
    ) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await client.dialogue.write("two")
            await settle()
            puppet.last.tell(Turn(1, Phase.FAILED, code=code, reason="no"), working(2), done(2))
            assert [(one.turn, one.status) for one in await client.ends(2)] == [(1, "failed"), (2, "completed")]
            (trouble,) = client.troubles
            assert (trouble.turn, str(trouble.error), isinstance(trouble.error, kind)) == (1, "no", True)
            assert trouble.error.code == (code or "engine_error")
            assert len(puppet.played) == 1

    async def test_what_comes_of_a_turn_after_its_end_or_of_none_is_dropped(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await settle()
            late = (done(1), ReplyText(1, "x"), reply(1), Transcript("x", "", utterance=1), ToolCall(1, "i", "f", "{}"))
            puppet.last.tell(done(1), *late, ReplyText(7, "x"), done(7), Transcript("x", "", utterance=7))
            await client.ends()
            await settle()
            assert [type(event) for event in client.told] == [Ended]

    async def test_what_was_heard_of_words_that_a_begin_has_dropped_is_not_told(self) -> None:
        async with talking(puppet := Puppet()) as client:
            partial = Transcript("drop this", "", final=False, utterance=1)
            await client.speak(sound(0.1))
            await settle()
            puppet.last.tell(partial)
            await client.dialogue.begin()
            await client.speak(sound(0.1))
            await asyncio.sleep(0)
            assert not client.told
            await client.dialogue.end()
            await settle()
            puppet.last.tell(done(1), replace(partial, utterance=2))
            await client.ends()
            await settle()
            assert len(client.told) == 1, "nothing is being recorded"

    async def test_a_slow_surface_makes_the_engine_wait_and_loses_nothing(self) -> None:
        async with talking(puppet := Puppet(), reading=False, settings={"converse_timeout": 0.1}) as client:
            await client.dialogue.write("one")
            await settle()
            piece = sound(1.0)
            puppet.last.tell(*(reply(1, piece) for _ in range(100)), done(1))
            await asyncio.sleep(0.25)  # twice the patience: that the client reads nothing is not the engine's fault
            assert puppet.last._told.qsize() > 70
            reader = asyncio.create_task(client.read())
            (ended,) = await client.ends()
            assert ended.status == "completed"
            assert len([event for event in client.told if isinstance(event, ReplyAudio)]) == 100
            reader.cancel()

    async def test_leaving_ends_the_turns_and_the_session_at_once(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(working(1))
            await settle()
        assert [(one.turn, one.status) for one in client.ended] == [(1, "cancelled")]
        assert puppet.last.closed and not puppet.last.ended_by_us


class TestBargeIn:
    async def test_nothing_of_the_old_reply_comes_out_any_more(self) -> None:
        async with talking(puppet := Puppet(), reading=False) as client:
            await client.speak(sound(0.1))
            await client.dialogue.end()
            await settle()
            puppet.last.tell(working(1), ReplyText(1, "long"), *(reply(1) for _ in range(50)))
            await settle()
            events = client.dialogue.events()
            assert [await anext(events) for _ in range(3)] == [working(1), ReplyText(1, "long"), reply(1)]
            await client.dialogue.begin()
            client.dialogue.silenced(0.04)
            puppet.last.tell(*(reply(1) for _ in range(50)), Turn(1, Phase.CANCELLED))
            await settle()
            ended = await anext(events)
            assert isinstance(ended, Ended)
            assert (ended.turn, ended.status, ended.timings["barge_in"]) == (1, "cancelled", 0.04)
            await client.speak(sound(0.1, 2))
            await client.dialogue.end()
            await settle()
            assert puppet.last.said[-1] == End()
            assert puppet.last.pcm == sound(0.1) + sound(0.1, 2), "whatever was said meanwhile"
            puppet.last.tell(reply(1), reply(2), done(2))
            assert await anext(events) == reply(2)

    async def test_the_engine_hears_of_it_at_once(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await settle()
            await client.dialogue.begin()
            await settle()
            assert puppet.last.said == [Write("one"), Begin()]

    async def test_a_reply_that_has_ended_at_the_engine_but_not_at_the_client_is_cancelled(self) -> None:
        async with talking(puppet := Puppet(), reading=False) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(working(1), reply(1), done(1))
            await settle()
            await client.dialogue.begin()
        assert [(event.turn, event.status) for event in client.told if isinstance(event, Ended)] == [(1, "cancelled")]
        assert not any(isinstance(event, ReplyAudio) for event in client.told)

    async def test_how_long_a_reply_was_still_heard_is_told_even_where_the_surface_has_all_of_it(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(working(1), reply(1), done(1))
            (ended,) = await client.ends()
            await client.dialogue.begin()
            client.dialogue.silenced(0.05)
            assert ended.timings["barge_in"] == 0.05
            counted = client.metrics.exposition().decode()
            assert 'voxgate_turn_barge_in_seconds_sum{adapter="puppet"} 0.05' in counted

    async def test_turns_that_wait_end_too(self) -> None:
        async with talking(puppet := Puppet()) as client:
            for text in "abc":
                await client.dialogue.write(text)
            await settle()
            puppet.last.tell(working(1))
            await settle()
            await client.dialogue.begin()
            assert [(one.turn, one.status) for one in await client.ends(3)] == [(n, "cancelled") for n in (1, 2, 3)]

    async def test_turns_that_no_engine_has_taken_are_taken_back_and_numbers_still_match(self) -> None:
        puppet = Puppet()
        puppet.opens.clear()
        async with talking(puppet) as client:
            await client.dialogue.write("one")
            await client.dialogue.write("two")
            await client.dialogue.begin()
            await client.speak(sound(0.1))
            await client.dialogue.end()
            puppet.opens.set()
            await client.until(lambda _: puppet.played and End() in puppet.last.said)
            assert puppet.last.controls == [Begin(), End()]
            puppet.last.tell(ReplyText(1, "three"), done(1))
            assert [(one.turn, one.status) for one in await client.ends(3)][-1] == (3, "completed")
            assert ReplyText(3, "three") in client.told

    async def test_cancel_ends_the_reply_and_keeps_what_is_being_recorded(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await client.speak(sound(0.1))
            await client.dialogue.cancel()
            await client.speak(sound(0.1, 2))
            await client.dialogue.end()
            await settle()
            assert [type(one) for one in puppet.last.controls] == [Write, Cancel, End]
            puppet.last.tell(Turn(1, Phase.CANCELLED), done(2))
            assert [(one.turn, one.status) for one in await client.ends(2)] == [(1, "cancelled"), (2, "completed")]


class TestBrokenSessions:
    @pytest.mark.parametrize("end", [EngineBroke("died"), ValueError("a bug"), None, asyncio.CancelledError()])
    async def test_the_turns_that_ran_fail_and_the_next_one_finds_an_engine(self, end: BaseException | None) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await client.dialogue.write("two")
            await settle()
            puppet.last.tell(Resumable("token", False), ReplyText(1, "a"), end)
            assert [(one.turn, one.status) for one in await client.ends(2)] == [(1, "failed"), (2, "failed")]
            assert [trouble.turn for trouble in client.troubles] == [1, 2]
            assert "bug" not in str(client.troubles[0].error)
            await client.dialogue.write("three")
            await settle()
            assert (len(puppet.played), puppet.last.job.resume) == (2, "token")
            puppet.played[0].tell(ReplyText(1, "from the grave"))
            puppet.last.tell(Resumable("token", True), ReplyText(1, "b"), done(1))
            assert (await client.ends(3))[-1].turn == 3
            assert ReplyText(3, "b") in client.told

    async def test_another_replica_takes_over(self) -> None:
        first, second = Puppet(), Puppet()
        async with talking(first, second) as client:
            await client.dialogue.write("one")
            await settle()
            first.fails = EngineBusy("full")
            first.last.tell(EngineBroke("died"))
            await client.ends()
            await client.dialogue.write("two")
            await settle()
            assert second.last.said == [Write("two")]

    async def test_what_was_said_of_a_turn_is_lost_loudly(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.speak(sound(0.5))
            await settle()
            puppet.last.tell(EngineBroke("died"))
            await client.until(lambda client: client.troubles)
            await client.speak(sound(0.5))
            assert len(puppet.played) == 1, "half a question is none"
            await client.dialogue.end()
            (ended,) = await client.ends()
            assert (ended.turn, ended.status) == (1, "failed")
            assert [trouble.turn for trouble in client.troubles] == [0, 1]
            await client.dialogue.begin()
            await client.speak(sound(0.5, 2))
            await client.dialogue.end()
            await settle()
            assert puppet.last.pcm == sound(0.5, 2)
            puppet.last.tell(done(1))
            assert (await client.ends(2))[-1] == Ended(2, "completed", client.ended[-1].timings)

    async def test_a_session_that_ends_while_nobody_speaks_troubles_nobody(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(done(1), None)
            await client.ends()
            await settle()
            await client.dialogue.write("two")
            await settle()
            puppet.last.tell(done(1))
            assert [(one.turn, one.status) for one in await client.ends(2)] == [(1, "completed"), (2, "completed")]
            assert not client.troubles

    async def test_an_engine_that_cannot_be_had_is_told_once_and_asked_again_by_the_next_turn(self) -> None:
        puppet = Puppet()
        puppet.fails = EngineLoading("reading 2 of 5 files")
        async with talking(puppet) as client:
            for piece in pieces(sound(1.0)):
                await client.dialogue.hear(piece)
                await settle()
            assert [trouble.turn for trouble in client.troubles] == [0]
            await client.dialogue.end()
            await client.ends()
            await client.dialogue.begin()
            puppet.fails = None
            await client.speak(sound(0.2))
            await client.dialogue.end()
            await settle()
            assert puppet.last.pcm == sound(0.2)

    async def test_too_many_conversations_are_told_so(self) -> None:
        async with talking(puppet := Puppet(), sessions=1) as client:
            await client.dialogue.write("one")
            await settle()
            other = Dialogue(client.replicas, Settings(), client.metrics)
            async with other.at_work():
                await other.write("two")
                events = other.events()
                trouble = await anext(events)
                assert isinstance(trouble, Trouble) and isinstance(trouble.error, EngineBusy)
                assert (await anext(events)) == Ended(1, "failed", {})
            assert len(puppet.played) == 1


class TestWatchdog:
    async def test_an_engine_without_a_sign_of_life_is_freed_and_the_client_told(self) -> None:
        async with talking(puppet := Puppet(), settings={"converse_timeout": 0.1}) as client:
            await client.dialogue.write("one")
            await client.dialogue.write("two")
            await settle()
            puppet.last.tell(working(1))
            assert [one.status for one in await client.ends(2)] == ["failed", "failed"]
            assert [type(trouble.error) for trouble in client.troubles] == [EngineTimeout] * 2
            await settle()
            assert puppet.last.closed
            await client.dialogue.write("three")
            await settle()
            puppet.last.tell(done(1))
            assert (await client.ends(3))[-1].status == "completed"

    async def test_one_that_says_nothing_at_all_is_too(self) -> None:
        async with talking(puppet := Puppet(), settings={"converse_timeout": 0.1}) as client:
            await client.speak(sound(0.1))
            await client.dialogue.end()
            assert [one.status for one in await client.ends()] == ["failed"]
            assert puppet.played

    async def test_one_that_never_opens_is_too(self) -> None:
        puppet = Puppet()
        puppet.opens.clear()
        async with talking(puppet, settings={"converse_timeout": 0.1}) as client:
            await client.dialogue.write("one")
            assert [one.status for one in await client.ends()] == ["failed"]

    async def test_signs_of_life_keep_a_slow_turn_alive(self) -> None:
        async with talking(puppet := Puppet(), settings={"converse_timeout": 0.15}) as client:
            await client.dialogue.write("one")
            await client.dialogue.write("two")
            await settle()
            for _ in range(8):
                puppet.last.tell(ReplyText(1, "."))
                await asyncio.sleep(0.05)
            puppet.last.tell(done(1))
            await asyncio.sleep(0.1)
            puppet.last.tell(done(2))
            assert [one.status for one in await client.ends(2)] == ["completed"] * 2

    async def test_waiting_in_a_queue_is_one(self) -> None:
        async with talking(puppet := Puppet(), settings={"converse_timeout": 0.1}) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(Turn(1, Phase.QUEUED, 1, 9))
            await asyncio.sleep(0.3)
            assert not client.ended
            puppet.last.tell(working(1))
            (ended,) = await client.ends()
            assert ended.status == "failed", "but once it is taken it must go on"
            assert ended.timings["queued"] == pytest.approx(0.3, abs=0.1)

    async def test_a_turn_has_all_its_time_however_long_nothing_was_said_before_it(self) -> None:
        async with talking(puppet := Puppet(), settings={"converse_timeout": 0.2}) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(done(1))
            await asyncio.sleep(0.15)
            await client.dialogue.write("two")
            await asyncio.sleep(0.12)
            puppet.last.tell(done(2))
            assert [one.status for one in await client.ends(2)] == ["completed"] * 2

    async def test_a_turn_at_that_moment_goes_to_a_new_session(self) -> None:
        async with talking(puppet := Puppet(), reading=False, settings={"converse_timeout": 0.1}) as client:
            await client.dialogue.write("one")
            await settle()
            async for event in client.dialogue.events():
                if isinstance(event, Ended):
                    break
            await client.dialogue.write("two")
            await client.until(lambda _: len(puppet.played) == 2 and puppet.last.said)
            puppet.played[0].tell(ReplyText(1, "too late"))
            puppet.last.tell(done(1))
            await settle()
        assert [(type(event), event.turn) for event in client.told] == [(Ended, 2)]  # type: ignore[union-attr]
        assert client.ended[0].status == "completed"

    async def test_silence_between_turns_is_none_of_its_business(self) -> None:
        async with talking(puppet := Puppet(), settings={"converse_timeout": 0.05}) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(done(1))
            await client.ends()
            await asyncio.sleep(0.2)
            assert not puppet.last.closed


class TestTools:
    async def test_the_last_result_begins_the_next_turn_once_the_old_one_has_ended(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("weather?")
            await settle()
            puppet.last.tell(ToolCall(1, "a", "f", "{}"))
            await settle()
            await client.dialogue.tool_result("a", "sunny")
            await settle()
            assert len(puppet.last.said) == 1, "another call may follow"
            puppet.last.tell(ToolCall(1, "b", "f", "{}"), done(1))
            await client.ends()
            assert len(puppet.last.said) == 1
            await client.dialogue.tool_result("b", "windy")
            await settle()
            assert puppet.last.said[1:] == [ToolResult("a", "sunny"), ToolResult("b", "windy")]
            puppet.last.tell(ReplyText(2, "Sunny and windy."), done(2))
            assert [(one.turn, one.status) for one in await client.ends(2)] == [(1, "completed"), (2, "completed")]

    async def test_results_that_were_quicker_go_out_with_the_end_of_the_turn(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("weather?")
            await settle()
            puppet.last.tell(ToolCall(1, "a", "f", "{}"))
            await settle()
            await client.dialogue.tool_result("a", "sunny")
            puppet.last.tell(done(1))
            await client.until(lambda _: len(puppet.last.said) == 2)
            puppet.last.tell(done(2))
            assert len(await client.ends(2)) == 2

    async def test_a_result_that_nobody_asked_for_is_refused(self) -> None:
        async with talking(puppet := Puppet()) as client:
            await client.dialogue.write("weather?")
            await settle()
            puppet.last.tell(ToolCall(1, "a", "f", "{}"), ToolCall(1, "b", "f", "{}"), done(1))
            await client.ends()
            await client.dialogue.tool_result("a", "sunny")
            for name in ("a", "c"):
                with pytest.raises(BadRequest) as refused:
                    await client.dialogue.tool_result(name, "sunny")
                assert refused.value.code == "unknown_tool_call"
            await client.dialogue.write("never mind")
            with pytest.raises(BadRequest):
                await client.dialogue.tool_result("b", "sunny")
            await settle()
            assert puppet.last.said == [Write("weather?"), Write("never mind")]


def stream(seconds: float = 1.0, hertz: float = 440.0) -> list[Opus]:
    """The pages of an Ogg Opus stream, headers first."""
    tone = np.sin(np.arange(int(seconds * RATE)) * 2 * np.pi * hertz / RATE)
    packer, cut = opus.Packer(), opus.Pages()
    messages = [*packer.feed((tone * 9000).astype("<i2").tobytes()), *packer.end()]
    return [Opus(page) for message in messages for page in cut.feed(message)]


class TestPages:
    async def test_they_are_packed_where_both_sides_can(self) -> None:
        for asked, able in ((True, [True]), (True, [True, False]), (False, [True]), (True, [False])):
            async with talking(*(Puppet(packed=one) for one in able), opus=asked) as client:
                assert client.dialogue.packed == (asked and all(able))

    async def test_pages_go_on_as_they_are_and_headers_alone_open_nothing(self) -> None:
        pages = stream()
        async with talking(puppet := Puppet(packed=True), opus=True) as client:
            for page in pages[:2]:
                await client.dialogue.hear(page)
            await settle()
            assert not puppet.played
            for page in pages[2:]:
                await client.dialogue.hear(page)
            await client.dialogue.end()
            await settle()
            assert puppet.last.job.opus
            assert puppet.last.said == [*pages, End()]

    async def test_a_new_session_gets_the_headers_again(self) -> None:
        pages = stream()
        async with talking(puppet := Puppet(packed=True), opus=True) as client:
            for page in pages[:10]:
                await client.dialogue.hear(page)
            await client.dialogue.end()
            await settle()
            puppet.last.tell(EngineBroke("died"))
            await client.ends()
            await client.dialogue.begin()
            for page in pages[10:]:
                await client.dialogue.hear(page)
            await client.dialogue.end()
            await settle()
            assert puppet.last.said == [*pages[:2], Begin(), *pages[10:], End()]

    async def test_a_client_may_begin_a_new_stream_and_headers_are_heard_even_while_it_is_not_recorded(self) -> None:
        one, two = stream(), stream(hertz=880)
        async with talking(puppet := Puppet(packed=True), opus=True) as client:
            for page in one:
                await client.dialogue.hear(page)
            await client.dialogue.end()
            for page in two[:4]:
                await client.dialogue.hear(page)
            await settle()
            assert puppet.last.pages == [page.page for page in (*one, *two[:2])]
            puppet.last.tell(EngineBroke("died"))
            await client.ends()
            await client.dialogue.begin()
            await settle()
            assert puppet.last.said == [*two[:2], Begin()]

    async def test_headers_of_a_reply_that_was_dropped_come_with_the_next_one(self) -> None:
        pages = stream()
        async with talking(puppet := Puppet(packed=True), reading=False, opus=True) as client:
            await client.dialogue.write("one")
            await settle()
            puppet.last.tell(ReplyAudio(1, pages[0]))
            await settle()
            await client.dialogue.begin()
            puppet.last.tell(*(ReplyAudio(1, page) for page in pages[1:5]), Turn(1, Phase.CANCELLED))
            await client.dialogue.write("two")
            await settle()
            puppet.last.tell(*(ReplyAudio(2, page) for page in pages[5:]), done(2))
            await settle()
        told = [event for event in client.told if isinstance(event, ReplyAudio)]
        assert [event.audio for event in told] == [*pages[:2], *pages[5:]]
        assert {event.turn for event in told} == {2}

    async def test_an_engine_that_knows_no_opus_gets_pcm(self) -> None:
        async with talking(puppet := Puppet(), opus=True) as client:
            for page in stream(1.0):
                await client.dialogue.hear(page)
            await client.dialogue.end()
            await settle()
            assert not puppet.last.job.opus
            assert not puppet.last.pages
            samples = np.frombuffer(puppet.last.pcm, "<i2")
            assert len(samples) / RATE == pytest.approx(1.0, abs=0.15)
            spectrum = np.abs(np.fft.rfft(samples))
            assert np.argmax(spectrum) * RATE / len(samples) == pytest.approx(440, abs=3)

    async def test_garbage_is_refused_where_it_is_unpacked(self) -> None:
        async with talking(puppet := Puppet(), opus=True) as client:
            page = stream()[5].page
            with pytest.raises(BadRequest) as refused:
                await client.dialogue.hear(Opus(page[:28] + b"\xff" * (len(page) - 28)))
            assert refused.value.code == "audio_undecodable"
            for good in stream():
                await client.dialogue.hear(good)
            await client.dialogue.end()
            await settle()
            assert puppet.last.pcm


class Ears:
    """In place of the real ones: speech is what is not silent. It knows late, as the real ones do."""

    def __init__(self, settings: Settings, sample_rate: int, **_: float | None) -> None:
        self._settings, self._rate = settings, sample_rate
        self._pcm = b""
        self._at = 0
        self._began: float | None = None
        self._voiced = self._silent = 0

    async def feed(self, pcm: bytes) -> list[Started | Stopped]:
        await asyncio.sleep(0)
        self._pcm += pcm
        found: list[Started | Stopped] = []
        size = 2 * self._rate // 100
        while len(self._pcm) >= size:
            frame, self._pcm = self._pcm[:size], self._pcm[size:]
            self._at += 1
            voiced = any(frame)
            self._voiced, self._silent = (self._voiced + 1, 0) if voiced else (0, self._silent + 1)
            now = self._at / 100
            if self._began is None and self._voiced == 10:
                self._began = now
                found.append(Started(max(0.0, now - 0.1 - self._settings.endpoint_padding)))
            elif self._began is not None and self._silent / 100 >= self._settings.endpoint_silence:
                self._began = None
                found.append(Stopped(now - self._silent / 100))
        return found


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.hearing, "Endpointer", Ears)


def quiet(seconds: float, rate: int = RATE) -> bytes:
    return bytes(2 * int(seconds * rate))


@pytest.mark.usefixtures("ears")
class TestHandsFree:
    @pytest.mark.parametrize("samples", [FRAME, 441, 7000, 5 * RATE])
    async def test_speech_makes_a_turn_and_silence_goes_nowhere(self, samples: int) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            speech = sound(1.0)
            for piece in pieces(quiet(3.0) + speech + quiet(3.0), samples):
                await client.dialogue.hear(piece)
            await settle()
            assert puppet.last.said[0] == Begin()
            assert puppet.last.said[-1] == End()
            assert puppet.last.pcm[: 2 * int(0.3 * RATE)] == quiet(0.3), "the padding, and no more"
            assert puppet.last.pcm[2 * int(0.3 * RATE) :].startswith(speech)
            assert len(puppet.last.pcm) / 2 / RATE == pytest.approx(0.3 + 1.0 + 0.6, abs=samples / RATE + 0.011)
            told = [(event.turn, event.started, event.at) for event in client.told if isinstance(event, Speech)]
            assert told == [(1, True, pytest.approx(2.7)), (1, False, pytest.approx(4.0))]

    async def test_speech_during_a_reply_interrupts_it(self) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            await client.speak(sound(0.5) + quiet(0.7))
            await settle()
            puppet.last.tell(working(1), reply(1))
            await client.until(lambda client: reply(1) in client.told)
            await client.speak(quiet(1.0) + sound(0.5, 2) + quiet(0.7))
            puppet.last.tell(reply(1), Turn(1, Phase.CANCELLED), working(2), reply(2), done(2))
            await client.ends(2)
            said = client.told[client.told.index(reply(1)) + 1 :]
            assert [type(event) for event in said] == [Speech, Ended, Speech, Turn, ReplyAudio, Ended]
            assert sound(0.5, 2) in puppet.last.pcm

    async def test_who_speaks_on_before_the_reply_begins_is_heard_from_the_start(self) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            for seed in (1, 2, 3):
                await client.speak(quiet(0.5) + sound(0.5, seed) + quiet(0.7))
                await settle()
                puppet.last.tell(working(seed))
                await settle()
            turns = puppet.last.said
            latest = turns[len(turns) - turns[::-1].index(Begin()) :]
            heard = b"".join(piece.pcm for piece in latest if isinstance(piece, Audio))
            begins = [heard.find(sound(0.5, seed)) for seed in (1, 2, 3)]
            assert begins == sorted(begins) and begins[0] >= 0
            assert len(heard) / 2 / RATE == pytest.approx(0.3 + 3 * 0.5 + 2 * 0.6 + 0.6 + 2 * 0.3, abs=0.7)
            assert [ended.status for ended in client.ended] == ["cancelled"] * 2

    async def test_what_was_answered_is_not_heard_again(self) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            await client.speak(sound(0.5, 1) + quiet(0.7))
            await settle()
            puppet.last.tell(working(1), ReplyText(1, "yes"))
            await client.until(lambda client: ReplyText(1, "yes") in client.told)
            await client.speak(sound(0.5, 2) + quiet(0.7))
            await settle()
            puppet.last.tell(Turn(1, Phase.CANCELLED), working(2), Turn(2, Phase.FAILED, code="x", reason="y"))
            await client.ends(2)
            await client.speak(sound(0.5, 3) + quiet(0.7))
            await settle()
            for seed in (1, 2, 3):
                assert puppet.last.pcm.count(sound(0.5, seed)) == 1

    async def test_times_count_from_the_end_of_speech_not_from_when_it_was_certain(self) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            await client.speak(sound(0.5) + quiet(0.7))
            await settle()
            puppet.last.tell(working(1), reply(1), done(1))
            (ended,) = await client.ends()
            assert 0.6 <= ended.timings["first_audio"] < 1.0

    async def test_ten_minutes_of_silence_cost_nothing(self) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            for piece in pieces(quiet(60.0), RATE):
                await client.dialogue.hear(piece)
            assert not puppet.played
            assert len(client.dialogue._hearing._kept) <= 3  # type: ignore[union-attr]

    async def test_it_can_be_turned_on_and_off(self) -> None:
        async with talking(puppet := Puppet()) as client:
            dialogue = client.dialogue
            await client.speak(sound(0.2, 1))
            await dialogue.end()
            await dialogue.hands_free(True)
            assert not dialogue.recording
            await client.speak(quiet(1.0) + sound(0.5, 2) + quiet(0.7) + quiet(1.0) + sound(0.2, 3))
            assert dialogue.recording
            await dialogue.hands_free(False)
            await client.speak(sound(0.2, 4))
            await dialogue.end()
            await client.speak(sound(0.2, 5))
            await settle()
            assert [type(one) for one in puppet.last.controls] == [End, Begin, End, Begin, End]
            for seed, there in ((1, True), (2, True), (3, True), (4, True), (5, False)):
                assert (sound(0.5 if seed == 2 else 0.2, seed) in puppet.last.pcm) == there
            assert [event.at for event in client.told if isinstance(event, Speech)] == pytest.approx(
                [0.9, 1.7, 3.1], abs=0.02
            )

    async def test_a_client_may_still_use_its_buttons(self) -> None:
        async with talking(puppet := Puppet(), hands_free=True) as client:
            await client.speak(quiet(0.5))
            await client.dialogue.begin()
            await client.speak(sound(0.5))
            await client.dialogue.end()
            await client.speak(quiet(2.0))
            await settle()
            assert [type(one) for one in puppet.last.controls] == [Begin, End]
            assert sound(0.5) in puppet.last.pcm

    async def test_pages_stay_pages(self) -> None:
        async with talking(puppet := Puppet(packed=True), opus=True, hands_free=True) as client:
            packer, cut = opus.Packer(), opus.Pages()
            tone = (np.sin(np.arange(RATE) * 0.1) * 9000).astype("<i2").tobytes()
            messages = packer.feed(quiet(2.0) + tone + quiet(2.0))
            for message in messages:
                for page in cut.feed(message):
                    await client.dialogue.hear(Opus(page))
            await settle()
            assert puppet.last.said[0] == Opus(opus.Pages().feed(messages[0])[0])
            unpacker = opus.Unpacker()
            heard = np.frombuffer(b"".join(map(unpacker.feed, puppet.last.pages)), "<i2")
            assert np.sqrt(np.mean(heard[len(heard) // 4 : len(heard) // 2].astype(float) ** 2)) > 1000
            assert len(heard) / RATE < 3.0


class TestHandsFreeForReal:
    async def test_a_sentence_becomes_a_turn(self) -> None:
        path = SHARED_AUDIO / "weather_question_en.wav"
        if not path.exists():
            pytest.skip("needs the shared recordings")
        rate, pcm = mono(path.read_bytes())
        async with talking(puppet := Puppet(), hands_free=True) as client:
            for piece in pieces(quiet(1.0, rate) + pcm + quiet(1.5, rate), rate // 25, rate):
                await client.dialogue.hear(piece)
            await settle()
            assert [type(event) for event in client.told][:2] == [Speech, Speech]
            assert puppet.last.said[0] == Begin()
            assert End() in puppet.last.said
            assert len(puppet.last.pcm) / 2 / rate > 1.0


def mono(wav: bytes) -> tuple[int, bytes]:
    import io
    import wave

    with wave.open(io.BytesIO(wav)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return file.getframerate(), samples[:, 0].tobytes()


DOINGS = st.sampled_from(
    ["hear", "hear", "begin", "end", "end", "write", "write", "cancel", "change", "tool", "silenced", "hands", "tick"]
)
SAYINGS = st.tuples(
    st.sampled_from(
        ["queued", "working", "text", "audio", "heard", "call", "done", "done", "cancelled", "failed", "break", "stop"]
    ),
    st.sampled_from([1, 1, 1, 1, 2, 2, 3, 0]),
)
STEPS = st.lists(st.one_of(DOINGS, SAYINGS, SAYINGS, st.just("read")), min_size=6, max_size=80)


async def do(client: Client, doing: str) -> None:
    dialogue = client.dialogue
    doings: dict[str, Callable[[], Any]] = {
        "hear": lambda: dialogue.hear(Audio(sound(0.02), RATE)),
        "begin": dialogue.begin,
        "end": dialogue.end,
        "write": lambda: dialogue.write("x"),
        "cancel": dialogue.cancel,
        "change": lambda: dialogue.change(Change(persona="x")),
        "tool": lambda: dialogue.tool_result("0", "x"),
        "hands": lambda: dialogue.hands_free(not dialogue._hands_free),
        "tick": settle,
    }
    with suppress(BadRequest, TooLarge):
        await doings[doing]()


def say(played: Played, what: str, back: int) -> None:
    """About the turn that many before the last one that the engine has taken, or the next."""
    turn = sum(isinstance(one, End | Write | ToolResult) for one in played.said) + 1 - back
    sayings: dict[str, Conversed | BaseException | None] = {
        "queued": Turn(turn, Phase.QUEUED, 1, 1),
        "working": working(turn),
        "text": ReplyText(turn, "x"),
        "audio": reply(turn),
        "heard": Transcript("x", "", final=bool(back), utterance=turn),
        "call": ToolCall(turn, "0", "f", "{}"),
        "done": done(turn),
        "cancelled": Turn(turn, Phase.CANCELLED),
        "failed": Turn(turn, Phase.FAILED, code="engine_broke", reason="x"),
        "break": EngineBroke("x"),
        "stop": None,
    }
    played.tell(sayings[what])


async def one_more_turn(client: Client, puppet: Puppet) -> None:
    """After all that, the next question is answered; at the second attempt where the engine had just broken."""
    for _ in range(2):
        await client.dialogue.begin()
        await client.dialogue.hear(Audio(sound(0.02), RATE))
        await client.dialogue.end()
        await settle()
        if client.dialogue._turns:
            break
    assert puppet.last.said[-1] == End()
    for event in ("working", "text", "done"):
        say(puppet.last, event, 1)
    await settle()
    assert not client.dialogue._turns


async def play(steps: list[Any], eager: bool) -> None:
    puppet = Puppet()
    unwanted: set[int] = set()
    told: list[Out] = []

    async def take(event: Out) -> None:
        if not isinstance(event, Ended | Trouble | Transcript | Speech | Resumable):
            number = event.number if isinstance(event, Turn) else event.turn
            assert number not in unwanted, "of a reply that was interrupted"
        told.append(event)

    async with talking(puppet, reading=False) as client:
        events = client.dialogue.events()
        for step in steps:
            if isinstance(step, tuple):
                if puppet.played:
                    say(puppet.last, *step)
            elif step == "read":
                while client.dialogue._out._events:
                    await take(await anext(events))
            elif step == "silenced":
                client.dialogue.silenced(0.01)
            else:
                await do(client, step)
                if step in ("begin", "cancel"):
                    unwanted |= set(range(client.dialogue._number + 1))
            if eager:
                await settle()
            assert client.dialogue._session or not client.dialogue._turns, "no turn without an engine"
        await do(client, "begin")
        unwanted |= set(range(client.dialogue._number + 1))
        assert not client.dialogue._turns
        await one_more_turn(client, puppet)
        begun = client.dialogue._number
    for event in client.told:
        await take(event)
    assert told[-2:] == [ReplyText(begun, "x"), Ended(begun, "completed", told[-1].timings)]  # type: ignore[union-attr]
    assert not any(isinstance(event, Trouble) and event.error.code == "internal" for event in told)
    ends = [event.turn for event in told if isinstance(event, Ended)]
    assert sorted(ends) == list(range(1, begun + 1)), "each turn ends exactly once"
    ended: set[int] = set()
    for event in told:
        if isinstance(event, Ended):
            ended.add(event.turn)
        elif not isinstance(event, Resumable):
            about = {Turn: "number", Transcript: "utterance"}.get(type(event), "turn")
            assert getattr(event, about) not in ended, "nothing of a turn after its end"


class TestWhateverHappens:
    @hypothesis_settings(max_examples=600)
    @given(steps=STEPS, eager=st.sampled_from([True, True, False]))
    def test_each_turn_ends_exactly_once_and_nothing_of_it_comes_after(self, steps: list[Any], eager: bool) -> None:
        asyncio.run(play(steps, eager))
