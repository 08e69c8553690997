"""A request's stream towards its front end: bounded by credit, ended exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmos.abi.events import Event, Terminal
from llmos.abi.syscall import Emit
from llmos.kernel.front import Call


@dataclass(frozen=True, slots=True)
class Bounds:
    """Undelivered events at which a stream is stalled, and at which it flows again."""

    high: int
    low: int


class Stream:
    """Counts events sent and not yet acknowledged.

    Above `high` the client is stalled, below `low` it reads again; what to do about it is the
    core's. A front end that is gone is not our error: its own end tells the gate.
    """

    def __init__(
        self, call: Call, request_id: str, bounds: Bounds, on_change: Callable[[str, bool], None]
    ) -> None:
        self.call = call
        self.request_id = request_id
        self._bounds = bounds
        self._on_change = on_change
        self._unacked = 0
        self._stalled = False
        self._closed = False

    def deliver(self, event: Event) -> None:
        """Send one event; nothing after the terminal one."""
        if self._closed:
            return
        self._emit(event)
        self._unacked += 1
        if self._unacked > self._bounds.high and not self._stalled:
            self._stalled = True
            self._on_change(self.request_id, True)

    def ack(self, num_events: int) -> None:
        """The client has taken so many. A front end that over-counts only cheats itself."""
        self._unacked = max(0, self._unacked - num_events)
        if self._stalled and self._unacked <= self._bounds.low:
            self._stalled = False
            self._on_change(self.request_id, False)

    def close(self, event: Terminal) -> None:
        """Send the terminal event. The second time is a bug of the caller."""
        assert not self._closed, "a stream ends once"
        self._closed = True
        self._emit(event)

    def _emit(self, event: Event) -> None:
        self.call.front.send(Emit(self.call.number, [event]))
