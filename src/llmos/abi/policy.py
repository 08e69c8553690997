"""The Policy seam: in which order waiting requests are admitted. Pure."""

from __future__ import annotations

from typing import Protocol

import msgspec

from llmos.abi.principal import ServiceClass


class Waiting(msgspec.Struct, frozen=True):
    """What a policy may know of a waiting request. `arrival` counts arrivals at this kernel."""

    request_id: str
    arrival: int
    service_class: ServiceClass
    nice: int
    tenant_id: str
    principal_id: str
    weight: float
    cost_tokens: int
    deadline_ns: int | None


class Policy(Protocol):
    """A static key per request, so that the queue can be a heap: decided once, at arrival."""

    name: str

    def key(self, waiting: Waiting) -> tuple[float, ...]:
        """Smaller is admitted first. Keys of equal requests must differ by `arrival`."""
        ...
