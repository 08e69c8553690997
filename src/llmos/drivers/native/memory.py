"""What this process holds, and what it may come to hold (`MemoryReport.bound_bytes`).

The bound has four parts: pages of files that are not weights (libraries), what the engine and
Python hold with the scratch of the largest forward and draw on top, the KV to its last page, and
the weights. Copies of the KV of paused requests are in none of them: the kernel counts those.
"""

from __future__ import annotations

import torch

from llmos.abi.driver import MemoryReport
from llmos.drivers.native.kv import KVSlots
from llmos.drivers.native.load import LoadedModel
from llmos.drivers.resident import Resident, read_resident
from llmos.weights.footprint import LIBRARY_BYTES, scratch_bytes


class Accounts:
    """Of one loaded model. `settle` is called where the process is at rest: loaded, nothing run."""

    def __init__(self, loaded: LoadedModel, kv: KVSlots) -> None:
        self._loaded = loaded
        self._kv = kv
        self._scratch_bytes = scratch_bytes(loaded.shape(), kv.num_slots, loaded.context_length)
        self._on_host = loaded.device.type == "cpu"
        self.parked = False
        self.settle()

    def settle(self) -> None:
        """Take the measure that bounds refer to."""
        now = read_resident()
        self._rest_bytes = self._anonymous_bytes(now, 0)
        self._library_bytes = now.file_bytes - self._loaded.weights.resident_bytes()

    def _anonymous_bytes(self, now: Resident, copies_bytes: int) -> int:
        """Memory of no file that is neither KV nor weights."""
        known = copies_bytes + self._loaded.weights.own_bytes
        if self._on_host:
            known += self._kv.touched_bytes
        return max(0, now.anonymous_bytes - known)

    def report(self, copies_bytes: int, used_bytes: int) -> MemoryReport:
        """Counted now. `copies_bytes`: KV outside of the slots; `used_bytes`: KV of requests."""
        now = read_resident()
        weights = self._loaded.weights
        if self.parked:
            # pages of libraries are everybody's, and of files the system takes them when it must
            bound_bytes, weights_bytes = now.anonymous_bytes, 0
        else:
            bound_bytes, weights_bytes = self._bound_bytes(now, copies_bytes), weights.size_bytes
        return MemoryReport(
            rss_bytes=now.rss_bytes,
            weights_bytes=weights_bytes,
            kv_reserved_bytes=self._kv.reserved_bytes + copies_bytes,
            kv_used_bytes=used_bytes,
            bound_bytes=bound_bytes,
            peak_bytes=now.peak_bytes,
            device_bytes=_device_bytes(self._loaded.device),
        )

    def _bound_bytes(self, now: Resident, copies_bytes: int) -> int:
        weights = self._loaded.weights
        engine = max(
            self._anonymous_bytes(now, copies_bytes), self._rest_bytes + self._scratch_bytes
        )
        files = max(now.file_bytes, self._library_bytes + weights.mapped_bytes) + LIBRARY_BYTES
        kv = self._kv.allocated_bytes if self._on_host else 0
        return engine + files + kv + weights.own_bytes


def _device_bytes(device: torch.device) -> int:
    """Of a device that has memory of its own: what the engine took from it."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
