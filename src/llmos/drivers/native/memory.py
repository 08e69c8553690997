"""What this process holds, and what it may come to hold (`MemoryReport.bound_bytes`).

The bound has four parts: pages of files that are not weights (libraries), what the engine and
Python hold with the scratch of the largest forward and draw on top, the KV to its last page, and
the weights. Copies of the KV of paused requests are in none of them: the kernel counts those.
"""

from __future__ import annotations

from typing import Protocol

import torch

from llmos.abi.driver import MemoryReport
from llmos.drivers.resident import Resident, read_resident
from llmos.weights.footprint import LIBRARY_BYTES


class HeldWeights(Protocol):
    """Bytes of all weights, of those in mappings of files, of those in memory of their own."""

    size_bytes: int
    mapped_bytes: int
    own_bytes: int

    def resident_bytes(self) -> int:
        """Of the mappings."""
        ...


class HeldKV(Protocol):
    """Bytes of a KV pool: for tokens, with padding, and what has been written to."""

    @property
    def reserved_bytes(self) -> int: ...

    @property
    def allocated_bytes(self) -> int: ...

    @property
    def touched_bytes(self) -> int: ...


class Accounts:
    """Of one loaded model. `settle` is called where the process is at rest: loaded, nothing run.

    `scratch_bytes`: what work takes beside weights and KV, and is not held at rest.
    """

    def __init__(
        self, weights: HeldWeights, kv: HeldKV, device: torch.device, scratch_bytes: int
    ) -> None:
        self._weights = weights
        self._kv = kv
        self._device = device
        self._scratch_bytes = scratch_bytes
        self._on_host = device.type == "cpu"
        self.parked = False
        self.settle()

    def settle(self) -> None:
        """Take the measure that bounds refer to."""
        now = read_resident()
        self._rest_bytes = self._anonymous_bytes(now, 0)
        self._library_bytes = now.file_bytes - self._weights.resident_bytes()

    def _anonymous_bytes(self, now: Resident, copies_bytes: int) -> int:
        """Memory of no file that is neither KV nor weights."""
        known = copies_bytes + self._weights.own_bytes
        if self._on_host:
            known += self._kv.touched_bytes
        return max(0, now.anonymous_bytes - known)

    def report(self, copies_bytes: int, used_bytes: int, cached_bytes: int = 0) -> MemoryReport:
        """Counted now. `copies_bytes`: KV outside of the pool; `used_bytes`: KV of requests;
        `cached_bytes`: of nobody, kept for whoever begins alike."""
        now = read_resident()
        weights = self._weights
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
            kv_cached_bytes=cached_bytes,
            bound_bytes=bound_bytes,
            peak_bytes=now.peak_bytes,
            device_bytes=_device_bytes(self._device),
        )

    def _bound_bytes(self, now: Resident, copies_bytes: int) -> int:
        weights = self._weights
        engine = max(
            self._anonymous_bytes(now, copies_bytes), self._rest_bytes + self._scratch_bytes
        )
        files = max(now.file_bytes, self._library_bytes + weights.mapped_bytes) + LIBRARY_BYTES
        kv = self._kv.allocated_bytes if self._on_host else 0
        return engine + files + kv + weights.own_bytes


def _device_bytes(device: torch.device) -> int:
    """Of a device that has memory of its own: what the engine took from it."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
