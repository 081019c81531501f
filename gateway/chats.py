"""The chats of the voice chat backend's clients, and every message that was said in one.

A chat is whoever's of its tenant knows its id; `user_id` only lists them. An ended chat can be read, and takes no more.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway import caller
from gateway.database import Database
from gateway.database import chats as table
from gateway.database import messages as message_table
from gateway.errors import BadRequest, NotFound

MOST_LISTED = 1000
"""The newest chats of a user, and the newest messages of a chat, that are ever given at once."""
LONGEST_NAME = 200
"""Characters of a chat's id, and of a user's."""


class Speaker(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Chat:
    id: str
    user_id: str
    title: str
    created_at: datetime
    """UTC."""
    ended_at: datetime | None = None
    """UTC; None while it goes on."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A chat as lists show it."""

    chat: Chat
    messages: int


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    chat_id: str
    speaker: Speaker
    content: str = field(repr=False)
    created_at: datetime
    """UTC."""


_CHAT = (table.c.id, table.c.user_id, table.c.title, table.c.created_at, table.c.ended_at)


class Chats:
    """The chats of one process's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.total = 0
        """How many there are, for answers that must not wait for the database; known once `count` has been asked."""

    async def count(self) -> int:
        rows = await self._database.execute(select(func.count()).select_from(table))
        self.total = int(rows[0][0])
        return self.total

    async def open(self, chat_id: str, user_id: str) -> Chat:
        """The chat of that id, whoever began it; one that nobody has begun begins now, as the user's."""
        checked("id", chat_id)
        checked("user", user_id)
        if (found := await self._find(chat_id)) is not None:
            return found
        owned = (table.c.tenant == caller.tenant(), table.c.user_id == user_id)
        earlier = await self._database.execute(select(func.count()).where(*owned))
        made = Chat(chat_id, user_id, f"Call Session {earlier[0][0] + 1}", datetime.now(UTC))
        try:
            await self._database.execute(insert(table).values(asdict(made) | {"tenant": caller.tenant()}))
        except IntegrityError:  # somebody else was quicker
            return await self.get(chat_id)
        self.total += 1
        return made

    async def get(self, chat_id: str) -> Chat:
        """Raises NotFound."""
        found = await self._find(chat_id)
        if found is None:
            raise NotFound("there is no such chat", code="chat_not_found")
        return found

    async def list(self, user_id: str) -> Sequence[Listed]:
        """Oldest first."""
        counted = func.count(message_table.c.number)
        said = and_(message_table.c.tenant == table.c.tenant, message_table.c.chat_id == table.c.id)
        newest = (
            select(*_CHAT, counted.label("messages"))
            .outerjoin(message_table, said)
            .where(table.c.tenant == caller.tenant(), table.c.user_id == user_id)
            .group_by(*_CHAT)
            .order_by(table.c.created_at.desc(), table.c.id.desc())
            .limit(MOST_LISTED)
        )
        return [Listed(_chat(row), row.messages) for row in reversed(await self._database.execute(newest))]

    async def end(self, chat_id: str) -> None:
        """Nothing where it has ended already."""
        running = update(table).where(*_named(chat_id), table.c.ended_at.is_(None))
        await self._database.execute(running.values(ended_at=datetime.now(UTC)))

    async def add(self, message: Message) -> None:
        """message.chat_id: a chat that is there."""
        await self._database.execute(insert(message_table).values(asdict(message) | {"tenant": caller.tenant()}))

    async def messages(self, chat_id: str, newest: int = MOST_LISTED) -> Sequence[Message]:
        """Oldest first; of very many the `newest`."""
        rows = await self._database.execute(
            select(message_table)
            .where(message_table.c.tenant == caller.tenant(), message_table.c.chat_id == chat_id)
            .order_by(message_table.c.number.desc())
            .limit(newest)
        )
        return [
            Message(row.id, row.chat_id, Speaker(row.speaker), row.content, row.created_at) for row in reversed(rows)
        ]

    # Private

    async def _find(self, chat_id: str) -> Chat | None:
        rows = await self._database.execute(select(*_CHAT).where(*_named(chat_id)))
        return _chat(rows[0]) if rows else None


def _named(chat_id: str) -> tuple[ColumnElement[bool], ...]:
    """The chat of that id, where the one who asks may see it."""
    return table.c.tenant == caller.tenant(), table.c.id == chat_id


def new_message(chat_id: str, speaker: Speaker, content: str) -> Message:
    return Message(f"msg_{uuid.uuid4().hex}", chat_id, speaker, content, datetime.now(UTC))


def checked(name: str, value: str) -> str:
    """A chat's id or a user's. Raises BadRequest."""
    if not 1 <= len(value) <= LONGEST_NAME:
        raise BadRequest(f"{name} must have 1 to {LONGEST_NAME} characters, not {len(value)}")
    if not storable(value):
        raise BadRequest(f"{name} holds a character that cannot be stored")
    return value


def storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _chat(row: Row[Any]) -> Chat:
    return Chat(row.id, row.user_id, row.title, row.created_at, row.ended_at)
