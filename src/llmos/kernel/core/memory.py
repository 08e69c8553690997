"""The ledger of reserved bytes, and the plan that makes room."""

from __future__ import annotations

from collections.abc import Iterable

from llmos.kernel.core.replica import Replica


class Ledger:
    """reserve → shrink to measured → release; the sum never exceeds the budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._reserved: dict[str, int] = {}
        self.reserved_bytes = 0

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.reserved_bytes

    def reserve(self, replica_id: str, size_bytes: int) -> None:
        """Over-commit is a bug of the caller, who looked at `free_bytes` first."""
        assert size_bytes <= self.free_bytes, "over-commit"
        assert replica_id not in self._reserved, "reserved twice"
        self._reserved[replica_id] = size_bytes
        self.reserved_bytes += size_bytes

    def shrink(self, replica_id: str, size_bytes: int) -> int:
        """To what was measured, never above what was reserved. What stays reserved."""
        held = self._reserved[replica_id]
        kept = min(held, size_bytes)
        self._reserved[replica_id] = kept
        self.reserved_bytes -= held - kept
        return kept

    def release(self, replica_id: str) -> None:
        self.reserved_bytes -= self._reserved.pop(replica_id)


def plan_room(need_bytes: int, free_bytes: int, idle: Iterable[Replica]) -> list[Replica] | None:
    """Idle replicas to stop so that `need_bytes` fit, longest idle first; None: not by these.

    A replica that is not needed once a later, bigger one has been taken is spared.
    """
    missing = need_bytes - free_bytes
    victims: list[Replica] = []
    for replica in sorted(idle, key=lambda r: (r.idle_since_ns, r.replica_id)):
        if missing <= 0:
            break
        victims.append(replica)
        missing -= replica.reserved_bytes
    if missing > 0:
        return None
    for replica in sorted(victims, key=lambda r: r.reserved_bytes):
        if missing + replica.reserved_bytes <= 0:
            victims.remove(replica)
            missing += replica.reserved_bytes
    return victims
