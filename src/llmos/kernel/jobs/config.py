"""Settings of jobs: every bound, wait and retry, with its unit."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field

from llmos.kernel.core.limits import NS, JobLimits


class JobsConfig(BaseModel):
    """Frozen once the server runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_running: int = Field(
        default=0, ge=0, description="Jobs whose programs run at once; 0: the machine's cores."
    )
    max_running_calls: int = Field(
        default=64, ge=1, description="Durable calls (background responses) made at once."
    )
    claim_window: int = Field(
        default=256, ge=1, description="Jobs taken from the store ahead of their turn."
    )
    max_deaths: int = Field(
        default=3, ge=1, description="Worker deaths after which a job is dead until it is retried."
    )
    min_backoff_s: float = Field(
        default=0.5, ge=0, description="Wait before a failed job's second start; then doubled."
    )
    max_backoff_s: float = Field(default=300.0, ge=0, description="… and at most so long.")
    grace_s: float = Field(
        default=10.0, ge=0, description="How long a program may take to leave before it is killed."
    )
    drain_timeout_s: float = Field(
        default=10.0,
        ge=0,
        description="How long jobs may take to make checkpoints when the server stops.",
    )
    evict_idle_s: float = Field(
        default=10.0, ge=0, description="How long unused a model makes room for a job."
    )
    compute_niceness: int = Field(
        default=5,
        ge=0,
        le=19,
        description="How much nicer than the server's (nice(2)) processes of computing jobs are.",
    )
    freeze_after_s: float = Field(
        default=0.05,
        ge=0,
        description="How long requests of a higher class are open before computing jobs freeze.",
    )
    thaw_after_s: float = Field(
        default=1.0, ge=0, description="How long there are none before they go on."
    )
    freeze_slice_s: float = Field(
        default=0.5, gt=0, description="What a frozen job runs at a time while there are."
    )
    freeze_share: float = Field(
        default=0.05, gt=0, le=1, description="The part of the time it has in any case."
    )
    spare_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Memory held for the warm program worker; 0: none is kept.",
    )
    spare_delay_s: float = Field(
        default=1.0, ge=0, description="How long after a job has taken it the next one starts."
    )
    measure_interval_s: float = Field(
        default=0.25, gt=0, description="How often workers' memory is held against their limits."
    )
    poll_interval_s: float = Field(
        default=5.0,
        gt=0,
        description="How often the store is asked in any case: clocks jump, others submit.",
    )
    retry_min_s: float = Field(
        default=0.05, gt=0, description="Wait before a store write is tried again; then doubled."
    )
    retry_max_s: float = Field(default=2.0, gt=0, description="… and at most so long.")
    max_results_in_flight: int = Field(
        default=256, ge=1, description="A program's results that may not be durable yet."
    )
    max_log_lines_per_s: float = Field(
        default=1000.0, gt=0, description="Lines a program may log; what is more is counted."
    )
    max_calls_in_flight: int = Field(
        default=256, ge=1, description="A program's own calls that may be open at once."
    )
    text_period_s: float = Field(
        default=0.05,
        gt=0,
        description="How long the text of a streamed background response is gathered for its log.",
    )
    max_pending_events: int = Field(
        default=10_000,
        ge=1,
        description="Events of one job that wait for the disk; above it the oldest go.",
    )
    max_followers: int = Field(
        default=256,
        ge=1,
        description="Clients that may follow jobs at once, half of them one tenant's; above: 429.",
    )
    retain_interval_s: float = Field(
        default=60.0, gt=0, description="How often ended jobs past their time are forgotten."
    )

    def limits(self) -> JobLimits:
        """For the core."""
        slice_s = self.freeze_slice_s
        return JobLimits(
            max_running=self.max_running or max(1, len(os.sched_getaffinity(0))),
            max_running_calls=self.max_running_calls,
            max_deaths=self.max_deaths,
            min_backoff_ns=int(self.min_backoff_s * NS),
            max_backoff_ns=int(self.max_backoff_s * NS),
            grace_ns=int(self.grace_s * NS),
            evict_idle_ns=int(self.evict_idle_s * NS),
            freeze_after_ns=int(self.freeze_after_s * NS),
            thaw_after_ns=int(self.thaw_after_s * NS),
            freeze_slice_ns=int(slice_s * NS),
            freeze_max_ns=int(slice_s * (1 / self.freeze_share - 1) * NS),
            spare_bytes=self.spare_bytes,
            spare_delay_ns=int(self.spare_delay_s * NS),
        )
