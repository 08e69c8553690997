"""Counts from outside who holds how many bytes, by what the core is told and what it decides."""

from __future__ import annotations

from collections.abc import Mapping

from llmos.kernel.core import events as ev
from llmos.kernel.core.holdings import HEADER_BYTES
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.replica import HOST, ModelFacts
from llmos.kernel.sim.demand import demand


class Tally:
    """By device and owner. What is given fits, whoever may have swollen meanwhile.

    `headroom`: at most what was measured of each device, less what was given out since.
    """

    def __init__(self, limits: Limits) -> None:
        self.budgets = {HOST: limits.memory_budget_bytes, **dict(limits.device_budgets)}
        self.held: dict[str, dict[str, int]] = {device: {} for device in self.budgets}
        self.headroom: dict[str, int] = {}
        self._learned: dict[str, dict[str, int]] = {}
        self._limits = limits

    def free_bytes(self, device: str) -> int:
        return self.budgets[device] - sum(self.held[device].values())

    def needs(self, model: ModelFacts) -> dict[str, int]:
        """What a replica of it is known to need."""
        return self._learned.get(model.model_id) or model.needs

    def give(self, owner: str, sizes: Mapping[str, int]) -> None:
        """Decided: to these sizes, of which it may hold some already."""
        for device, size in sizes.items():
            more = size - self.held[device].get(owner, 0)
            demand(more >= 0, "it grows to less")
            demand(more <= max(0, self.free_bytes(device)), f"more bytes than there are, {owner}")
            left = self.headroom.get(device)
            if left is not None:
                demand(more <= max(0, left), f"more bytes than were measured to be there, {owner}")
                self.headroom[device] = left - more
            self.held[device][owner] = size

    def free(self, owner: str) -> None:
        for held in self.held.values():
            held.pop(owner, None)

    def is_held(self, owner: str) -> bool:
        return any(owner in held for held in self.held.values())

    def bound(self, replica_id: str, model: ModelFacts, host_bytes: int, device_bytes: int) -> None:
        """Measured: it is that, be it less or more."""
        for device, size in _by_device(model, host_bytes, device_bytes).items():
            if replica_id in self.held[device]:
                self.measure(replica_id, device, size)

    def measure(self, owner: str, device: str, size: int) -> None:
        more = size - self.held[device][owner]
        if more > 0 and device in self.headroom:
            self.headroom[device] -= more
        self.held[device][owner] = size

    def learn(self, model: ModelFacts, event: ev.ReplicaUp) -> None:
        """A fiftieth more than was measured, but for that alone not more than was estimated."""
        host_bytes = max(event.used_bytes, event.peak_bytes)
        self._learned[model.model_id] = self._margin(model, host_bytes, event.device_used_bytes)

    def learn_more(self, model: ModelFacts, event: ev.ReplicaMeasured) -> None:
        found = self._margin(model, event.used_bytes, event.device_used_bytes)
        known = self.needs(model)
        self._learned[model.model_id] = {d: max(known.get(d, 0), found[d]) for d in found}

    @staticmethod
    def _margin(model: ModelFacts, host_bytes: int, device_bytes: int) -> dict[str, int]:
        estimate = model.needs
        measured = _by_device(model, host_bytes, device_bytes)
        return {
            device: max(size, min(size * 51 // 50, estimate.get(device, 0)))
            for device, size in measured.items()
        }

    # what requests hold

    def pause(
        self, request_id: str, model: ModelFacts, num_tokens: int, *, is_forced: bool
    ) -> None:
        """Its KV stays beside the rows. `is_forced`: whether there is room or not."""
        size = num_tokens * model.kv_bytes_per_token
        if f"kv:{request_id}" in self.held[model.device]:
            return  # it was paused before, and could not leave
        if is_forced and size > self.free_bytes(model.device):
            return
        if is_forced and model.device in self.headroom:
            self.headroom[model.device] = max(size, self.headroom[model.device])
        if size:
            self.give(f"kv:{request_id}", {model.device: size})

    def write(self, owner: str, model: ModelFacts, num_tokens: int) -> None:
        """A snapshot, in memory."""
        self.give(owner, {HOST: HEADER_BYTES + num_tokens * model.kv_bytes_per_token})
        held = self.held[HOST]
        snapshots = sum(size for o, size in held.items() if o.startswith("snapshot:"))
        most = self._limits.max_snapshot_memory_bytes
        demand(snapshots <= most, "too much of snapshots in memory")


def _by_device(model: ModelFacts, host_bytes: int, device_bytes: int) -> dict[str, int]:
    if model.device == HOST:
        return {HOST: host_bytes}
    return {HOST: host_bytes, model.device: device_bytes}
