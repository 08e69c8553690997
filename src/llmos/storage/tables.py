"""The tables. Times are UTC in ns; `epoch` is the server run that wrote the row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
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

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("model_id", String(40), ForeignKey("models.model_id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", String(96), nullable=False),
    Column("set_ns", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
)
"""What `name:alias` is, besides `latest`, which needs no row; who said so, and why."""

DEFAULT_TENANT = "default"
"""The tenant that exists in every database: name and id alike."""

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("principal_id", String(40), nullable=False),
    Column("principal", Text, nullable=False),
    Column("program", String(96), nullable=False),
    Column("parent_id", String(40)),
    Column("spec", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("queue", Integer),
    Column("holder_epoch", Integer),
    Column("created_ns", BigInteger, nullable=False),
    Column("due_ns", BigInteger, nullable=False),
    Column("started_ns", BigInteger),
    Column("ended_ns", BigInteger),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("num_starts", Integer, nullable=False),
    Column("num_deaths", Integer, nullable=False),
    Column("num_failures", Integer, nullable=False),
    Column("num_unmet", Integer, nullable=False),
    Column("num_events", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cancel_reason", Text),
    Column("progress", Text),
    Column("checkpoint", Text),
    Column("checkpoint_digest", String(71)),
    Column("outputs", Text),
    Column("error", Text),
)
"""Jobs. What has structure is JSON.

`holder_epoch`: the server run that has claimed it (pending) or has an attempt of it (running, or
suspended with a frozen worker). `num_starts` numbers attempts and is never set back, `attempt`
counts them since the last retry. `queue`: 1 may be claimed, 0 waits for `due_ns`, NULL is not to be
claimed. `rank`: 0 is the most urgent class. `num_events`: the number of the newest event.
"""
Index("ix_jobs_tenant_id_job_id", jobs.c.tenant_id, jobs.c.job_id)
Index("ix_jobs_tenant_id_program_job_id", jobs.c.tenant_id, jobs.c.program, jobs.c.job_id)
Index("ix_jobs_program_job_id", jobs.c.program, jobs.c.job_id)
Index("ix_jobs_state_job_id", jobs.c.state, jobs.c.job_id)


def _partial(name: str, *columns: Column[Any]) -> Index:
    """An index of the rows whose first column is not NULL."""
    where = text(f"{columns[0].name} IS NOT NULL")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial(
    "ix_jobs_queue_claim",
    jobs.c.queue,
    jobs.c.rank,
    jobs.c.tenant_id,
    jobs.c.created_ns,
    jobs.c.job_id,
)
_partial("ix_jobs_queue_due", jobs.c.queue, jobs.c.due_ns)
_partial("ix_jobs_holder", jobs.c.holder_epoch)
_partial("ix_jobs_parent_id_job_id", jobs.c.parent_id, jobs.c.job_id)
_partial("ix_jobs_ended_ns", jobs.c.ended_ns)
Index(
    "ix_jobs_tenant_id_live",
    jobs.c.tenant_id,
    sqlite_where=text("ended_ns IS NULL"),
    postgresql_where=text("ended_ns IS NULL"),
)
_partial("ix_jobs_checkpoint_digest", jobs.c.checkpoint_digest)

job_counts = Table(
    "job_counts",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("state", String(12), primary_key=True),
    Column("num_jobs", BigInteger, nullable=False),
)
"""How many jobs are in a state: the sum over server runs, each of which counts its own changes."""

job_needs = Table(
    "job_needs",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("need_id", String(40), primary_key=True, index=True),
    Column("met", Boolean, nullable=False),
)

job_files = Table(
    "job_files",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("name", String(96), primary_key=True),
    Column("file_id", String(40), nullable=False, index=True),
    Column("digest", String(71), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)
"""What a job reads. The bytes stay while it lives, even when the file is removed."""

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("kind", String(96), nullable=False),
    Column("value", Text, nullable=False),
)

job_results = Table(
    "job_results",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("stream", String(96), primary_key=True),
    Column("key", String(512), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index(
    "ix_job_results_position",
    job_results.c.job_id,
    job_results.c.stream,
    job_results.c.position,
    job_results.c.key,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("principal_id", String(40), primary_key=True),
    Column("key", String(512), primary_key=True),
    Column("request_digest", String(128), nullable=False),
    Column("ids", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False, index=True),
    Column("epoch", Integer, nullable=False),
)
"""What was made with a client's `Idempotency-Key`: ids of jobs or files, a JSON list."""

schedules = Table(
    "schedules",
    metadata,
    Column("schedule_id", String(40), primary_key=True),
    Column("tenant_id", String(40), nullable=False, index=True),
    Column("principal", Text, nullable=False),
    Column("cron", String(200), nullable=False),
    Column("timezone", String(96), nullable=False),
    Column("spec", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("next_ns", BigInteger, nullable=False, index=True),
    Column("paused", Boolean, nullable=False),
    Column("last_job_id", String(40)),
    Column("epoch", Integer, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("file_id", String(40), primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("principal_id", String(40), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("digest", String(71), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),
    Column("epoch", Integer, nullable=False),
)
Index("ix_files_tenant_id_purpose_file_id", files.c.tenant_id, files.c.purpose, files.c.file_id)
Index("ix_files_tenant_id_file_id", files.c.tenant_id, files.c.file_id)
_partial("ix_files_expires_ns", files.c.expires_ns)

requests = Table(
    "requests",
    metadata,
    Column("request_id", String(40), primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("principal_id", String(40), nullable=False),
    Column("model", String(240), nullable=False),
    Column("route", String(32), nullable=False),
    Column("service_class", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False, index=True),
    Column("started_ns", BigInteger),
    Column("first_token_ns", BigInteger),
    Column("ended_ns", BigInteger, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("error_code", String(64)),
    Column("epoch", Integer, nullable=False),
    Column("cost", Float),
)
"""One row per synchronous inference, written behind its answer."""
Index("ix_requests_tenant_id_request_id", requests.c.tenant_id, requests.c.request_id)

leaders = Table(
    "leaders",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
)
"""Row 1: the server run that may claim, where several share a database."""

footprints = Table(
    "footprints",
    metadata,
    Column("model_id", String(240), primary_key=True),
    Column("dtype", String(240), primary_key=True),
    Column("device", String(240), primary_key=True),
    Column("context_length", BigInteger, primary_key=True, autoincrement=False),
    Column("num_slots", BigInteger, primary_key=True, autoincrement=False),
    Column("driver", String(240), primary_key=True),
    Column("engine", String(240), primary_key=True),
    Column("bound_bytes", BigInteger, nullable=False),
    Column("peak_bytes", BigInteger, nullable=False),
    Column("device_bytes", BigInteger, nullable=False),
    Column("parked_bytes", BigInteger),
    Column("load_s", Float, nullable=False),
    Column("unpark_s", Float),
    Column("num_loads", BigInteger, nullable=False),
    Column("measured_ns", BigInteger, nullable=False, index=True),
)
"""What models were measured to take: one row for all that changes it."""

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("principal", String(96), primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("model", String(240), nullable=False),
    Column("rating", String(8), nullable=False),
    Column("comment", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False, index=True),
)
"""What people thought of answers: a person's last word on each."""
