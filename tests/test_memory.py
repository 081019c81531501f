"""What conversations remember: for how long, how much, and for whom."""

import asyncio
import random

import pytest

from gateway.memory import MOST_CHARACTERS, UNANSWERED, Call, Held, History, Memory, Past, Role


def said(history: History) -> list[tuple[str, str]]:
    return [(str(one.role), one.text) for one in history.messages()]


def talk(held: Held, *questions: str) -> None:
    for question in questions:
        held.history.add(Past(question, reply=f"re {question}"))


class TestHistory:
    def test_users_and_assistants_take_turns(self) -> None:
        history = History(8)
        history.add(Past("one", reply="re one"))
        history.add(Past("two"))
        assert said(history) == [("user", "one"), ("assistant", "re one"), ("user", "two")]

    def test_questions_that_nobody_replied_to_become_one(self) -> None:
        history = History(8)
        for question in ("one", "two", "three"):
            history.add(Past(question))
        assert said(history) == [("user", "one\ntwo\nthree")]

    def test_who_says_it_again_from_the_start_has_said_it_once(self) -> None:
        history = History(8)
        for question in ("what is", "what is two", "what is two plus three"):
            history.add(Past(question))
        assert said(history) == [("user", "what is two plus three")]

    def test_a_question_can_be_forgotten_but_no_results(self) -> None:
        history = History(8)
        asked, given = Past("?", calls=(Call("a", "x", "{}"),)), Past(results={"a": "1"})
        for past in (Past("?"), asked, given):
            history.add(past)
        history.forget(given)
        assert len(history) == 3
        history.forget(asked)
        history.forget(asked)
        assert len(history) == 2

    def test_it_keeps_the_newest_turns(self) -> None:
        history = History(3)
        for number in range(10):
            history.add(Past(str(number), reply="re"))
        assert [text for role, text in said(history) if role == "user"] == ["7", "8", "9"]
        assert repr(history) == "<history: 3/3 turns>"

    def test_it_keeps_so_many_characters(self) -> None:
        history = History(1000)
        for _ in range(100):
            history.add(Past("x" * 1000, reply="y" * 1000))
        assert sum(len(text) for _, text in said(history)) <= MOST_CHARACTERS

    def test_the_last_turn_is_kept_however_long(self) -> None:
        history = History(8)
        history.add(Past("one"))
        history.add(Past("x" * 2 * MOST_CHARACTERS))
        assert [len(text) for _, text in said(history)] == [2 * MOST_CHARACTERS]

    def test_results_answer_their_calls_in_order(self) -> None:
        history = History(8)
        history.add(Past("?", calls=(Call("a", "x", "{}"), Call("b", "y", "{}"))))
        assert [call.id for call in history.owed()] == ["a", "b"]
        history.add(Past(results={"b": "2", "a": "1"}, reply="done"))
        assert history.owed() == ()
        assert [(one.role, one.text, one.call) for one in history.messages()] == [
            (Role.USER, "?", ""),
            (Role.ASSISTANT, "", ""),
            (Role.TOOL, "1", "a"),
            (Role.TOOL, "2", "b"),
            (Role.ASSISTANT, "done", ""),
        ]
        assert history.messages()[1].calls[1].name == "y"

    def test_calls_that_nobody_answered_have_a_result_all_the_same(self) -> None:
        history = History(8)
        history.add(Past("?", calls=(Call("a", "x", "{}"),)))
        history.add(Past("never mind"))
        assert said(history)[2:] == [("tool", UNANSWERED), ("user", "never mind")]

    def test_results_go_when_their_calls_go(self) -> None:
        history = History(1)
        history.add(Past("one", calls=(Call("a", "x", "{}"),)))
        history.add(Past(results={"a": "1"}, reply="done"))
        assert len(history.messages()) == 4, "one question, however many rounds it took"
        assert history.rounds == 1
        history.add(Past("two"))
        assert said(history) == [("user", "two")]
        assert history.rounds == 0

    @pytest.mark.parametrize("seed", range(5))
    def test_every_call_has_its_result_whatever_happens(self, seed: int) -> None:
        chance = random.Random(seed)
        history = History(chance.randint(1, 4))
        for number in range(200):
            owed = history.owed()
            calls = (Call(str(number), "x", "{}"),) * (chance.random() < 0.5)
            if owed and chance.random() < 0.7:
                history.add(Past(results={call.id: "r" for call in owed}, calls=calls))
            else:
                history.add(Past("q" * chance.randrange(1, 9000), reply="r" * chance.randrange(3), calls=calls))
            open_calls: set[str] = set()
            for message in history.messages():
                if message.role is Role.TOOL:
                    open_calls.remove(message.call)
                else:
                    assert not open_calls
                    open_calls = {call.id for call in message.calls}
            assert history.messages()[0].role is Role.USER


class TestMemory:
    async def test_a_conversation_can_be_taken_up_again(self) -> None:
        memory = Memory(8, 60)
        held = memory.open()
        assert not held.resumed
        talk(held, "one")
        memory.close(held)
        again = memory.open(held.token)
        assert (again.resumed, again.token) == (True, held.token)
        assert said(again.history) == [("user", "one"), ("assistant", "re one")]

    async def test_unknown_tokens_begin_anew_under_another(self) -> None:
        memory = Memory(8, 60)
        held = memory.open("made-up")
        assert not held.resumed
        assert held.token != "made-up"
        assert len(held.token) >= 40

    async def test_it_is_forgotten_on_time(self) -> None:
        memory = Memory(8, 0.03)
        held = memory.open()
        talk(held, "one")
        memory.close(held)
        assert repr(memory) == "<memory: 0 held, 1/1000 kept>"
        await asyncio.sleep(0.06)
        assert repr(memory) == "<memory: 0 held, 0/1000 kept>"
        assert not memory.open(held.token).resumed

    async def test_it_is_not_forgotten_while_it_goes_on_again(self) -> None:
        memory = Memory(8, 0.03)
        held = memory.open()
        talk(held, "one")
        memory.close(held)
        again = memory.open(held.token)
        await asyncio.sleep(0.06)
        memory.close(again)
        assert memory.open(held.token).resumed

    async def test_conversations_without_a_word_are_not_kept(self) -> None:
        memory = Memory(8, 60)
        memory.close(memory.open())
        assert repr(memory) == "<memory: 0 held, 0/1000 kept>"

    async def test_those_used_longest_ago_go_first(self) -> None:
        memory = Memory(8, 60, most=3)
        tokens = []
        for number in range(5):
            held = memory.open()
            talk(held, str(number))
            memory.close(held)
            tokens.append(held.token)
        assert [memory.open(token).resumed for token in tokens] == [False, False, True, True, True]

    async def test_whoever_comes_back_takes_over_from_a_connection_that_hangs(self) -> None:
        memory = Memory(8, 60)
        old = memory.open()
        talk(old, "one")
        new = memory.open(old.token)
        assert (new.resumed, new.token) == (True, old.token)
        talk(old, "the old one's")
        talk(new, "the new one's")
        assert "the old one's" not in str(said(new.history))
        assert "the new one's" not in str(said(old.history))
        memory.close(new)
        memory.close(old)
        kept = memory.open(new.token)
        assert [text for role, text in said(kept.history) if role == "user"] == ["one", "the new one's"]

    async def test_two_that_begin_share_nothing(self) -> None:
        memory = Memory(8, 60)
        one, other = memory.open(), memory.open("")
        assert one.token != other.token
        talk(one, "mine")
        assert not other.history.messages()
