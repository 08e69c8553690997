"""Store calls that may fail for a while: tried again until they are durable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from llmos.errors import DiskFull, LLMOSError, QueueFull, StorageError
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

PASSING = (StorageError, QueueFull)
"""What a disk or a full line may say today and not tomorrow."""


class Disk:
    """Remembers what is wrong with the store until something works again."""

    def __init__(self, min_wait_s: float, max_wait_s: float, metrics: Metrics) -> None:
        self._min_wait_s = min_wait_s
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self.problem: LLMOSError | None = None

    async def once(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Raises what the store raises."""
        begun = time.perf_counter()
        try:
            result = await work()
        except PASSING as error:
            if isinstance(error, StorageError):  # a full line passes by itself
                if self.problem is None:
                    log.warning("the store refused (%s): %s", what, error)
                self.problem = error
            raise
        self.problem = None
        self._metrics.job_writes.labels(what).observe(time.perf_counter() - begun)
        return result

    async def surely(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Until it is done: nothing that was achieved is lost because the disk was full."""
        wait_s = self._min_wait_s
        while True:
            try:
                return await self.once(what, work)
            except PASSING:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._max_wait_s)

    async def with_room(self, work: Callable[[], Awaitable[T]]) -> T:
        """Until the disk is not full any more. Raises what else there is: a worker's own fault
        is no problem of the store's."""
        wait_s = self._min_wait_s
        while True:
            try:
                return await work()
            except DiskFull as full:
                self.problem = full
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._max_wait_s)

    def check(self) -> None:
        """Refuse new work while the store does not take it. Raises what it said last."""
        if self.problem is not None:
            raise type(self.problem)(
                f"the store does not take new work: {self.problem.message}", retry_after_s=1.0
            )

    def works(self) -> None:
        """A write of somebody else's went through."""
        self.problem = None
