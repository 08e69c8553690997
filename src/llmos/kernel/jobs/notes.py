"""The kernel's own words in jobs' logs: each decision with its reason, soon on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from llmos.abi.jobs import JobStore, NewEvent
from llmos.kernel.jobs.disk import Disk

MAX_PENDING = 4096
"""Notes that wait for the disk; above it the oldest are dropped: the records tell the rest."""


class Notes:
    """One task while there is something to write. `written(job_id)` whenever a log has grown."""

    def __init__(self, store: JobStore, disk: Disk, written: Callable[[str], None]) -> None:
        self._store = store
        self._disk = disk
        self._written = written
        self._pending: list[tuple[str, NewEvent]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, job_id: str, state: str, reason: str) -> None:
        """A decision about it."""
        event = NewEvent(time.time_ns(), "state", {"state": state, "reason": reason})
        self._pending.append((job_id, event))
        if len(self._pending) > MAX_PENDING:
            del self._pending[0]
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def drain(self) -> None:
        """Returns when all notes so far are on disk."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _write(self) -> None:
        while self._pending:
            taken, self._pending = self._pending, []
            by_job: dict[str, list[NewEvent]] = {}
            for job_id, event in taken:
                by_job.setdefault(job_id, []).append(event)
            await asyncio.gather(*(self._note(*item) for item in by_job.items()))

    async def _note(self, job_id: str, events: list[NewEvent]) -> None:
        await self._disk.surely("note", lambda: self._store.note(job_id, events))
        self._written(job_id)
