"""Every limit of the console, with its unit."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024
Seconds = Annotated[float, Field(gt=0, le=604_800)]


class ConsoleConfig(BaseModel):
    """Section `console` of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(default=True, description="Serve the web console at `/`.")
    session_s: Seconds = Field(
        default=43_200.0, description="How long a person stays logged in, in seconds."
    )
    refresh_s: Seconds = Field(
        default=1.0, description="A live page asks again after this, or later if asking is dear."
    )
    max_core_share: float = Field(
        default=0.01, gt=0, le=1, description="What one live page may take of one core."
    )
    paint_s: Seconds = Field(
        default=0.1, description="A streamed answer is drawn again after this, in seconds."
    )
    max_message_chars: int = Field(default=100_000, ge=1, description="One message of a chat.")
    max_transcript_chars: int = Field(
        default=400_000,
        ge=0,
        le=900_000,
        description="Of a chat, kept at most in the browser's tab; 0: a reload forgets it.",
    )
    max_upload_bytes: int = Field(
        default=64 * MIB, ge=1024, description="A file given to the console, in bytes."
    )
