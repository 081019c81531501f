"""Keys and what was used with them; and whose voices and chats are. What was there before has tenant ""."""

import sqlalchemy as sa
from alembic import op

revision = "0004_keys"
down_revision = "0003_jobs"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _keys()
    _voices()
    _chats()


def downgrade() -> None:
    raise NotImplementedError("what belongs to one tenant would be everybody's")


# Private


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("rights", sa.String(200), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=True),
        sa.Column("sessions", sa.Integer(), nullable=True),
        sa.Column("day_seconds", sa.Float(), nullable=True),
        sa.Column("month_seconds", sa.Float(), nullable=True),
        sa.Column("appkey", sa.String(200), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=True),
        sa.Column("revoked_at", _MOMENT, nullable=True),
        sa.Column("last_used_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_index("ix_keys_revision", "keys", ["revision"])
    op.create_table(
        "usage",
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("verb", sa.String(16), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", "verb", name="pk_usage"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_usage_key_id"),
    )


def _voices() -> None:
    _let_go("voices", "pk_voices")
    op.create_table(
        "voices_of_tenants",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("device_id", sa.String(200), nullable=False),
        sa.Column("repeat_key", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("prompt_text", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_voices"),
        sa.UniqueConstraint("tenant", "device_id", "repeat_key", name="uq_voices_tenant"),
    )
    _copy("voices", "id, device_id, repeat_key, name, prompt_text, digest, created_at, updated_at")
    op.drop_table("voices")
    op.rename_table("voices_of_tenants", "voices")
    op.create_index("ix_voices_digest", "voices", ["digest"])


def _chats() -> None:
    _let_go("messages", "fk_messages_chat_id", "pk_messages", "uq_messages_id")
    _let_go("chats", "pk_chats")
    op.create_table(
        "chats_of_tenants",
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_chats"),
    )
    op.create_table(
        "messages_of_tenants",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("chat_id", sa.String(200), nullable=False),
        sa.Column("speaker", sa.String(16), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_messages"),
        sa.UniqueConstraint("id", name="uq_messages_id"),
        sa.ForeignKeyConstraint(
            ["tenant", "chat_id"], ["chats_of_tenants.tenant", "chats_of_tenants.id"], name="fk_messages_tenant"
        ),
    )
    _copy("chats", "id, user_id, title, created_at, ended_at")
    _copy("messages", "number, id, chat_id, speaker, content, created_at")
    op.drop_table("messages")
    op.drop_table("chats")
    op.rename_table("chats_of_tenants", "chats")
    op.rename_table("messages_of_tenants", "messages")
    op.create_index("ix_chats_user_id", "chats", ["user_id"])
    op.create_index("ix_messages_chat_id", "messages", ["chat_id"])


def _let_go(table: str, *constraints: str) -> None:
    """PostgreSQL knows each name once, and the new table wants it before the old one is gone."""
    if op.get_bind().dialect.name != "sqlite":
        for name in constraints:
            op.drop_constraint(name, table)


def _copy(table: str, columns: str) -> None:
    op.execute(f"INSERT INTO {table}_of_tenants (tenant, {columns}) SELECT '', {columns} FROM {table}")
