"""The database: migrated at start, whole after every cancellation, shared by processes that start at once."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

import gateway
from gateway.chats import Chats, Speaker, new_message
from gateway.database import Database, DatabaseUnusable, metadata, open_database, syntheses
from gateway.repeats import Repeats
from gateway.settings import Settings, SettingsError

STARTER = """
import asyncio, sys
from pathlib import Path
from gateway.database import open_database
from gateway.repeats import Repeats
from gateway.settings import Settings

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_database(Settings(data_dir=Path(sys.argv[1]))) as database:
        for turn in range(20):
            await Repeats(database).remember(f"{sys.argv[2]}-{turn}", "a.wav")

asyncio.run(main())
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def row(key: str, moment: datetime | None = None) -> dict[str, object]:
    return {"key": key, "file_name": "a.wav", "created_at": moment or datetime.now(UTC)}


async def count(database: Database) -> int:
    return int((await database.execute(select(func.count()).select_from(syntheses)))[0][0])


class TestOpening:
    async def test_the_migrations_make_exactly_the_tables_that_the_code_uses(self, stored: Settings) -> None:
        def differences(connection: Connection) -> list[object]:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))

        async def compare(connection: AsyncConnection) -> list[object]:
            return await connection.run_sync(differences)

        async with open_database(stored) as database:
            assert await database.transact(compare) == []

    async def test_what_was_stored_is_there_after_the_next_start(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            await database.execute(insert(syntheses).values(row("a")))
        async with open_database(settings) as database:
            assert await count(database) == 1

    async def test_nobody_else_on_the_machine_can_read_it(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            await database.execute(insert(syntheses).values(row("a")))
            modes = {path.name: path.stat().st_mode & 0o777 for path in settings.data_dir.glob("*sqlite3*")}
        assert "voxgate.sqlite3-wal" in modes
        assert set(modes.values()) == {0o600}

    async def test_closing_leaves_one_whole_file(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            await database.execute(insert(syntheses).values(row("a")))
        assert sorted(path.name for path in settings.data_dir.glob("*sqlite3*")) == ["voxgate.sqlite3"]

    @pytest.mark.parametrize("name", ["with space", "100%", "a?b#c", "数据", "it's"])
    async def test_the_data_folder_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        async with open_database(Settings(data_dir=tmp_path / name)) as database:
            assert await count(database) == 0
        assert (tmp_path / name / "voxgate.sqlite3").exists()

    async def test_it_does_not_depend_on_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        async with open_database(Settings(data_dir=Path("data"))) as database:
            monkeypatch.chdir("/")
            assert await count(database) == 0
        assert (tmp_path / "data" / "voxgate.sqlite3").exists()

    async def test_sqlite_keeps_a_log_and_waits_for_other_writers(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            wanted = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 10000}
            for pragma, value in wanted.items():
                assert (await database.execute(text(f"PRAGMA {pragma}")))[0][0] == value

    async def test_a_database_of_a_newer_version_stops_the_start_with_one_line(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            await database.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SettingsError, match="newer version of Voxgate.*9999") as caught:
            async with open_database(settings):
                raise AssertionError("never entered")
        assert "\n" not in str(caught.value)

    async def test_a_file_that_is_no_database_stops_the_start_with_one_line(self, settings: Settings) -> None:
        settings.data_dir.mkdir()
        (settings.data_dir / "voxgate.sqlite3").write_bytes(b"not a database" * 1000)
        with pytest.raises(DatabaseUnusable, match="cannot be opened") as caught:
            async with open_database(settings):
                raise AssertionError("never entered")
        assert "\n" not in str(caught.value)

    async def test_a_data_folder_that_cannot_be_made_stops_the_start_with_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DatabaseUnusable, match="cannot be opened"):
            async with open_database(Settings(data_dir=tmp_path / "file")):
                raise AssertionError("never entered")

    async def test_processes_that_start_at_once_migrate_once(self, settings: Settings) -> None:
        command = [sys.executable, "-W", "error", "-c", STARTER, str(settings.data_dir)]
        pipe = subprocess.PIPE
        starters = [subprocess.Popen([*command, str(n)], stdin=pipe, stdout=pipe) for n in range(3)]
        for starter in starters:
            assert starter.stdout
            starter.stdout.readline()
        for starter in starters:
            assert starter.stdin
            starter.stdin.write(b"\n")
            starter.stdin.flush()
        for starter in starters:
            starter.communicate()
        assert [starter.returncode for starter in starters] == [0, 0, 0]
        async with open_database(settings) as database:
            assert await count(database) == 60


class TestTransactions:
    async def test_a_failure_takes_the_whole_transaction_back(self, settings: Settings) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(syntheses).values(row("a")))
            await connection.execute(insert(syntheses).values(row("a")))

        async with open_database(settings) as database:
            with pytest.raises(IntegrityError):
                await database.transact(work)
            assert await count(database) == 0

    async def test_work_that_has_begun_is_finished_when_its_caller_is_cancelled(self, settings: Settings) -> None:
        begun = asyncio.Event()

        async def work(connection: AsyncConnection) -> None:
            begun.set()
            await asyncio.sleep(0.01)
            await connection.execute(insert(syntheses).values(row("a")))

        async with open_database(settings) as database:
            task = asyncio.create_task(database.transact(work))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await count(database) == 1

    async def test_a_cancelled_caller_leaves_whole_work_and_clean_connections(self, settings: Settings) -> None:
        async def both(connection: AsyncConnection, n: int) -> None:
            await connection.execute(insert(syntheses).values(row(f"{n}-a")))
            await connection.execute(insert(syntheses).values(row(f"{n}-b")))

        async def one(database: Database, n: int) -> None:
            await database.transact(lambda connection: both(connection, n))

        async with open_database(settings) as database:
            tasks = [asyncio.create_task(one(database, n)) for n in range(60)]
            for task in tasks:
                await asyncio.sleep(random.random() * 0.002)
                task.cancel()
            await asyncio.wait(tasks)
            keys = {found.key for found in await database.execute(select(syntheses.c.key))}
            assert {key[:-2] + "-a" for key in keys} | {key[:-2] + "-b" for key in keys} == keys

    async def test_two_processes_worth_of_writers_never_find_the_database_locked(self, settings: Settings) -> None:
        async with open_database(settings) as one, open_database(settings) as two:
            await asyncio.gather(*(Repeats(db).remember(f"{n}", "a.wav") for n in range(40) for db in (one, two)))
            assert await count(one) == 40

    async def test_a_moment_comes_back_aware_and_in_utc(self, settings: Settings) -> None:
        moment = datetime(2030, 1, 1, 8, 30, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
        async with open_database(settings) as database:
            await database.execute(insert(syntheses).values(row("a", moment)))
            found = (await database.execute(select(syntheses.c.created_at)))[0][0]
        assert (found, found.tzinfo) == (moment, UTC)


class TestRepeats:
    async def test_the_file_of_the_same_synthesis_is_recalled_within_its_time(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            repeats = Repeats(database)
            assert await repeats.recall("a", 600) is None
            await repeats.remember("a", "one.wav")
            assert await repeats.recall("a", 600) == "one.wav"
            assert await repeats.recall("b", 600) is None
            assert await repeats.recall("a", 0) is None

    async def test_the_latest_file_wins(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            repeats = Repeats(database)
            await asyncio.gather(*(repeats.remember("a", f"{n}.wav") for n in range(10)))
            await repeats.remember("a", "last.wav")
            assert await repeats.recall("a", 600) == "last.wav"
            assert await count(database) == 1

    async def test_old_ones_are_forgotten(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            repeats = Repeats(database)
            await database.execute(insert(syntheses).values(row("old", datetime.now(UTC) - timedelta(seconds=700))))
            await repeats.remember("new", "new.wav")
            await repeats.sweep(600)
            assert await count(database) == 1
            assert await repeats.recall("new", 600) == "new.wav"


async def test_what_was_answered_is_in_the_file_before_the_database_is_closed(settings: Settings) -> None:
    async with open_database(settings) as database:
        await Repeats(database).remember("a", "a.wav")
        other = sqlite3.connect(settings.data_dir / "voxgate.sqlite3")
        try:
            assert other.execute("SELECT file_name FROM syntheses").fetchall() == [("a.wav",)]
        finally:
            other.close()


async def test_an_error_does_not_show_what_users_wrote(settings: Settings) -> None:
    async with open_database(settings) as database:
        await database.execute(insert(syntheses).values(row("secret")))
        with pytest.raises(IntegrityError) as failed:
            await database.execute(insert(syntheses).values(row("secret")))
    assert "secret" not in str(failed.value)


class TestMigrations:
    async def test_a_database_of_the_first_version_is_brought_up_and_keeps_what_it_holds(
        self, settings: Settings
    ) -> None:
        settings.data_dir.mkdir()
        file = settings.data_dir / "voxgate.sqlite3"
        first_version(file)
        async with open_database(settings) as database:
            assert await Repeats(database).recall("kept", 1e9) == "a.wav"
            chats = Chats(database)
            await chats.open("c1", "ann")
            await chats.add(new_message("c1", Speaker.USER, "words"))
            assert [one.content for one in await chats.messages("c1")] == ["words"]

    async def test_voices_and_chats_of_before_tenants_are_of_none(self, settings: Settings) -> None:
        settings.data_dir.mkdir()
        file = settings.data_dir / "voxgate.sqlite3"
        moment = "2030-01-01 08:30:00.000000"
        old_version(
            file,
            "0002",
            f"INSERT INTO voices VALUES ('v1', 'd', 'k', 'Ann', '', 'digest', '{moment}', '{moment}')",
            f"INSERT INTO chats VALUES ('c1', 'ann', 'Call Session 1', '{moment}', NULL)",
            f"INSERT INTO messages VALUES (7, 'm1', 'c1', 'user', 'words', '{moment}')",
        )
        async with open_database(settings) as database:
            for table in ("voices", "chats", "messages"):
                assert (await database.execute(text(f"SELECT tenant FROM {table}")))[0][0] == ""
            chats = Chats(database)
            await chats.add(new_message("c1", Speaker.ASSISTANT, "more"))
            assert [one.content for one in await chats.messages("c1")] == ["words", "more"]
            with pytest.raises(IntegrityError):
                await chats.add(new_message("c2", Speaker.USER, "words"))

    async def test_a_message_needs_its_chat(self, settings: Settings) -> None:
        async with open_database(settings) as database:
            with pytest.raises(IntegrityError):
                await Chats(database).add(new_message("nobody's", Speaker.USER, "words"))


def first_version(file: Path) -> None:
    """A database as the first version left it."""
    moment = datetime.now(UTC).replace(tzinfo=None)
    old_version(file, "0001", f"INSERT INTO syntheses VALUES ('kept', 'a.wav', '{moment}')")


def old_version(file: Path, revision: str, *statements: str) -> None:
    """A database as an earlier version left it, with something in it."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(gateway.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    engine = create_engine(URL.create("sqlite", database=str(file)))
    with engine.begin() as connection:
        upgrade(connection)
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
