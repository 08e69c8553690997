"""What the page Overview says of a server: speed, queues, memory, and what needs somebody."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmos.abi.memory import DeviceMemory, Holding, MemoryInfo
from llmos.abi.principal import ServiceClass
from llmos.abi.syscall import ReplicaInfo, StatusInfo
from llmos.sdk.draw import amounts
from llmos.sdk.draw.charts import NUM_COLORS, Part, Point

CLASSES = tuple(c.name.lower() for c in sorted(ServiceClass, reverse=True))
NUM_POINTS = 180
FULL = 0.95
LOW_DISK_BYTES = 2 << 30
MAX_PARTS = 8


class SpeedLog:
    """Tokens a second between looks, the last `NUM_POINTS` of them."""

    def __init__(self) -> None:
        self._before: tuple[float, int, int] | None = None
        self.points: deque[Point] = deque(maxlen=NUM_POINTS)

    def look(self, status: StatusInfo, now_s: float) -> float | None:
        """The speed since the look before. A server that began anew has no before."""
        before, self._before = self._before, (now_s, status.num_tokens, status.epoch)
        if before is None or before[2] != status.epoch or now_s <= before[0]:
            return None
        speed = max(0.0, (status.num_tokens - before[1]) / (now_s - before[0]))
        self.points.append((now_s, speed))
        return speed


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that needs somebody: `bad` or `warn`, a text's key and what goes into it."""

    level: str
    key: str
    fields: dict[str, object] = field(default_factory=dict)


def alerts(
    status: StatusInfo, memory: MemoryInfo | None, replicas: Sequence[ReplicaInfo]
) -> list[Alert]:
    """The worst first."""
    found = [Alert("bad", "alert.problem", {"what": problem}) for problem in status.problems]
    for replica in replicas:
        if replica.state == "failed":
            fields: dict[str, object] = {"model": replica.model, "why": replica.reason}
            found.append(Alert("bad", "alert.failed", fields))
        elif replica.num_restarts:
            fields = {"model": replica.model, "num": replica.num_restarts}
            found.append(Alert("warn", "alert.restarted", fields))
        found += [
            Alert("warn", "alert.slow", {"model": replica.model, "why": warning})
            for warning in replica.warnings
        ]
    if memory is not None:
        found += _memory_alerts(memory)
    return sorted(found, key=lambda alert: alert.level != "bad")


def _memory_alerts(memory: MemoryInfo) -> list[Alert]:
    found = [
        Alert(
            "warn",
            "alert.lacking",
            {"model": lack.model, "need": amounts.size(lack.need_bytes), "why": lack.reason},
        )
        for lack in memory.lacking
    ]
    for device in memory.devices:
        if device.budget_bytes and device.reserved_bytes >= FULL * device.budget_bytes:
            share = f"{100 * device.reserved_bytes / device.budget_bytes:.0f} %"
            found.append(Alert("warn", "alert.full", {"device": device.device, "share": share}))
    if 0 < memory.disk_free_bytes < LOW_DISK_BYTES:
        free = amounts.size(memory.disk_free_bytes)
        found.append(Alert("bad", "alert.disk", {"free": free}))
    return found


def ledger(device: DeviceMemory, free: str, others: str) -> list[Part]:
    """Who holds how much of a device's budget, most first, the smallest together; then what is
    free, which is called `free`."""
    held = sorted(device.holdings, key=lambda h: -h.reserved_bytes)
    held = [holding for holding in held if holding.reserved_bytes > 0]
    parts = [
        Part(_name(h), h.reserved_bytes, amounts.size(h.reserved_bytes), f"c{place + 1}")
        for place, h in enumerate(held[: NUM_COLORS - 1])
    ]
    rest_bytes = sum(h.reserved_bytes for h in held[NUM_COLORS - 1 :])
    if rest_bytes:
        parts.append(Part(others, rest_bytes, amounts.size(rest_bytes), f"c{NUM_COLORS}"))
    free_bytes = device.budget_bytes - device.reserved_bytes
    if free_bytes > 0:
        parts.append(Part(free, free_bytes, amounts.size(free_bytes), "free"))
    return parts


def _name(holding: Holding) -> str:
    return f"{holding.what or holding.owner} · {holding.kind}"
