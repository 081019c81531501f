"""Chats and their messages: created by whoever asks first, listed, ended, kept."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.chats import Chats, Speaker, new_message
from gateway.database import Database, open_database
from gateway.errors import BadRequest, NotFound
from gateway.settings import Settings


@pytest.fixture
async def database(stored: Settings) -> AsyncIterator[Database]:
    async with open_database(stored) as database:
        yield database


@pytest.fixture
def chats(database: Database) -> Chats:
    return Chats(database)


async def test_an_id_that_nobody_has_begins_a_chat_and_is_found_again(chats: Chats) -> None:
    made = await chats.open("c1", "ann")
    assert (made.id, made.user_id, made.title, made.ended_at) == ("c1", "ann", "Call Session 1", None)
    assert await chats.open("c1", "bob") == made == await chats.get("c1")
    assert (await chats.open("c2", "ann")).title == "Call Session 2"
    assert (await chats.open("c3", "bob")).title == "Call Session 1"


async def test_many_that_open_the_same_id_at_once_get_the_same_chat(chats: Chats) -> None:
    found = await asyncio.gather(*(chats.open("c1", f"user-{n}") for n in range(20)))
    assert len({chat.user_id for chat in found}) == 1
    assert chats.total == 1


async def test_how_many_there_are_is_known_after_the_next_start(chats: Chats, database: Database) -> None:
    for n in range(3):
        await chats.open(f"c{n}", "ann")
    assert chats.total == 3
    again = Chats(database)
    assert (await again.count(), again.total) == (3, 3)


async def test_messages_keep_their_order_and_belong_to_one_chat(chats: Chats) -> None:
    await chats.open("c1", "ann")
    await chats.open("c2", "ann")
    for n in range(5):
        await chats.add(new_message("c1", Speaker.USER if n % 2 else Speaker.ASSISTANT, f"words {n}"))
    await chats.add(new_message("c2", Speaker.USER, "你好 👋"))
    found = await chats.messages("c1")
    assert [one.content for one in found] == [f"words {n}" for n in range(5)]
    assert [one.speaker for one in found[:2]] == [Speaker.ASSISTANT, Speaker.USER]
    assert len({one.id for one in found}) == 5
    assert [one.content for one in await chats.messages("c2")] == ["你好 👋"]


async def test_of_very_many_messages_the_newest_are_given(chats: Chats) -> None:
    await chats.open("c1", "ann")
    for n in range(9):
        await chats.add(new_message("c1", Speaker.USER, str(n)))
    assert [one.content for one in await chats.messages("c1", newest=3)] == ["6", "7", "8"]


async def test_a_user_is_listed_their_own_chats_oldest_first_with_what_is_in_them(chats: Chats) -> None:
    for name in ("z", "a", "m"):
        await chats.open(name, "ann")
    await chats.open("other", "bob")
    await chats.add(new_message("a", Speaker.USER, "one"))
    await chats.add(new_message("a", Speaker.ASSISTANT, "two"))
    listed = await chats.list("ann")
    assert [(one.chat.id, one.messages) for one in listed] == [("z", 0), ("a", 2), ("m", 0)]
    assert await chats.list("nobody") == []


async def test_an_ended_chat_stays_ended_at_its_first_end(chats: Chats) -> None:
    await chats.open("c1", "ann")
    await chats.end("c1")
    ended = (await chats.get("c1")).ended_at
    assert ended is not None
    await chats.end("c1")
    assert (await chats.open("c1", "ann")).ended_at == ended


async def test_a_chat_that_is_not_there_is_not_found(chats: Chats) -> None:
    with pytest.raises(NotFound):
        await chats.get("nobody's")


@pytest.mark.parametrize("wrong", ["", "x" * 201, "a\0b", "a\ud800b"])
async def test_names_that_cannot_be_stored_are_refused(chats: Chats, wrong: str) -> None:
    with pytest.raises(BadRequest):
        await chats.open(wrong, "ann")
    with pytest.raises(BadRequest):
        await chats.open("c1", wrong)
    assert chats.total == 0


async def test_messages_and_names_of_users_are_not_shown_by_errors_and_logs(chats: Chats) -> None:
    assert "secret" not in repr(new_message("c1", Speaker.USER, "secret"))
