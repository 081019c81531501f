"""The cascade with a client that keeps its conversation itself: words without a reply, replies to what it names."""

import asyncio
from pathlib import Path

import pytest

from gateway.events import Phase, ReplyAudio, ToolCall
from gateway.memory import MOST_CHARACTERS, Call, Message, Role, latest
from gateway.verbs import Begin, Cancel, Change, End, Preset, Reply, Write
from tests.adapters.spoken import World, tone, world


@pytest.fixture
def there(tmp_path: Path) -> World:
    return world(tmp_path / "scratch")


def user(text: str) -> Message:
    return Message(Role.USER, text)


class TestWordsOnly:
    async def test_are_recognised_and_nothing_is_replied(self, there: World) -> None:
        async with there.talk() as client:
            client.say(tone(0.5), End(reply=False), tone(0.5), End(reply=False))
            assert (await client.ended(1)).phase is Phase.DONE
            assert (await client.ended(2)).phase is Phase.DONE
        assert [(one.utterance, one.text) for one in client.heard()] == [(1, "heard 1"), (2, "heard 2")]
        assert not there.mind.asked
        assert there.idle()

    async def test_wait_for_no_reply_and_outlive_its_interruption(self, there: World) -> None:
        going = asyncio.Event()
        there.mind.replies = [["Well, ", going.wait, "yes."]]
        there.ear.hold = asyncio.Event()
        async with there.talk() as client:
            client.say(Reply((user("hello"),)))
            await client.until(lambda: client.text(1))
            client.say(tone(0.5), End(reply=False), tone(0.2), Cancel())
            assert (await client.ended(1)).phase is Phase.CANCELLED
            there.ear.hold.set()
            assert (await client.ended(2)).phase is Phase.DONE
        assert [one.text for one in client.heard()] == ["heard 1"]

    async def test_are_those_since_the_audio_was_cleared(self, there: World) -> None:
        going = asyncio.Event()
        there.mind.replies = [[going.wait, "Yes."]]
        async with there.talk() as client:
            client.say(Reply((user("hello"),)), tone(0.7), Begin(interrupts=False), tone(0.4, 4000), End(reply=False))
            assert (await client.ended(2)).phase is Phase.DONE
            going.set()
            assert (await client.ended(1)).phase is Phase.DONE, "the reply went on"
        assert there.ear.heard[-1] == tone(0.4, 4000)

    async def test_of_silence_fail_and_say_why(self, there: World) -> None:
        async with there.talk() as client:
            client.say(bytes(32_000), End(reply=False))
            assert (await client.ended(1)).code == "nothing_understood"


class TestReply:
    async def test_is_made_from_its_own_messages_and_wishes(self, there: World) -> None:
        wishes = Change(
            "Be brief.", Preset("英文女"), "en", tools=({"type": "function"},), speed=1.5, tool_choice="look"
        )
        async with there.talk() as client:
            client.say(Write("remember me"), Reply((user("one"), user("two")), wishes), Write("three"))
            for number in (1, 2, 3):
                assert (await client.ended(number)).phase is Phase.DONE
        _, asked, later = there.mind.asked
        assert [one.text for one in asked.messages] == ["one", "two"]
        assert (asked.persona, asked.language, asked.tool_choice) == ("Be brief.", "en", "look")
        assert (there.mouth.jobs[1].voice, there.mouth.jobs[1].speed) == (Preset("英文女"), 1.5)
        assert [one.text for one in later.messages] == ["remember me", "You said remember me.", "three"]
        assert not later.tools, "wishes of one reply are of no other"

    async def test_may_answer_nothing_at_all(self, there: World) -> None:
        there.mind.replies = [["Hello."]]
        async with there.talk() as client:
            client.say(Reply(()))
            assert (await client.ended()).phase is Phase.DONE
        assert client.text() == "Hello."

    async def test_names_each_sentence_where_its_sound_begins(self, there: World) -> None:
        there.mind.replies = [["It is a fine day today. ", "Is it not one?"]]
        async with there.talk() as client:
            client.say(Reply((user("hello"),)))
            await client.ended()
        texts = [event.text for event in client.events if isinstance(event, ReplyAudio)]
        assert texts == ["It is a fine day today.", "", "", "Is it not one?", "", ""]

    async def test_may_call_tools_whose_results_come_with_the_next_one(self, there: World) -> None:
        call = Call("call-1", "look", "{}")
        there.mind.replies = [[call], ["It rains."]]
        async with there.talk() as client:
            client.say(Reply((user("weather"),)))
            await client.ended(1)
            result = Message(Role.TOOL, "rain", call="call-1")
            client.say(Reply((user("weather"), Message(Role.ASSISTANT, "", (call,)), result)))
            await client.ended(2)
        assert [event.id for event in client.events if isinstance(event, ToolCall)] == ["call-1"]
        assert client.text(2) == "It rains."


class TestLatest:
    def test_keeps_whole_questions(self) -> None:
        said = [user("1"), Message(Role.ASSISTANT, "a"), user("2"), Message(Role.ASSISTANT, "b"), user("3")]
        assert latest(said, 2) == tuple(said[2:])
        assert latest(said, 9) == tuple(said)

    def test_keeps_what_the_system_says_and_the_newest_question_however_long(self) -> None:
        system, long = Message(Role.SYSTEM, "rules"), user("x" * (MOST_CHARACTERS + 1))
        assert latest([system, user("1"), long], 8) == (system, long)

    def test_drops_what_does_not_fit(self) -> None:
        said = [user("a" * (MOST_CHARACTERS // 2)), user("b" * (MOST_CHARACTERS // 2)), user("c")]
        assert latest(said, 8) == tuple(said[1:])

    def test_keeps_what_nobody_asked_for(self) -> None:
        greeting = Message(Role.ASSISTANT, "Hello.")
        assert latest([greeting], 8) == (greeting,)
        assert latest([], 8) == ()
