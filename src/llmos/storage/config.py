"""Limits of the storage package."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StorageConfig(BaseModel):
    """Section `storage`. Sizes in bytes, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_free_bytes: int = Field(
        default=256 << 20, ge=0, description="Writes that would leave less free disk are refused."
    )
    max_snapshot_bytes: int = Field(
        default=16 << 30, ge=0, description="Most disk that suspended requests use."
    )
    max_footprints: int = Field(
        default=1000, gt=0, description="Measurements of models that are kept; the oldest go."
    )
    max_upload_bytes: int = Field(
        default=64 << 30, gt=0, description="Most bytes in one upload, all its files together."
    )
    max_upload_files: int = Field(default=512, gt=0, description="Most files in one upload.")
    max_uploads: int = Field(default=16, gt=0, description="Most uploads open at once.")
    upload_idle_s: float = Field(
        default=3600.0, gt=0, description="An upload untouched this long may be dropped for room."
    )
    num_readers: int = Field(
        default=2, gt=0, le=16, description="Threads, each with a connection, that read."
    )
    max_pending: int = Field(
        default=1024, gt=0, description="Most database calls waiting; more are refused."
    )
    busy_timeout_s: float = Field(
        default=5.0, gt=0, description="How long a statement waits for a locked database."
    )
    checkpoint_bytes: int = Field(
        default=4 << 20, gt=0, description="Write-ahead log size that triggers a checkpoint."
    )
    checkpoint_commits: int = Field(
        default=1000, gt=0, description="Commits after which a checkpoint is made in any case."
    )
    commit_window_s: float = Field(
        default=0.002,
        ge=0,
        le=0.005,
        description="How long a write waits for others to share its commit, under load only.",
    )
    max_group_writes: int = Field(
        default=256, gt=0, description="Most writes in one commit; 1 commits each alone."
    )
    jobs_url: str = Field(
        default="",
        description="Where jobs and files are recorded: postgresql://…; empty for the home.",
    )
    max_job_events: int = Field(
        default=10_000, gt=0, description="Most lines of one job's log; the oldest go."
    )
    max_event_bytes: int = Field(
        default=64 << 10, gt=0, description="A longer event of a job's log is cut."
    )
    max_tenant_jobs: int = Field(
        default=0, ge=0, description="Most jobs of one tenant that have not ended; 0: no bound."
    )
    max_tenant_file_bytes: int = Field(
        default=0, ge=0, description="Most bytes of one tenant's files; 0: no bound but the disk."
    )
    max_feedback: int = Field(
        default=100_000, gt=0, description="Words of people on answers kept; the oldest go."
    )
    max_schedules: int = Field(default=100, gt=0, description="Most schedules of one tenant.")
    keep_jobs_s: float = Field(
        default=30 * 86_400.0, gt=0, description="Jobs that ended this long ago are forgotten."
    )
    keep_idempotency_s: float = Field(
        default=86_400.0, gt=0, description="How long an Idempotency-Key is remembered."
    )
    keep_requests_s: float = Field(
        default=7 * 86_400.0, gt=0, description="How long a request's record is kept."
    )
    retain_jobs: int = Field(
        default=500, gt=0, description="Most jobs forgotten in one transaction."
    )
    request_window_s: float = Field(
        default=0.1, gt=0, description="Records of requests younger than this may be lost."
    )
    max_request_rows: int = Field(
        default=10_000, gt=0, description="Records of requests not written yet; the oldest go."
    )
    collect_interval_s: float = Field(
        default=3600.0, gt=0, description="Between two sweeps for blobs that nothing refers to."
    )
    collect_after_bytes: int = Field(
        default=1 << 30, gt=0, description="A sweep is made early once so much new was stored."
    )
    collect_check_s: float = Field(
        default=2.0, gt=0, description="How often it is seen whether a sweep is due."
    )
    collect_retry_s: float = Field(
        default=10.0,
        gt=0,
        description="Least time between two sweeps made because something found no room.",
    )
    adopted_grace_s: float = Field(
        default=86_400.0,
        gt=0,
        description="How long a checkpoint's bytes are kept that never got on record.",
    )
