"""Alembic's environment: the connection is the caller's, and so is the transaction."""

from alembic import context

from llmos.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
