"""Equal pulls at the same time are one pull with several watchers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from llmos.abi.registry import ModelVersion, PullProgress
from llmos.errors import QueueFull, ShuttingDown

Watch = Callable[[PullProgress], None]


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _end(task: asyncio.Task[ModelVersion]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # retrieved: nobody is left to hear it


class _Flight:
    def __init__(self) -> None:
        self.watchers: list[Watch] = []
        self.task: asyncio.Task[ModelVersion] | None = None

    def tell(self, progress: PullProgress) -> None:
        for watch in list(self.watchers):
            watch(progress)


class Flights:
    """Runs at most `limit` at once; `max_waiting` more wait. The loop's own."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._flights: dict[object, _Flight] = {}
        self._turn = asyncio.Semaphore(limit)
        self._most = limit + max_waiting

    async def join(
        self, key: object, watch: Watch, run: Callable[[Watch], Awaitable[ModelVersion]]
    ) -> ModelVersion:
        """The outcome of `run`, started unless one of the same key is under way.

        Cancelled callers leave; when the last has left, the run is cancelled, and its end awaited.
        """
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._most:
                raise QueueFull(f"{len(self._flights)} pulls are waiting", retry_after_s=10.0)
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._fly(key, flight, run))
        assert flight.task is not None
        flight.watchers.append(watch)
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.task.done() and not _is_cancelling():
                raise ShuttingDown("the pull was given up: the server is stopping") from None
            if flight.watchers == [watch]:
                self._flights.pop(key, None)  # nobody joins a pull that is being given up
                await _end(flight.task)
            raise
        finally:
            flight.watchers.remove(watch)

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        await asyncio.gather(*(_end(task) for task in tasks))

    async def _fly(
        self, key: object, flight: _Flight, run: Callable[[Watch], Awaitable[ModelVersion]]
    ) -> ModelVersion:
        try:
            async with self._turn:
                return await run(flight.tell)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
