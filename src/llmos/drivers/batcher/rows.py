"""Who is in the engine's batch, who waits, who is paused."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from llmos.drivers.batcher.engine import Engine, Row


class Rows:
    """At most `num_slots` rows are the engine's; of a row that is paused it knows nothing: its keys
    and values are computed again, but for what the engine has cached."""

    def __init__(self, engine: Engine, num_slots: int) -> None:
        self._engine = engine
        self._num_slots = num_slots
        self._running: dict[str, Row] = {}
        self._waiting: deque[Row] = deque()
        self._paused: dict[str, Row] = {}

    def __iter__(self) -> Iterator[Row]:
        """Those that run."""
        return iter(list(self._running.values()))

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_paused(self) -> int:
        return len(self._paused)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def can_move(self) -> bool:
        """Without the engine: somebody has a token to say, or can be seated."""
        has_seat = bool(self._waiting) and len(self._running) < self._num_slots
        return has_seat or any(row.unsaid or row.error for row in self._running.values())

    def find(self, request_id: str) -> Row | None:
        """The row, wherever it is."""
        found = self._running.get(request_id) or self._paused.get(request_id)
        return found or next((r for r in self._waiting if r.request_id == request_id), None)

    def add(self, row: Row) -> None:
        """Stand in line."""
        self._waiting.append(row)

    def fill(self) -> None:
        """Seat those who wait, first come first."""
        while self._waiting and len(self._running) < self._num_slots:
            row = self._waiting.popleft()
            self._running[row.request_id] = row
            if row.num_left > 0:
                self._engine.add(row)

    def remove(self, row: Row) -> None:
        """Leave, from wherever it is."""
        if self._running.pop(row.request_id, None) is not None:
            self._engine.drop(row)
        elif self._paused.pop(row.request_id, None) is None:
            self._waiting.remove(row)

    def pause(self, request_id: str) -> None:
        """Unknown ids are ignored, as by `unpause`."""
        if request_id not in self._paused and (row := self.find(request_id)):
            self.remove(row)
            self._paused[request_id] = row

    def unpause(self, request_id: str) -> None:
        if row := self._paused.pop(request_id, None):
            self._waiting.append(row)
