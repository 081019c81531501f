"""Voices, and which file a synthesis was answered with."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "voices",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("device_id", sa.String(200), nullable=False),
        sa.Column("repeat_key", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("prompt_text", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_voices"),
        sa.UniqueConstraint("device_id", "repeat_key", name="uq_voices_device_id"),
    )
    op.create_index("ix_voices_digest", "voices", ["digest"])
    op.create_table(
        "syntheses",
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("file_name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_syntheses"),
    )
    op.create_index("ix_syntheses_created_at", "syntheses", ["created_at"])


def downgrade() -> None:
    op.drop_table("syntheses")
    op.drop_table("voices")
