"""A request's stream towards its front end: bounded by credit, ended exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llmos.abi.events import Event, Terminal, Tokens
from llmos.abi.syscall import Accepted, Emit
from llmos.errors import OffsetLost
from llmos.kernel.front import Call


@dataclass(frozen=True, slots=True)
class Bounds:
    """Undelivered events at which a stream is stalled, and at which it flows again."""

    high: int
    low: int


class Kept:
    """The last events of a stream, numbered from 1, for a reader who comes back."""

    def __init__(self, max_events: int, events: Iterable[Event] = (), num_events: int = 0) -> None:
        self._events: deque[Event] = deque(events, maxlen=max_events)
        self.num_events = num_events

    def add(self, event: Event) -> None:
        self._events.append(event)
        self.num_events += 1

    def tokens(self) -> list[Tokens]:
        """Of a stream that has not ended, all that is kept."""
        return [event for event in self._events if isinstance(event, Tokens)]

    def after(self, number: int) -> list[Event]:
        """What follows event `number`. Raises OffsetLost when some of it is no longer kept."""
        missing = self.num_events - number
        if not 0 <= missing <= len(self._events):
            first = self.num_events - len(self._events) + 1
            raise OffsetLost(
                f"the stream can go on after event {first - 1} to {self.num_events}, not {number}",
                details={"first": first, "last": self.num_events},
            )
        return list(self._events)[len(self._events) - missing :]


class Stream:
    """Counts events sent and not yet acknowledged.

    Above `high` the client is stalled, below `low` it reads again; what to do about it is the
    core's. A front end that is gone is not our error: its own end tells the gate. A stream with
    `kept` events may lose its reader (`detach`) and get another one (`attach`).
    """

    def __init__(
        self,
        call: Call | None,
        request_id: str,
        bounds: Bounds,
        on_change: Callable[[str, bool], None],
        kept: Kept | None = None,
    ) -> None:
        self.call: Call | None = call
        self.request_id = request_id
        self.kept = kept
        self.accepted: Accepted | None = None
        self._bounds = bounds
        self._on_change = on_change
        self._unacked = 0
        self._stalled = False
        self._closed = False

    @property
    def is_closed(self) -> bool:
        return self._closed

    def deliver(self, event: Event) -> None:
        """Send one event; nothing after the terminal one."""
        if self._closed:
            return
        self._emit(event)
        if self.call is None:
            return
        self._unacked += 1
        if self._unacked > self._bounds.high and not self._stalled:
            self._stalled = True
            self._on_change(self.request_id, True)

    def ack(self, num_events: int) -> None:
        """The client has taken so many. A front end that over-counts only cheats itself."""
        self._unacked = max(0, self._unacked - num_events)
        if self._stalled and self._unacked <= self._bounds.low:
            self._flow()

    def close(self, event: Terminal) -> None:
        """Send the terminal event. The second time is a bug of the caller."""
        assert not self._closed, "a stream ends once"
        self._closed = True
        self._emit(event)

    def detach(self) -> None:
        """Nobody reads: it goes on into what is kept."""
        self.call = None
        self._unacked = 0
        if self._stalled:
            self._flow()

    def attach(self, call: Call, after: int) -> None:
        """A new reader goes on after event `after`. Raises OffsetLost."""
        assert self.kept is not None, "a stream that keeps nothing has one reader"
        missed = self.kept.after(after)
        self.detach()
        self.call = call
        if missed:
            call.front.send(Emit(call.number, [*missed]))
            self._unacked = len(missed)

    def _flow(self) -> None:
        self._stalled = False
        self._on_change(self.request_id, False)

    def _emit(self, event: Event) -> None:
        if self.kept is not None:
            self.kept.add(event)
        if self.call is not None:
            self.call.front.send(Emit(self.call.number, [event]))
