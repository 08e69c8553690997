"""Limits of the storage package."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StorageConfig(BaseModel):
    """Section `storage`. Sizes in bytes, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_free_bytes: int = Field(
        default=256 << 20, ge=0, description="Writes that would leave less free disk are refused."
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
