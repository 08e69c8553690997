"""Settings of tracking."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SinkName = Literal["mlflow", "tensorboard", "wandb"]


class TrackingConfig(BaseModel):
    """Where else runs are told of. Each sink writes below `LLMOS_HOME/tracking`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sinks: list[SinkName] = Field(
        default=[], description="mlflow (SQLite), tensorboard, wandb (offline); each an extra."
    )
    programs: list[str] = Field(
        default=["train", "evaluate"], description="Whose jobs are runs.", max_length=100
    )
    interval_s: float = Field(
        default=2.0, gt=0, le=3600, description="Seconds from one look at the jobs to the next."
    )
