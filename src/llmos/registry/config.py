"""Limits of the registry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class RegistryConfig(BaseModel):
    """Section `registry`. Sizes in bytes, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hub_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="Base URL of the model hub. Unset: HF_ENDPOINT, else the public hub.",
    )
    hub_token: SecretStr | None = Field(
        default=None, description="Token sent to the hub. Unset: none is, wherever one may lie."
    )
    hub_timeout_s: float = Field(
        default=30.0, gt=0, description="How long one question to the hub may take."
    )
    stall_timeout_s: float = Field(
        default=300.0, gt=0, description="A pull that moves no byte for this long is given up."
    )
    keep_partial_s: float = Field(
        default=3 * 86_400.0,
        ge=0,
        description="How long what came of a broken download is kept to go on from.",
    )
    max_model_bytes: int = Field(
        default=1 << 40, gt=0, description="Largest model, all its files together."
    )
    max_model_files: int = Field(default=1024, gt=0, description="Most files of one model.")
    max_concurrent_pulls: int = Field(
        default=2, gt=0, description="Pulls at work at once; others wait their turn."
    )
    max_waiting_pulls: int = Field(
        default=32, gt=0, description="Pulls that may wait; more are refused."
    )
    egress: list[str] = Field(
        default=["*"],
        description="Hosts that remote models may be at: names, name:port, * for any part. "
        "Link-local addresses (a cloud's metadata) only where a pattern begins to name them.",
    )
