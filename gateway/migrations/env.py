"""Run by Alembic, for `gateway.database` only: the connection to migrate comes from there."""

from alembic import context

from gateway.database import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
with context.begin_transaction():
    context.run_migrations()
