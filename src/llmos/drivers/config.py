"""Where engines are that do not share our environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class DriversConfig(BaseModel):
    """Section `drivers`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vllm_python: Path | None = Field(
        default=None,
        description="The interpreter of the environment that vLLM is installed in. Unset: it is "
        "looked for in ours.",
    )
