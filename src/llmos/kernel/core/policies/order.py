"""An indexed heap of waiting requests under static keys, and what a key is made of."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

from llmos.abi.policy import Waiting

Key = tuple[float, ...]

RETURN_STEPS = 6
"""Points of nice that having run counts as at most: 3 s at half a second each."""

LEAD_STEPS = 20
"""Points of nice that a deadline counts as at most: what the nicest one could ask for."""


class Order(Protocol):
    """A policy without classes: who is next among equals in class.

    `takes_turns`: who has run a slice gives its row to an equal that waits.
    """

    takes_turns: bool

    def __len__(self) -> int: ...

    def __contains__(self, request_id: str) -> bool: ...

    def join(self, waiting: Waiting) -> None: ...

    def leave(self, waiting: Waiting) -> None: ...

    def push(self, waiting: Waiting) -> None: ...

    def remove(self, request_id: str) -> None: ...

    def peek(self) -> Waiting: ...

    def pop(self) -> Waiting: ...

    def charge(self, waiting: Waiting, tokens: float) -> None: ...

    def prefers(self, waiting: Waiting, running: Waiting, is_over: bool) -> str | None:
        """Why `waiting` should have the row of `running` now, or None.

        `is_over`: its slice is; else it has had the quarter of one that it has in any case.
        """
        ...

    def num_ahead(self, newcomer: Waiting) -> int:
        """About how many of those that wait have a row before a newcomer. O(1)."""
        ...


class KeyOrder:
    """By a key computed once, at `push`. Removed entries are skipped when they surface.

    The key is static, so nothing is ever re-sorted: ageing is part of it, not a sweep.
    """

    takes_turns = False

    def __init__(self, key: Callable[[Waiting], Key]) -> None:
        self._key = key
        self._heap: list[tuple[Key, int, Waiting]] = []
        self._live: dict[str, int] = {}
        self._num_pushed = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._live

    def join(self, waiting: Waiting) -> None:
        """Only the queue counts."""

    def leave(self, waiting: Waiting) -> None:
        """Only the queue counts."""

    def push(self, waiting: Waiting) -> None:
        self._num_pushed += 1
        self._live[waiting.request_id] = self._num_pushed
        heapq.heappush(self._heap, (self._key(waiting), self._num_pushed, waiting))

    def remove(self, request_id: str) -> None:
        """Compacts when most of the heap is dead, so that memory stays bounded."""
        self._live.pop(request_id, None)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):
            self._heap = [e for e in self._heap if self._live.get(e[2].request_id) == e[1]]
            heapq.heapify(self._heap)

    def peek(self) -> Waiting:
        self._settle()
        return self._heap[0][2]

    def pop(self) -> Waiting:
        self._settle()
        waiting = heapq.heappop(self._heap)[2]
        del self._live[waiting.request_id]
        return waiting

    def charge(self, waiting: Waiting, tokens: float) -> None:
        """Service does not change the order."""

    def prefers(self, waiting: Waiting, running: Waiting, is_over: bool) -> str | None:
        """Who has a row keeps it."""
        return None

    def num_ahead(self, newcomer: Waiting) -> int:
        """All: nice and deadlines are left out of the estimate."""
        return len(self)

    def _settle(self) -> None:
        while self._heap and self._live.get(self._heap[0][2].request_id) != self._heap[0][1]:
            heapq.heappop(self._heap)


def due_key(nice_step_ns: int) -> Callable[[Waiting], Key]:
    """When it is due: once it is ready, shifted by nice, no later than its deadline allows.

    A deadline moves it no further than nice -20 would, however long it is to take: so nobody is
    overtaken by more than nice alone may do.

    Having run counts like being nice, as in the first Unix schedulers and in multilevel feedback
    (Corbató et al., 1962): who comes back lets those pass that come meanwhile, for as long as it
    has run. So what is short gets through beside what is long, and nobody need know which is which.
    """
    longest_ns = RETURN_STEPS * nice_step_ns

    def key(waiting: Waiting) -> Key:
        due_ns = waiting.ready_ns + waiting.nice * nice_step_ns
        due_ns += min(waiting.ran_ns, longest_ns)
        if waiting.start_by_ns is not None:
            earliest_ns = waiting.ready_ns - LEAD_STEPS * nice_step_ns
            due_ns = min(due_ns, max(waiting.start_by_ns, earliest_ns))
        return (due_ns, waiting.arrival)

    return key
