"""Limits of the security package."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SecurityConfig(BaseModel):
    """Section `security`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_keys: int = Field(default=10_000, gt=0, description="Most keys that are not revoked.")
