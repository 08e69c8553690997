"""The record of synchronous inferences: one row each, written behind the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class RequestRow(msgspec.Struct, frozen=True):
    """One inference that has ended. Times are UTC in ns; `route` as metrics name it; `outcome` is
    its finish reason, or `failed` with `error_code`, or `cancelled`; `cost` as in `Usage`."""

    request_id: str
    tenant_id: str
    principal_id: str
    model: str
    route: str
    service_class: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    created_ns: int
    ended_ns: int
    outcome: str
    epoch: int
    started_ns: int | None = None
    first_token_ns: int | None = None
    error_code: str | None = None
    cost: float | None = None


class RequestFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first; `after` is the last id of the page before."""

    tenant_id: str | None = None
    after: str | None = None
    limit: int = 100


class RequestLog(Protocol):
    """Write-behind: a row given is on disk a moment later, or lost if the server dies before.
    Nothing here ever makes an inference wait or fail."""

    def record(self, rows: Sequence[RequestRow]) -> None:
        """Take rows in; of more than fit, the oldest are dropped and counted."""
        ...

    async def page(self, query: RequestFilter) -> list[RequestRow]:
        """What is on disk. Raises StorageError."""
        ...
