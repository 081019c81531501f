"""Which file a synthesis was answered with, so that the same one asked again soon is not made again."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import Database, syntheses


class Repeats:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def remember(self, key: str, file_name: str) -> None:
        """key: the caller's hash of everything that the synthesis depends on. The latest file wins."""

        async def replace(connection: AsyncConnection) -> None:
            await connection.execute(delete(syntheses).where(syntheses.c.key == key))
            row = {"key": key, "file_name": file_name, "created_at": datetime.now(UTC)}
            await connection.execute(insert(syntheses).values(row))

        await self._database.transact(replace)

    async def recall(self, key: str, within_seconds: float) -> str | None:
        rows = await self._database.execute(
            select(syntheses.c.file_name).where(syntheses.c.key == key, syntheses.c.created_at > _ago(within_seconds))
        )
        return rows[0].file_name if rows else None

    async def sweep(self, older_than: float) -> None:
        """Forgets what was remembered more than `older_than` seconds ago."""
        await self._database.execute(delete(syntheses).where(syntheses.c.created_at <= _ago(older_than)))


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)
