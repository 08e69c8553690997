"""Settings of the kernel: every bound, wait and retry, with its unit."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from llmos.kernel.core.eviction import Eviction


class KernelConfig(BaseModel):
    """Frozen once the server runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_open_requests: int = Field(
        default=4096, ge=1, description="Requests open at once, in any state; above it: 429."
    )
    max_waiting: int = Field(default=1024, ge=1, description="Requests in all queues together.")
    max_waiting_per_model: int = Field(
        default=512, ge=1, description="Requests in one model's queue."
    )
    max_waiting_tokens: int = Field(
        default=4_000_000, ge=1, description="Tokens, read and expected, in one model's queue."
    )
    max_open_per_tenant: int = Field(
        default=1024, ge=1, description="Requests of one tenant open at once; above it: 429."
    )
    policy: str = Field(
        default="fair",
        description="Who gets a row: fair, priority, round-robin, fifo, or a plugin's name.",
    )
    slice_tokens: int = Field(
        default=64, ge=1, description="Tokens before a row may go to an equal that waits."
    )
    nice_step_s: float = Field(
        default=0.5, ge=0, description="Seconds by which a point of nice delays a request."
    )
    lowest_share: float = Field(
        default=0.01, ge=0, le=0.5, description="Part of the tokens a waiting lower class gets."
    )
    max_parked: int = Field(
        default=32,
        ge=0,
        description="Requests of a replica that keep their KV without a row; turns fill half.",
    )
    max_preemptions: int = Field(
        default=3,
        ge=0,
        description="How often a higher class may take a request's row; then it is left alone.",
    )
    num_slots: int = Field(
        default=16, ge=1, le=1024, description="Requests a replica batches at once."
    )
    max_context_tokens: int = Field(
        default=8192,
        ge=16,
        description="Longest context a replica holds; a model's own may be shorter.",
    )
    num_threads: int = Field(
        default=0, ge=0, description="Compute threads of a worker; 0: what its engine finds good."
    )
    memory_budget_bytes: int = Field(
        default=0,
        ge=0,
        description="What models may take together; 0: memory_fraction of the machine.",
    )
    memory_fraction: float = Field(
        default=0.8, gt=0, le=1, description="Part of the machine's memory for models."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = Field(
        default="auto",
        description="Type of models' weights in memory, where a model can have it; auto: that of "
        "its files, or float32 where the processor does not compute with that.",
    )
    device: str = Field(
        default="cpu", description="Where models are: cpu, or an accelerator such as cuda:0."
    )
    memory_floor_bytes: int = Field(
        default=256 << 20,
        ge=0,
        description="What is left free of the memory that is there, as measured.",
    )
    max_snapshot_memory_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="Snapshots of suspended requests in memory; the others are on the disk.",
    )
    parking: bool = Field(
        default=True,
        description="Models that make room keep their process, where their driver can.",
    )
    eviction: Eviction = Field(
        default=Eviction.COST,
        description="Which unused model goes first: cost (of its return), lru, keep-alive.",
    )
    min_residency_s: float = Field(
        default=2.0,
        ge=0,
        description="What a model in use has before it makes room; at least twice its load time.",
    )
    turn_s: float = Field(
        default=1.0,
        ge=0,
        description="How long requests go on when their model makes room for an equal; then they "
        "are suspended.",
    )
    room_timeout_s: float = Field(
        default=60.0, gt=0, description="How long a model waits for memory nobody can give: 503."
    )
    keep_alive_s: float = Field(
        default=300.0, ge=0, description="How long an unused model stays resident, in seconds."
    )
    patience_s: float = Field(
        default=2.0, ge=0, description="How long a model waits for room before a busy one makes it."
    )
    stream_high_events: int = Field(
        default=512,
        ge=1,
        description="Undelivered events of a stream at which its request is paused.",
    )
    stream_low_events: int = Field(
        default=128, ge=0, description="Undelivered events at which it goes on."
    )
    max_resume_s: float = Field(
        default=600.0, gt=0, description="Longest `llmos.resume_s` a request may ask for."
    )
    max_kept_streams: int = Field(
        default=256,
        ge=0,
        description="Streams kept for readers who may come back, half of them one tenant's; "
        "above: 429.",
    )
    kept_events: int = Field(
        default=8192, ge=1, description="Newest events kept of each such stream."
    )
    stall_timeout_s: float = Field(
        default=10.0, gt=0, description="How long a paused reader may not read before it is ended."
    )
    handshake_timeout_s: float = Field(
        default=60.0, gt=0, description="How long a worker may take to start and import its engine."
    )
    load_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="How long a load may take, plus what its driver compiles, plus the next.",
    )
    load_timeout_per_gib_s: float = Field(
        default=30.0, ge=0, description="… for every GiB of its files."
    )
    prepare_timeout_s: float = Field(
        default=30.0, gt=0, description="How long one prompt may take to tokenize."
    )
    proof_fresh_s: float = Field(
        default=0.5, ge=0, description="How old a proof of life (a step, a store write) may be."
    )
    proof_timeout_s: float = Field(
        default=3.0, gt=0, description="How long a proof of life may take before it has failed."
    )
    probe_interval_s: float = Field(default=1.0, gt=0, description="How often workers are probed.")
    probe_timeout_s: float = Field(
        default=60.0, gt=0, description="How long a worker may not answer before it is killed."
    )
    silent_s: float = Field(
        default=4.0, gt=0, description="How long one may not answer before we are not ready."
    )
    stopped_timeout_s: float = Field(
        default=15.0,
        gt=0,
        description="How long one that a signal has stopped is waited for before it is killed.",
    )
    stop_grace_s: float = Field(
        default=5.0, ge=0, description="How long a worker may take to stop."
    )
    drain_timeout_s: float = Field(
        default=30.0,
        ge=0,
        description="How long running requests may take to end when the server stops.",
    )
    ended_kept: int = Field(default=1000, ge=0, description="Ended processes `ps` still knows.")
    spare_delay_s: float = Field(
        default=1.0,
        ge=0,
        description="How long after a load the spare starts: its imports take a core.",
    )
    ended_kept_s: float = Field(default=3600.0, ge=0, description="… and for how long, in seconds.")
    warm_spare: bool = Field(
        default=True, description="Keep one started worker per used driver, its engine imported."
    )
