"""Settings of telemetry."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TelemetryConfig(BaseModel):
    """What is logged, traced and estimated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level written to logs/llmos.log."
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How warnings are written to stderr: lines for people, or JSON as in the file.",
    )
    log_requests: bool = Field(
        default=False, description="A line in the log for each request that has ended."
    )
    traces: Literal["off", "file", "otlp"] = Field(
        default="off",
        description="Where spans go: nowhere, logs/traces.jsonl, or a collector (extra `otel`).",
    )
    traces_url: str = Field(
        default="http://127.0.0.1:4318/v1/traces",
        pattern=r"^https?://[^\s/]+",
        description="Of the collector, for OTLP over HTTP.",
    )
    traces_timeout_s: float = Field(
        default=10.0, gt=0, le=600, description="For one export to the collector, retries included."
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of requests traced whose caller has not decided by a `traceparent`.",
    )
    trace_steps: int = Field(
        default=32, ge=0, le=4096, description="Engine steps shown of one traced request."
    )
    watts_per_core: float = Field(
        default=7.0,
        ge=0,
        le=1000,
        description="Of a busy core: what energy is estimated by where no counter can be read.",
    )
