"""A dialogue whose client keeps the conversation itself: turns that are only heard, and replies that it asks for."""

import asyncio

import pytest

import gateway.hearing
from gateway.dialogue import HandsFree, Speech
from gateway.errors import BadRequest
from gateway.events import Phase, ReplyText, Transcript, Turn
from gateway.memory import Message, Role
from gateway.verbs import Begin, Cancel, Change, End, Reply
from tests.puppet_converser import Puppet
from tests.test_dialogue import RATE, Ears, done, reply, sound, talking, working

ASKED = (Message(Role.USER, "hello"),)


def heard(turn: int) -> Transcript:
    return Transcript("hello", "", utterance=turn)


class TestByHand:
    async def test_what_was_said_is_heard_and_what_follows_is_recorded_at_once(self) -> None:
        async with talking(Puppet()) as client:
            await client.speak(sound(0.1))
            assert await client.dialogue.end(reply=False, goes_on=True) == 1
            await client.speak(sound(0.1, 2))
            assert await client.dialogue.end(reply=False, goes_on=True) == 2
            played = await _played(client)
            await client.until(lambda _: len(played.controls) == 2)
            played.tell(heard(1), done(1), heard(2), done(2))
            await client.ends(2)
        assert played.controls == [End(reply=False), End(reply=False)]
        assert played.pcm == sound(0.1) + sound(0.1, 2)

    async def test_an_interruption_leaves_what_is_only_heard(self) -> None:
        async with talking(Puppet()) as client:
            await client.speak(sound(0.1))
            await client.dialogue.end(reply=False, goes_on=True)
            assert await client.dialogue.reply(ASKED, Change("brief")) == 2
            await client.dialogue.cancel()
            assert [(one.turn, one.status) for one in await client.ends()] == [(2, "cancelled")]
            played = await _played(client)
            played.tell(heard(1), done(1))
            assert [one.turn for one in await client.ends(2)] == [2, 1]
            await client.until(lambda _: len(played.controls) == 3)
        assert played.controls == [End(reply=False), Reply(ASKED, Change("brief")), Cancel()]
        assert 'voxgate_turns_total{adapter="puppet",status="cancelled"} 1.0' in client.metrics.exposition().decode()
        assert 'status="completed"' not in client.metrics.exposition().decode(), "what is not answered is no turn there"

    async def test_a_reply_is_timed_from_the_end_of_the_speech_that_it_answers(self) -> None:
        async with talking(Puppet()) as client:
            await client.speak(sound(0.1))
            await client.dialogue.end(reply=False, goes_on=True)
            played = await _played(client)
            played.tell(heard(1), done(1))
            await client.ends()
            await asyncio.sleep(0.05)
            await client.dialogue.reply(ASKED)
            played.tell(working(2), reply(2), done(2))
            await client.dialogue.reply(ASKED)
            played.tell(working(3), reply(3), done(3))
            _, first, second = await client.ends(3)
        assert first.timings["first_audio"] >= 0.05
        assert second.timings["first_audio"] < first.timings["first_audio"], "nothing was said before it"

    async def test_a_reply_asked_for_in_the_middle_of_speech_takes_nothing_of_it(self) -> None:
        async with talking(Puppet()) as client:
            await client.speak(sound(0.1))
            await client.dialogue.reply(ASKED)
            played = await _played(client)
            played.tell(working(1), ReplyText(1, "Hello."), reply(1), done(1))
            await client.ends()
            assert await client.dialogue.end(reply=False, goes_on=True) == 2

    async def test_a_clear_drops_what_no_turn_has(self) -> None:
        puppet = Puppet()
        puppet.opens.clear()
        async with talking(puppet) as client:
            await client.speak(sound(0.1))
            await client.dialogue.end(reply=False, goes_on=True)
            await client.speak(sound(0.1, 2))
            await client.dialogue.clear()
            with pytest.raises(BadRequest):
                await client.dialogue.end(reply=False, goes_on=True)
            await client.speak(sound(0.1, 3))
            await client.dialogue.end(reply=False, goes_on=True)
            puppet.opens.set()
            played = await _played(client)
            await client.until(lambda _: len(played.controls) == 3)
        assert played.pcm == sound(0.1) + sound(0.1, 3)
        assert played.controls == [End(reply=False), Begin(interrupts=False), End(reply=False)]

    async def test_an_engine_that_does_not_follow_says_so(self) -> None:
        async with talking(Puppet(), Puppet(follows=False)) as client:
            assert not client.dialogue.follows


class TestHandsFree:
    @pytest.fixture(autouse=True)
    def ears(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gateway.hearing, "Endpointer", Ears)

    @pytest.mark.parametrize("interrupts", [True, False])
    async def test_speech_is_only_heard_and_interrupts_where_it_may(self, interrupts: bool) -> None:
        async with talking(Puppet(), hands_free=HandsFree(replies=False, interrupts=interrupts)) as client:
            assert await client.dialogue.reply(ASKED) == 1
            await client.speak(sound(0.5) + bytes(2 * RATE))
            await client.until(lambda one: sum(isinstance(event, Speech) for event in one.told) == 2)
            played = await _played(client)
            await client.until(lambda _: End(reply=False) in played.controls)
            assert (Cancel() in played.controls) is interrupts
            assert not any(isinstance(one, Begin) for one in played.controls)
            played.tell(heard(2), Turn(2, Phase.DONE))
            await client.until(lambda one: any(isinstance(event, Transcript) for event in one.told))
            assert [one.status for one in client.ended if one.turn == 1] == ["cancelled"] * interrupts

    async def test_each_pause_ends_a_turn_of_its_own(self) -> None:
        async with talking(Puppet(), hands_free=HandsFree(replies=False)) as client:
            await client.speak((sound(0.5) + bytes(2 * RATE)) * 2)
            played = await _played(client)
            await client.until(lambda _: len(played.controls) == 2)
        assert [event.turn for event in client.told if isinstance(event, Speech)] == [1, 1, 2, 2]

    async def test_how_can_be_changed(self) -> None:
        async with talking(Puppet(), hands_free=HandsFree(replies=False)) as client:
            await client.speak(sound(0.5))
            await client.dialogue.hands_free(HandsFree(replies=False, interrupts=False))
            await client.speak(bytes(2 * RATE))
            assert [event.started for event in client.told if isinstance(event, Speech)] == [True, False]
            await client.dialogue.hands_free(False)
            await client.speak(sound(0.1))
            assert client.dialogue.recording is False
            await client.dialogue.clear()
            await client.speak(sound(0.1, 2))
            assert await client.dialogue.end(reply=False, goes_on=True) == 2


async def _played(client: "object"):  # type: ignore[no-untyped-def]
    """The session, once the engine has opened it."""
    puppet = client.replicas.members[0].engine  # type: ignore[attr-defined]
    await client.until(lambda _: puppet.played)  # type: ignore[attr-defined]
    return puppet.last
