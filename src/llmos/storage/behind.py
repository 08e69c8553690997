"""What is kept in memory and written soon: one task that flushes, again where a write failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class WriteBehind:
    """On one loop. `flush` writes all there is, and says whether it could.

    `window_s`: how long what comes together is gathered; `retry_s`: the rest after a failure.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[], Awaitable[bool]],
        window_s: float = 0.0,
        retry_s: float = 0.0,
    ) -> None:
        self._name = name
        self._flush = flush
        self._window_s, self._retry_s = window_s, retry_s
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is something to write. Call it on the loop."""
        self._came.set()
        if self._task is None:
            self._task = asyncio.create_task(self._flush_for_ever(), name=self._name)

    async def close(self) -> None:
        """Write what is left, if that is possible. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._flush()

    async def _flush_for_ever(self) -> None:
        while True:
            await self._came.wait()
            await asyncio.sleep(self._window_s)
            self._came.clear()
            flushing = asyncio.ensure_future(self._flush())
            try:
                done = await asyncio.shield(flushing)
            except asyncio.CancelledError:
                await flushing
                raise
            if not done:
                self._came.set()
                await asyncio.sleep(self._retry_s)
