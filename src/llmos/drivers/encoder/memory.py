"""What this process holds, and what it may come to hold."""

from __future__ import annotations

import torch

from llmos.abi.driver import MemoryReport
from llmos.drivers.encoder.load import Loaded
from llmos.drivers.resident import read_resident
from llmos.weights.footprint import LIBRARY_BYTES
from llmos.weights.itemscratch import item_scratch_bytes


class Accounts:
    """Of one loaded model, made where the process is at rest: loaded, nothing run."""

    def __init__(self, loaded: Loaded) -> None:
        self._device = loaded.device
        self._weights_bytes = loaded.weights_bytes
        config = loaded.config
        scratch = item_scratch_bytes(
            int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 1)),
            int(getattr(config, "vocab_size", 0) or 0),
            loaded.dtype.itemsize,
        )
        self._bound_bytes = read_resident().rss_bytes + scratch + LIBRARY_BYTES

    def report(self) -> MemoryReport:
        """Counted now."""
        now = read_resident()
        on_device = self._device.type == "cuda"
        return MemoryReport(
            rss_bytes=now.rss_bytes,
            weights_bytes=self._weights_bytes,
            bound_bytes=max(now.rss_bytes, self._bound_bytes),
            peak_bytes=now.peak_bytes,
            device_bytes=torch.cuda.memory_reserved(self._device) if on_device else 0,
        )
