"""What models were measured to take."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of footprints; what was there stays as it is."""
    op.create_table(
        "footprints",
        sa.Column("model_id", sa.String(240), nullable=False),
        sa.Column("dtype", sa.String(240), nullable=False),
        sa.Column("device", sa.String(240), nullable=False),
        sa.Column("context_length", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("num_slots", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("driver", sa.String(240), nullable=False),
        sa.Column("engine", sa.String(240), nullable=False),
        sa.Column("bound_bytes", sa.BigInteger(), nullable=False),
        sa.Column("peak_bytes", sa.BigInteger(), nullable=False),
        sa.Column("device_bytes", sa.BigInteger(), nullable=False),
        sa.Column("parked_bytes", sa.BigInteger()),
        sa.Column("load_s", sa.Float(), nullable=False),
        sa.Column("unpark_s", sa.Float()),
        sa.Column("num_loads", sa.BigInteger(), nullable=False),
        sa.Column("measured_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            *("model_id", "dtype", "device", "context_length", "num_slots", "driver", "engine"),
            name="pk_footprints",
        ),
    )
    op.create_index("ix_footprints_measured_ns", "footprints", ["measured_ns"])
