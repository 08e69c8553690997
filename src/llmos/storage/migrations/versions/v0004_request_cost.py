"""What a request has cost, of a model that somebody else is paid for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of rows that are there nothing is known."""
    op.add_column("requests", sa.Column("cost", sa.Float()))
