"""Durable jobs, what is kept of them, files, schedules, and a record of requests."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of jobs, files and requests; what was there stays as it is."""
    _create_jobs()
    _create_job_parts()
    _create_files_and_schedules()
    _create_requests()


def _where(column: str) -> dict[str, Any]:
    where = sa.text(f"{column} IS NOT NULL")
    return {"sqlite_where": where, "postgresql_where": where}


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("principal_id", sa.String(40), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("program", sa.String(96), nullable=False),
        sa.Column("parent_id", sa.String(40)),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("queue", sa.Integer()),
        sa.Column("holder_epoch", sa.Integer()),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("due_ns", sa.BigInteger(), nullable=False),
        sa.Column("started_ns", sa.BigInteger()),
        sa.Column("ended_ns", sa.BigInteger()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("num_starts", sa.Integer(), nullable=False),
        sa.Column("num_deaths", sa.Integer(), nullable=False),
        sa.Column("num_failures", sa.Integer(), nullable=False),
        sa.Column("num_unmet", sa.Integer(), nullable=False),
        sa.Column("num_events", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cancel_reason", sa.Text()),
        sa.Column("progress", sa.Text()),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("checkpoint_digest", sa.String(71)),
        sa.Column("outputs", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
    )
    op.create_index(
        "ix_jobs_checkpoint_digest", "jobs", ["checkpoint_digest"], **_where("checkpoint_digest")
    )
    op.create_index("ix_jobs_ended_ns", "jobs", ["ended_ns"], **_where("ended_ns"))
    op.create_index("ix_jobs_holder", "jobs", ["holder_epoch"], **_where("holder_epoch"))
    op.create_index(
        "ix_jobs_parent_id_job_id", "jobs", ["parent_id", "job_id"], **_where("parent_id")
    )
    op.create_index("ix_jobs_program_job_id", "jobs", ["program", "job_id"])
    op.create_index(
        "ix_jobs_queue_claim",
        "jobs",
        ["queue", "rank", "tenant_id", "created_ns", "job_id"],
        **_where("queue"),
    )
    op.create_index("ix_jobs_queue_due", "jobs", ["queue", "due_ns"], **_where("queue"))
    op.create_index("ix_jobs_state_job_id", "jobs", ["state", "job_id"])
    op.create_index("ix_jobs_tenant_id_job_id", "jobs", ["tenant_id", "job_id"])
    live = sa.text("ended_ns IS NULL")
    op.create_index(
        "ix_jobs_tenant_id_live",
        "jobs",
        ["tenant_id"],
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_index("ix_jobs_tenant_id_program_job_id", "jobs", ["tenant_id", "program", "job_id"])


def _create_job_parts() -> None:
    op.create_table(
        "job_counts",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("num_jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "state", name="pk_job_counts"),
    )
    op.create_table(
        "job_needs",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("need_id", sa.String(40), nullable=False),
        sa.Column("met", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "need_id", name="pk_job_needs"),
    )
    op.create_index("ix_job_needs_need_id", "job_needs", ["need_id"])
    op.create_table(
        "job_files",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(96), nullable=False),
        sa.Column("file_id", sa.String(40), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_job_files"),
    )
    op.create_index("ix_job_files_file_id", "job_files", ["file_id"])
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(96), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_job_events"),
    )
    op.create_table(
        "job_results",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("stream", sa.String(96), nullable=False),
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "stream", "key", name="pk_job_results"),
    )
    op.create_index(
        "ix_job_results_position", "job_results", ["job_id", "stream", "position", "key"]
    )


def _create_files_and_schedules() -> None:
    op.create_table(
        "files",
        sa.Column("file_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("principal_id", sa.String(40), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger()),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name="pk_files"),
    )
    op.create_index("ix_files_digest", "files", ["digest"])
    op.create_index("ix_files_expires_ns", "files", ["expires_ns"], **_where("expires_ns"))
    op.create_index("ix_files_tenant_id_file_id", "files", ["tenant_id", "file_id"])
    op.create_index(
        "ix_files_tenant_id_purpose_file_id", "files", ["tenant_id", "purpose", "file_id"]
    )
    op.create_table(
        "idempotency",
        sa.Column("principal_id", sa.String(40), nullable=False),
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("request_digest", sa.String(128), nullable=False),
        sa.Column("ids", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("principal_id", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created_ns", "idempotency", ["created_ns"])
    op.create_table(
        "schedules",
        sa.Column("schedule_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("cron", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(96), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("next_ns", sa.BigInteger(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("last_job_id", sa.String(40)),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_next_ns", "schedules", ["next_ns"])
    op.create_index("ix_schedules_tenant_id", "schedules", ["tenant_id"])


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("principal_id", sa.String(40), nullable=False),
        sa.Column("model", sa.String(240), nullable=False),
        sa.Column("route", sa.String(32), nullable=False),
        sa.Column("service_class", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("started_ns", sa.BigInteger()),
        sa.Column("first_token_ns", sa.BigInteger()),
        sa.Column("ended_ns", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_created_ns", "requests", ["created_ns"])
    op.create_index("ix_requests_tenant_id_request_id", "requests", ["tenant_id", "request_id"])
    op.create_table(
        "leaders",
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("slot", name="pk_leaders"),
    )
