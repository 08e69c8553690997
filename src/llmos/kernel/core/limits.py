"""Every bound and time constant of the core, given to it once."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.principal import ServiceClass
from llmos.kernel.core.eviction import Eviction

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Counts, bytes and ns.

    `grace_ns`: from being asked to leave to being killed. `evict_idle_ns`: how long a model is
    unused before a job may have its room. `freeze_slice_ns`: what a frozen job runs in any case
    once it was frozen for `freeze_max_ns`. `spare_bytes` 0: no warm worker is kept.
    """

    max_running: int = 2
    max_running_calls: int = 64
    max_deaths: int = 3
    min_backoff_ns: int = NS
    max_backoff_ns: int = 300 * NS
    grace_ns: int = 10 * NS
    evict_idle_ns: int = 10 * NS
    freeze_after_ns: int = NS // 20
    thaw_after_ns: int = NS
    freeze_slice_ns: int = NS // 2
    freeze_max_ns: int = 10 * NS
    spare_bytes: int = 64 << 20
    spare_delay_ns: int = NS

    def backoff_ns(self, num_before: int) -> int:
        """Doubles with every failure before this one."""
        return min(self.min_backoff_ns << min(num_before, 30), self.max_backoff_ns)


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, bytes, tokens and ns.

    `patience_ns`: how long a model waits for room before a busy one is drained for it.
    `shares`: the part of each queue's bounds a class may fill; what it leaves is for higher ones.
    `healthy_ns`: a replica that was ready for so long has proven that its model loads.
    `max_parked`: requests per replica that keep their KV without a row. `max_preemptions`: how
    often higher classes may take a request's row. `min_residency_ns`: what a model that is in use
    has in any case before it makes room. `turn_ns`: how long a request may go on on a replica that
    is to make room for an equal. `room_timeout_ns`: how long a model waits for memory that nobody
    can give. `max_snapshot_memory_bytes`: of snapshots that are not on the disk.
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
    max_preemptions: int = 3
    max_snapshot_memory_bytes: int = 1 << 30
    suspend_retry_ns: int = 5 * NS
    min_residency_ns: int = 2 * NS
    turn_ns: int = NS
    room_timeout_ns: int = 60 * NS
    parking: bool = True
    eviction: Eviction = Eviction.COST
    device_budgets: tuple[tuple[str, int], ...] = ()
    memory_budget_bytes: int = 1 << 34
    keep_alive_ns: int = 300 * NS
    stall_timeout_ns: int = 10 * NS
    patience_ns: int = 2 * NS
    min_backoff_ns: int = NS // 2
    max_backoff_ns: int = 60 * NS
    max_start_failures: int = 3
    cooldown_ns: int = 10 * NS
    healthy_ns: int = 60 * NS
    jobs: JobLimits = JobLimits()

    @property
    def max_turned(self) -> int:
        """What turns among equals may leave parked: half, the rest is for higher classes."""
        return -(-self.max_parked // 2)

    def share(self, service_class: ServiceClass) -> float:
        return dict(self.shares)[service_class]
