"""The virtual clock: what will happen, in the order of its time and then of its planning."""

from __future__ import annotations

import heapq
from collections.abc import Callable

START_NS = 1_000_000_000
"""Not 0, so that no time is false."""


class Agenda:
    """A heap of things to do. `now_ns` moves only in `next`."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._num_planned = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due_ns: int, what: Callable[[], object]) -> None:
        """Not before now."""
        self._num_planned += 1
        heapq.heappush(self._heap, (max(due_ns, self.now_ns), self._num_planned, what))

    def after(self, delay_ns: int, what: Callable[[], object]) -> None:
        self.at(self.now_ns + delay_ns, what)

    def next(self) -> Callable[[], object]:
        """Move the clock to what is due first, and hand it over. Raises IndexError."""
        self.now_ns, _, what = heapq.heappop(self._heap)
        return what
