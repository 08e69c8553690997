"""Recounts what the core says of a request's time: the reasons of its rows, its last account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmos.abi.events import Failed, Finished
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.sim.demand import demand

NS = 1_000_000_000


@dataclass(slots=True)
class Times:
    """Of one accepted request, in ns. `away_ns`: how long it was without its row in between."""

    arrived_ns: int
    ready_ns: int
    service_ns: float
    started_ns: int | None = None
    first_ns: int | None = None
    left_ns: int = 0
    away_ns: int = 0
    num_slices: int = 0


_AGAIN = ("where its KV is", "from its snapshot", "computed again")


class Accounts:
    """`told` before a step, `saw` for each decision of it."""

    def __init__(self) -> None:
        self._open: dict[str, Times] = {}
        self._progressed: list[str] = []
        self._resumed: list[str] = []
        self._left: list[str] = []

    def told(self, events: Sequence[ev.CoreEvent]) -> None:
        """Who made tokens."""
        self._progressed, self._resumed, self._left = [], [], []
        for event in events:
            if isinstance(event, ev.Progressed):
                self._progressed += [request_id for request_id, _ in event.tokens]

    def back(self, request_id: str, *, from_row: bool = False) -> None:
        """In this step it wants a row again; `from_row`: it had one until now."""
        self._resumed.append(request_id)
        if from_row:
            self._left.append(request_id)

    def begin(self, now_ns: int) -> None:
        """Of what was told, now that the time is known."""
        for request_id in self._progressed:
            if (times := self._open.get(request_id)) is not None and times.first_ns is None:
                times.first_ns = now_ns
        for request_id in self._resumed:
            if (times := self._open.get(request_id)) is not None:
                times.ready_ns = now_ns
        for request_id in self._left:
            if (times := self._open.get(request_id)) is not None:
                times.left_ns = now_ns

    def accepted(self, decision: do.Accept, now_ns: int) -> None:
        self._open[decision.request_id] = Times(now_ns, now_ns, decision.service_ns)

    def paused(self, request_id: str, now_ns: int) -> None:
        times = self._open[request_id]
        times.ready_ns = times.left_ns = now_ns

    def runs(
        self, decision: do.Dispatch | do.UnpauseRow, num_running: int, num_slots: int, now_ns: int
    ) -> None:
        """`num_running`: with this one."""
        times = self._open[decision.request_id]
        waited_ms = (now_ns - times.ready_ns) / 1e6
        right = f"row {num_running} of {num_slots} after {waited_ms:.0f} ms"
        said, _, why = decision.reason.partition(", ")
        demand(said == right, f"{decision.reason!r}, and it was {right!r}")
        demand((why in _AGAIN) == (times.started_ns is not None), "another reason to be there")
        is_back = isinstance(decision, do.UnpauseRow)
        demand((why == "where its KV is") == is_back, "another reason for this replica")
        times.num_slices += 1
        if times.started_ns is None:
            times.started_ns = now_ns
        else:
            times.away_ns += now_ns - times.left_ns

    def closed(self, decision: do.Close, now_ns: int) -> None:
        times = self._open.pop(decision.request_id)
        event, account = decision.event, decision.reason
        if isinstance(event, Failed) and event.error.code == "deadline_exceeded":
            demand(times.started_ns is None, "cut off by a deadline, though it had begun")
            waited_s = event.error.details["waited_s"]
            demand(waited_s == (now_ns - times.arrived_ns) / NS, "it waited longer, or less long")
        if not isinstance(event, Finished) or times.started_ns is None:
            demand(account == "", "an account of what did not finish")
            return
        first_ns = times.first_ns or now_ns
        decode_ns = max(0, now_ns - first_ns - times.away_ns)
        ran_s = f"{(first_ns - times.started_ns + decode_ns) / NS:.2f}"
        words = account.split()
        demand(len(words) == 13, f"an account of another form: {account!r}")
        said_s, num_slices, predicted_s, num_tokens = words[1], words[4], words[7], words[9]
        demand(said_s == ran_s, f"ran {ran_s} s, and {said_s} s were put down")
        demand(predicted_s == f"{times.service_ns / NS:.2f}", "another prediction than was told")
        demand(int(num_tokens) == event.usage.completion_tokens, "another number of tokens")
        demand(int(num_slices) >= times.num_slices, "fewer slices than it had")
