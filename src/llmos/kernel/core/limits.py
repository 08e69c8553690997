"""Every bound and time constant of the core, given to it once."""

from __future__ import annotations

from dataclasses import dataclass

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, bytes and ns.

    `patience_ns`: how long a model waits for room before a busy one is drained for it.
    """

    max_waiting: int = 1024
    max_waiting_per_model: int = 512
    memory_budget_bytes: int = 1 << 34
    keep_alive_ns: int = 300 * NS
    stall_timeout_ns: int = 10 * NS
    patience_ns: int = 2 * NS
    min_backoff_ns: int = NS // 2
    max_backoff_ns: int = 60 * NS
    max_start_failures: int = 3
    cooldown_ns: int = 10 * NS
