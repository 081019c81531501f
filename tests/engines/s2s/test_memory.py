import pytest

from engines.s2s.backends import Call, ToolResult
from engines.s2s.memory import BYTES, Bounds, Heard, Memories, Memory, Turn, Wishes
from engines.s2s.parcel import packed, unpacked


def spoken(seconds: float, reply: str = "yes") -> Turn:
    return Turn(Heard(bytes(round(seconds * BYTES))), reply)


def test_a_memory_is_bounded_in_turns_and_in_seconds() -> None:
    memory = Memory(Bounds(turns=4, seconds=10))
    for number in range(9):
        memory.add(Turn(Heard(text=str(number)), "yes"))
    assert [turn.heard.text for turn in memory.turns] == ["6", "7", "8"]
    for _ in range(3):
        memory.add(spoken(4))
    assert len(memory.turns) == 2
    memory.add(spoken(11))
    assert memory.turns == ()


def test_calls_that_nobody_answered_are_forgotten_and_a_turn_of_nothing_else_with_them() -> None:
    memory = Memory(Bounds())
    memory.add(Turn(Heard(text="a"), "let me see", (Call("1", "f", "{}"),)))
    memory.forget_calls()
    assert memory.turns == (Turn(Heard(text="a"), "let me see"),)
    memory.add(Turn(Heard(text="b"), "", (Call("2", "f", "{}"),)))
    memory.forget_calls()
    assert len(memory.turns) == 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_conversation_is_kept_for_a_while_and_taken_up_once() -> None:
    clock = Clock()
    memories = Memories(Bounds(kept=10), clock)
    first, resumed = memories.open("")
    assert not resumed
    first.add(spoken(1))
    first.wishes = Wishes(persona="pirate")
    memories.close(first)
    clock.now = 9
    second, resumed = memories.open(first.token)
    assert resumed and second.turns == first.turns and second.wishes == first.wishes
    assert second.token != first.token
    assert not memories.open(first.token)[1], "its token is spent"
    memories.close(second)
    clock.now = 20
    assert not memories.open(second.token)[1]


def test_one_whose_connection_was_not_seen_to_end_can_be_taken_up() -> None:
    memories = Memories(Bounds())
    first, _ = memories.open("")
    first.add(spoken(1))
    second, resumed = memories.open(first.token)
    assert resumed and second.turns == first.turns
    first.add(spoken(2))
    assert len(second.turns) == 1
    memories.close(first)
    memories.close(second)


def test_the_longest_kept_go_where_there_are_too_many_or_too_large_ones() -> None:
    memories = Memories(Bounds(conversations=2, megabytes=1))
    kept = []
    for _ in range(3):
        memory, _ = memories.open("")
        memory.add(spoken(1))
        memories.close(memory)
        kept.append(memory)
    assert [memories.open(memory.token)[1] for memory in kept] == [False, True, True]
    large, _ = memories.open("")
    large.add(spoken(40))
    memories.close(large)
    assert not memories.open(large.token)[1]
    assert repr(memories).endswith("0 of 2 kept>")


def test_conversations_in_which_nothing_was_said_are_not_kept() -> None:
    memories = Memories(Bounds())
    for _ in range(100):
        memories.close(memories.open("")[0])
    assert repr(memories) == "<0 conversations, 0 of 256 kept>"


def test_a_turn_reaches_the_worker_as_it_was() -> None:
    past = (
        Turn(Heard(b"\0\x40" * 3), "one", (Call("1", "f", '{"a": "ä"}'),)),
        Turn(Heard(results=(ToolResult("1", "sunny"),)), "two"),
        Turn(Heard(text="hello"), "three"),
    )
    tool = {"type": "function", "function": {"name": "f"}}
    asked = unpacked(*packed(Heard(b"\0\xc0" * 2), past, Wishes("pirate", "中文男", "de", False, (tool,))))
    assert [list(turn.said.audio) for turn in asked.history] == [[0.5] * 3, [], []]
    assert list(asked.said.audio) == [-0.5] * 2
    assert [turn.reply for turn in asked.history] == ["one", "two", "three"]
    assert asked.history[0].calls == (Call("1", "f", '{"a": "ä"}'),)
    assert asked.history[1].said.results == (ToolResult("1", "sunny"),)
    assert asked.history[2].said.text == "hello"
    assert (asked.persona, asked.language, asked.speech, asked.tools) == ("pirate", "de", False, (tool,))


@pytest.mark.parametrize("turns", [1, 2])
def test_few_turns_are_few(turns: int) -> None:
    memory = Memory(Bounds(turns=turns))
    for _ in range(3):
        memory.add(spoken(1))
    assert len(memory.turns) == turns - 1
