"""Every bound and time constant of the core, given to it once."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.principal import ServiceClass

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, bytes, tokens and ns.

    `patience_ns`: how long a model waits for room before a busy one is drained for it.
    `shares`: the part of each queue's bounds a class may fill; what it leaves is for higher ones.
    `healthy_ns`: a replica that was ready for so long has proven that its model loads.
    `max_parked`: requests per replica that keep their KV without a row.
    """

    max_waiting: int = 1024
    max_waiting_per_model: int = 512
    max_waiting_tokens: int = 4_000_000
    max_open_per_tenant: int = 1024
    shares: tuple[tuple[ServiceClass, float], ...] = (
        (ServiceClass.BATCH, 0.8),
        (ServiceClass.DEFAULT, 0.95),
        (ServiceClass.INTERACTIVE, 1.0),
    )
    max_parked: int = 32
    memory_budget_bytes: int = 1 << 34
    keep_alive_ns: int = 300 * NS
    stall_timeout_ns: int = 10 * NS
    patience_ns: int = 2 * NS
    min_backoff_ns: int = NS // 2
    max_backoff_ns: int = 60 * NS
    max_start_failures: int = 3
    cooldown_ns: int = 10 * NS
    healthy_ns: int = 60 * NS

    @property
    def max_turned(self) -> int:
        """What turns among equals may leave parked: half, the rest is for higher classes."""
        return -(-self.max_parked // 2)

    def share(self, service_class: ServiceClass) -> float:
        return dict(self.shares)[service_class]
