"""The database: its tables, its connection and its migrations. SQLite in the data folder, or PostgreSQL by URL.

Rule 1: a statement here and in its users is plain SQL that both take; what is SQLite's own is in _tune.
Rule 2: work on the database runs to its end even when the one who asked is cancelled, so that every change is whole
and the connection always goes back clean.

Durability: a commit is in the kernel's hands before it is answered, so kill -9 loses nothing. Against a power cut
the file stays consistent, but the last seconds may be missing, as they may be from the recordings themselves.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Column,
    Connection,
    DateTime,
    Dialect,
    Executable,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.cleanup import locked
from gateway.settings import Settings, SettingsError
from gateway.tasks import shielded

T = TypeVar("T")

_LOCK_SECONDS = 10
"""How long one writer waits for another."""
_MIGRATION = 0x766F7867
"""Names PostgreSQL's lock of whoever migrates."""


class DatabaseUnusable(SettingsError):
    """One clear line for the operator: the database cannot be opened, or is of a newer version."""


class Moment(TypeDecorator[datetime]):
    """A point in time: UTC and aware, also where the database keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

voices = Table(
    "voices",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(100), nullable=False),
    Column("device_id", String(200), nullable=False),
    Column("repeat_key", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("prompt_text", Text, nullable=False),
    Column("digest", String(128), nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("consent", String(100), nullable=False, server_default=""),
    UniqueConstraint("tenant", "device_id", "repeat_key"),
)

voice_consents = Table(
    "voice_consents",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(100), nullable=False),
    Column("device_id", String(200), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("language", String(40), nullable=False),
    Column("created_at", Moment, nullable=False),
)

syntheses = Table(
    "syntheses",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("file_name", String(200), nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
)

chats = Table(
    "chats",
    metadata,
    Column("tenant", String(100), primary_key=True),
    Column("id", String(200), primary_key=True),
    Column("user_id", String(200), nullable=False, index=True),
    Column("title", String(200), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment),
)

messages = Table(
    "messages",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(64), nullable=False),
    Column("tenant", String(100), nullable=False),
    Column("chat_id", String(200), nullable=False, index=True),
    Column("speaker", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("id"),
    ForeignKeyConstraint(["tenant", "chat_id"], ["chats.tenant", "chats.id"]),
)
"""`number` is their order."""

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("revision", Integer, nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("tenant", String(100), nullable=False),
    Column("name", String(200), nullable=False),
    Column("rights", String(200), nullable=False),
    Column("rate", Integer),
    Column("sessions", Integer),
    Column("day_seconds", Float),
    Column("month_seconds", Float),
    Column("appkey", String(200), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    UniqueConstraint("digest"),
)
"""`revision` grows with every change of any of them: who knows the newest one asks for what is newer."""

usage = Table(
    "usage",
    metadata,
    Column("key_id", String(32), ForeignKey("keys.id"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("verb", String(16), primary_key=True),
    Column("seconds", Float, nullable=False),
)
"""`day`: as ISO 8601 writes it, UTC. `seconds`: of audio."""


jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("key", String(200)),
    Column("state", String(16), nullable=False),
    Column("payload", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("code", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("ended_at", Moment, index=True),
    Column("owner", String(32)),
    Column("owned_until", Moment),
    UniqueConstraint("id"),
    UniqueConstraint("kind", "tenant", "key"),
    Index("ix_jobs_kind_state", "kind", "state", "due_at"),
)
"""`number` is their order. gateway/jobs.py says what the rest means."""


class Database:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def execute(self, statement: Executable) -> Sequence[Row[Any]]:
        """One statement in a transaction of its own; the rows it returns."""

        async def work(connection: AsyncConnection) -> Sequence[Row[Any]]:
            result = await connection.execute(statement)
            return result.all() if result.returns_rows else []

        return await self.transact(work)

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` in one transaction. Begin it with a write if it writes at all: SQLite refuses a reader that
        becomes a writer after another one has written."""
        return await shielded(self._transact(work))

    async def _transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.begin() as connection:
            return await work(connection)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database at its newest version, closed when the block ends. Raises DatabaseUnusable."""
    where = _where(settings)
    await asyncio.to_thread(_migrate, where)
    engine = _engine(where.url)
    try:
        yield Database(engine)
    finally:
        await shielded(engine.dispose())


# Private


@dataclass(frozen=True, slots=True)
class _Where:
    url: URL
    shown: str
    """To the operator, without its password."""
    file: Path | None
    """SQLite's."""


def _where(settings: Settings) -> _Where:
    if settings.database_url:
        try:
            url = make_url(settings.database_url).set(drivername="postgresql+psycopg")
        except ArgumentError:
            raise DatabaseUnusable("database_url: not the address of a PostgreSQL database") from None
        return _Where(url, f"the database {url.database} on {url.host or 'this machine'}", None)
    file = settings.data_dir.absolute() / "voxgate.sqlite3"
    return _Where(URL.create("sqlite+aiosqlite", database=str(file)), f"the database {file}", file)


def _engine(url: URL) -> AsyncEngine:
    # Parameters are hidden because an error is logged, and they hold what users wrote.
    if url.drivername.startswith("postgresql"):
        return create_async_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _tune)
    return engine


def _tune(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_LOCK_SECONDS * 1000}",  # first: the next one may have to wait
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(where: _Where) -> None:
    """Blocks. Two processes that start at once migrate one after the other, and the second finds nothing to do."""
    try:
        if where.file is None:
            asyncio.run(_upgrade(where))
            return
        where.file.parent.mkdir(parents=True, exist_ok=True)
        with locked(where.file.with_suffix(".lock"), wait=True):
            where.file.touch(mode=0o600)  # it holds what users said; SQLite gives the files beside it the same mode
            asyncio.run(_upgrade(where))
    except (DBAPIError, OSError) as exc:
        reason = exc.orig if isinstance(exc, DBAPIError) else exc
        first = str(reason).strip().partition("\n")[0]
        raise DatabaseUnusable(f"{where.shown} cannot be opened: {first}") from exc


async def _upgrade(where: _Where) -> None:
    engine = _engine(where.url)
    try:
        async with engine.begin() as connection:
            if where.file is None:
                await connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION)))
            await connection.run_sync(_upgrade_connection, where.shown)
    finally:
        await engine.dispose()


def _upgrade_connection(connection: Connection, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    newer = set(MigrationContext.configure(connection).get_current_heads()) - known
    if newer:
        raise DatabaseUnusable(
            f"{shown} was made by a newer version of Voxgate (revision {', '.join(sorted(newer))}); "
            "start that version, or choose another one"
        )
    command.upgrade(config, "head")
