"""What memory is really there: measured, less what was promised, and told to the core."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from llmos.abi.node import NodeAgent
from llmos.kernel.config import KernelConfig
from llmos.kernel.core.events import CoreEvent, MemoryMeasured
from llmos.kernel.core.replica import HOST
from llmos.kernel.core.state import State
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

HURRY_S = 0.05
"""Between two measurements while a model waits for memory that is being given back."""


class MemoryWatch:
    """Measures now and then, and at once when bytes came free. `available` is by device, None
    where the probe had no answer: then nothing more is given out there."""

    def __init__(
        self,
        node: NodeAgent,
        workers: Workers,
        state: State,
        post: Callable[[CoreEvent], None],
        *,
        config: KernelConfig,
        metrics: Metrics,
    ) -> None:
        self._node = node
        self._workers = workers
        self._state = state
        self._post = post
        self._config = config
        self._metrics = metrics
        self._soon = asyncio.Event()
        self.available: dict[str, int | None] = {}
        self.total: dict[str, int] = {}

    def look_soon(self) -> None:
        """Something has given back memory."""
        self._soon.set()

    async def run(self) -> None:
        """For as long as the kernel lives."""
        while True:
            interval_s = HURRY_S if self._state.lacking else self._config.probe_interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._soon.wait()
            self._soon.clear()
            try:
                await self.look()
            except Exception:  # without measurements nothing more would ever be given out
                log.exception("memory could not be measured")

    async def look(self) -> None:
        """Now."""
        measured = self._node.measure()
        self.total[HOST], self.available[HOST] = measured.total_bytes, measured.available_bytes
        if len(self._state.ledgers) > 1:
            for found in await self._node.devices():
                self.total[found.name] = found.total_bytes
                self.available[found.name] = found.available_bytes
        headroom = {device: self._headroom(device) for device in self._state.ledgers}
        for device, available in self.available.items():
            self._metrics.available_bytes.labels(device).set(-1 if available is None else available)
        self._post(MemoryMeasured(headroom))

    def _headroom(self, device: str) -> int:
        available = self.available.get(device)
        if available is None:
            return 0
        if device != HOST:
            return available - self._promised(device, {})
        return (
            available - self._config.memory_floor_bytes - self._promised(device, self._resident())
        )

    def _resident(self) -> dict[str, int]:
        """By ledger owner, what its worker has of the host already."""
        return self._workers.resident_bytes() | dict(self._workers.program_rss())

    def _promised(self, device: str, resident: dict[str, int]) -> int:
        """Reserved, and not taken yet: a replica that loads, KV that no request has filled."""
        ledger, promised = self._state.ledgers[device], 0
        for owner, size in ledger.owners().items():
            if owner.startswith("snapshot:"):
                continue  # a file in memory: it is written, and measured
            held = resident.get(owner, size if device != HOST else 0)
            promised += max(0, size - held)
        return promised
