"""Waiting requests in the policy's order: a heap with lazy removal, O(log n) each way."""

from __future__ import annotations

import heapq


class Queue:
    """Keys are static, so an entry never moves. Removed ids are skipped when they surface."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, ...], str]] = []
        self._live: set[str] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._live

    def push(self, key: tuple[float, ...], request_id: str) -> None:
        heapq.heappush(self._heap, (key, request_id))
        self._live.add(request_id)

    def pop(self) -> str:
        """The first in order. Raises IndexError when empty."""
        self._settle()
        request_id = heapq.heappop(self._heap)[1]
        self._live.discard(request_id)
        return request_id

    def peek(self) -> str:
        """As `pop`, leaving it there."""
        self._settle()
        return self._heap[0][1]

    def remove(self, request_id: str) -> None:
        """Idempotent. Compacts when most of the heap is dead, so that memory stays bounded."""
        self._live.discard(request_id)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):
            self._heap = [entry for entry in self._heap if entry[1] in self._live]
            heapq.heapify(self._heap)

    def _settle(self) -> None:
        while self._heap and self._heap[0][1] not in self._live:
            heapq.heappop(self._heap)
