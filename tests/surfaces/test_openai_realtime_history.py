"""What a reply of Realtime is made from, and what of a spoken one was heard."""

import pytest

from gateway.memory import MOST_CHARACTERS, UNANSWERED, Call, Message, Role
from gateway.surfaces.openai_realtime_items import MOST_ITEMS, Items, Timeline, counted, messages, newest
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_items import Content, Item, Kind, Part


def said(name: str, text: str, role: str = "user") -> Item:
    return Item(name, role=role, content=[Content(Part.INPUT_TEXT, text)])


def call(name: str, called: str) -> Item:
    return Item(name, Kind.CALL, call_id=called, name="f", arguments="{}")


def result(name: str, called: str, output: str) -> Item:
    return Item(name, Kind.RESULT, call_id=called, output=output)


class TestMessages:
    def test_join_what_one_side_says(self) -> None:
        items = [said("1", "a"), said("2", "b"), said("3", "c", "assistant"), said("4", ""), said("5", "d")]
        assert [(str(one.role), one.text) for one in messages(items)] == [
            ("user", "a\nb"),
            ("assistant", "c"),
            ("user", "d"),
        ]

    def test_put_results_behind_their_calls_wherever_they_are(self) -> None:
        items = [
            said("1", "a"),
            call("2", "x"),
            call("3", "y"),
            result("4", "y", "Y"),
            said("5", "b"),
            result("6", "x", "X"),
        ]
        assert messages(items) == (
            Message(Role.USER, "a"),
            Message(Role.ASSISTANT, "", (Call("x", "f", "{}"), Call("y", "f", "{}"))),
            Message(Role.TOOL, "X", call="x"),
            Message(Role.TOOL, "Y", call="y"),
            Message(Role.USER, "b"),
        )

    def test_have_a_result_for_each_call_and_none_without(self) -> None:
        assert messages([call("1", "x"), result("2", "nobody's", "N")]) == (
            Message(Role.ASSISTANT, "", (Call("x", "f", "{}"),)),
            Message(Role.TOOL, UNANSWERED, call="x"),
        )


class TestNewest:
    def test_are_whole_questions_and_what_the_system_says(self) -> None:
        items = [
            *(said("s", "rules", "system"), said("1", "a"), said("2", "b", "assistant")),
            *(said("3", "c"), call("4", "x"), result("5", "x", "X"), said("6", "d", "assistant"), said("7", "e")),
        ]
        assert [one.id for one in newest(items, 2)] == ["s", "3", "4", "5", "6", "7"]
        assert newest(items, 9) == items

    def test_hold_the_newest_question_however_long(self) -> None:
        items = [said("1", "a"), said("2", "b" * (MOST_CHARACTERS + 1))]
        assert [one.id for one in newest(items, 9)] == ["2"]

    def test_are_counted(self) -> None:
        heard = Item("2", content=[Content(Part.INPUT_AUDIO, "some words")], seconds=1.25)
        assert counted([said("1", "two words"), heard, call("3", "x")]) == (2 + 3, 13)


class TestItems:
    def test_of_very_many_the_oldest_go(self) -> None:
        items = Items()
        for number in range(MOST_ITEMS + 1):
            items.add(said(str(number), "a"))
        assert len(items) == MOST_ITEMS
        with pytest.raises(Wrong):
            items.get("0", "retrieve")

    def test_know_the_one_before(self) -> None:
        items = Items()
        first, second = said("1", "a"), said("2", "b")
        assert items.add(first) is None
        assert items.add(second, "root") is None
        assert items.before(first) == "2"
        assert (items.before(second), items.last) == (None, "1")


class TestWhatWasHeard:
    TEXT = "One two three. 你好世界。"

    @pytest.fixture
    def timeline(self) -> Timeline:
        timeline = Timeline()
        timeline.mark()
        timeline.seconds, timeline.letters = 1.0, 15
        timeline.mark()
        timeline.seconds, timeline.letters = 3.0, 20
        return timeline

    @pytest.mark.parametrize(
        ("seconds", "heard"),
        [
            (0.0, ""),
            (0.3, "One"),
            (0.999, "One two three."),
            (1.0, "One two three."),
            (1.9, "One two three. 你好"),
            (3.0, TEXT),
            (9.0, TEXT),
        ],
    )
    def test_is_measured_from_sentence_to_sentence(self, timeline: Timeline, seconds: float, heard: str) -> None:
        assert timeline.heard(self.TEXT, seconds) == heard

    def test_is_a_share_where_nobody_knows_the_sentences(self) -> None:
        timeline = Timeline(seconds=2.0, letters=10)
        assert timeline.heard("abcd efgh.", 1.0) == "abcd"
        assert Timeline().heard("", 1.0) == ""
