"""Every limit of the HTTP edge, with its unit."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import ConfigDict, Field

MIB = 1024 * 1024
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ApiConfig(pydantic.BaseModel):
    """Section `api` of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = Field(default="127.0.0.1", description="Address to listen on; loopback by default.")
    port: int = Field(default=8400, ge=0, le=65_535, description="TCP port; 0 takes a free one.")
    max_connections: int = Field(
        default=4096, ge=1, description="Open connections; one more gets 503."
    )
    max_header_bytes: int = Field(
        default=32_768, ge=1024, description="Request line and headers of one request, in bytes."
    )
    max_body_bytes: int = Field(default=8 * MIB, ge=1024, description="A JSON body, in bytes.")
    max_upload_bytes: int = Field(
        default=64 * 1024 * MIB, ge=1, description="One uploaded file, in bytes."
    )
    max_tenant_uploads: int = Field(
        default=8, ge=1, description="Files that one tenant may upload at once; above it: 429."
    )
    max_messages: int = Field(default=4096, ge=1, description="Messages of one chat request.")
    max_prompts: int = Field(default=32, ge=1, description="Prompts of one completions request.")
    max_prompt_tokens: int = Field(default=1_048_576, ge=1, description="Token ids of one prompt.")
    max_media_bytes: int = Field(
        default=25 * MIB, ge=1024, description="An image or a recording to work on, in bytes."
    )
    max_images: int = Field(default=16, ge=1, description="Images of one chat request.")
    header_timeout_s: Seconds = Field(
        default=15.0, description="From connecting, or from the last answer, to complete headers."
    )
    keepalive_timeout_s: Seconds = Field(
        default=60.0, description="How long an idle connection is kept open for another request."
    )
    body_timeout_s: Seconds = Field(
        default=30.0,
        description="A JSON body must have arrived after this; an upload may pause so long.",
    )
    linger_timeout_s: Seconds = Field(
        default=5.0, description="How long the rest of a refused body is read and thrown away."
    )
    write_timeout_s: Seconds = Field(
        default=60.0,
        description="A connection whose client reads nothing for this long is aborted.",
    )
    health_timeout_s: Seconds = Field(
        default=4.0, description="The gate must answer Health within this."
    )
    log_interval_s: Seconds = Field(
        default=0.5, description="Who follows the server's log has a new line after this."
    )
    max_log_followers: int = Field(
        default=8, ge=1, description="Who may follow the server's log at once; above it: 429."
    )
    keepalive_comment_s: Seconds = Field(
        default=10.0,
        description="A silent stream sends a comment this often, so proxies keep it open.",
    )
    graceful_timeout_s: Seconds = Field(
        default=20.0, description="How long a stopping server waits for answers under way."
    )

    @property
    def max_inline_image_bytes(self) -> int:
        """Of an image that fits into a JSON body, in base64, beside a conversation's words."""
        room_bytes = min(MIB, self.max_body_bytes // 4)
        return min(self.max_media_bytes, (self.max_body_bytes - room_bytes) * 3 // 4)
