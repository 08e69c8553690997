"""The tables. Times are UTC in ns; `epoch` is the server run that wrote the row."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

boots = Table(
    "boots",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("started_ns", BigInteger, nullable=False),
    Column("probed_ns", BigInteger),
)
"""One row per opening of the home."""

tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", String(40), primary_key=True),
    Column("name", String(96), nullable=False, unique=True),
    Column("created_ns", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
)

principals = Table(
    "principals",
    metadata,
    Column("principal_id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenants.tenant_id"), nullable=False),
    Column("name", String(96), nullable=False),
    Column("role", String(16), nullable=False),
    Column("max_class", Integer, nullable=False),
    Column("weight", Float, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
)
"""Rights are the principal's; a key only proves who asks."""

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(40), primary_key=True),
    Column("name", String(96), nullable=False),
    Column("tenant_id", String(40), ForeignKey("tenants.tenant_id"), nullable=False),
    Column("principal_id", String(40), ForeignKey("principals.principal_id"), nullable=False),
    Column("secret_sha256", LargeBinary(32), nullable=False, unique=True),
    Column("created_ns", BigInteger, nullable=False),
    Column("revoked_ns", BigInteger),
    Column("epoch", Integer, nullable=False),
)
Index(
    "uq_keys_name_active",
    keys.c.name,
    unique=True,
    sqlite_where=text("revoked_ns IS NULL"),
    postgresql_where=text("revoked_ns IS NULL"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("model_id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenants.tenant_id"), nullable=False),
    Column("principal_id", String(40)),
    Column("name", String(200), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("record", JSON, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("removed_ns", BigInteger),
    Column("epoch", Integer, nullable=False),
    UniqueConstraint("name", "version"),
)
"""Versions. A removed one keeps its row, so that its number is never given again."""
Index(
    "uq_models_contents_live",
    models.c.name,
    models.c.digest,
    unique=True,
    sqlite_where=text("removed_ns IS NULL"),
    postgresql_where=text("removed_ns IS NULL"),
)

model_files = Table(
    "model_files",
    metadata,
    Column("model_id", String(40), ForeignKey("models.model_id"), primary_key=True),
    Column("name", String(512), primary_key=True),
    Column("digest", String(71), ForeignKey("blobs.digest"), nullable=False, index=True),
)

DEFAULT_TENANT = "default"
"""The tenant that exists in every database: name and id alike."""
