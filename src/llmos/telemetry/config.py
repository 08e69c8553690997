"""Settings of telemetry."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TelemetryConfig(BaseModel):
    """What is logged."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level written to logs/llmos.log."
    )
