"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create boots, tenants, principals, keys, blobs, models and their files."""
    op.create_table(
        "boots",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("started_ns", sa.BigInteger(), nullable=False),
        sa.Column("probed_ns", sa.BigInteger()),
        sa.PrimaryKeyConstraint("epoch", name="pk_boots"),
    )
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(96), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
    )
    _create_principals_and_keys()
    _create_models()


def _create_principals_and_keys() -> None:
    op.create_table(
        "principals",
        sa.Column("principal_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(96), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("max_class", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("principal_id", name="pk_principals"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.tenant_id"], name="fk_principals_tenant_id"
        ),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(96), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("principal_id", sa.String(40), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ns", sa.BigInteger()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_keys"),
        sa.UniqueConstraint("secret_sha256", name="uq_keys_secret_sha256"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_keys_tenant_id"),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.principal_id"], name="fk_keys_principal_id"
        ),
    )
    active = sa.text("revoked_ns IS NULL")
    op.create_index(
        "uq_keys_name_active",
        "keys",
        ["name"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )


def _create_models() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_table(
        "models",
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("principal_id", sa.String(40)),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("removed_ns", sa.BigInteger()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name="pk_models"),
        sa.UniqueConstraint("name", "version", name="uq_models_name_version"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_models_tenant_id"),
    )
    live = sa.text("removed_ns IS NULL")
    op.create_index(
        "uq_models_contents_live",
        "models",
        ["name", "digest"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_table(
        "model_files",
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(512), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "name", name="pk_model_files"),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name="fk_model_files_model_id"),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_model_files_digest"),
    )
    op.create_index("ix_model_files_digest", "model_files", ["digest"])
