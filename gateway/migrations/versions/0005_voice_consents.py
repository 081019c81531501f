"""Consents, and which voice was made with which; those from before were made with none."""

import sqlalchemy as sa
from alembic import op

revision = "0005_consents"
down_revision = "0004_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "voice_consents",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("device_id", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("language", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_voice_consents"),
    )
    op.create_index("ix_voice_consents_device_id", "voice_consents", ["device_id"])
    op.add_column("voices", sa.Column("consent", sa.String(100), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("voices", "consent")
    op.drop_table("voice_consents")
