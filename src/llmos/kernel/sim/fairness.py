"""How evenly those who compete are served: Jain's index over windows in which all of them wait.

Over a whole trace everyone gets what he asked for, so totals say nothing of the policy. Counted are
windows of fixed length; in each, the tenants that had something waiting in the same queue and class
all through it; of those, the weighted tokens served per unit of weight.
Source: Jain, Chiu, Hawe, "A quantitative measure of fairness", DEC TR-301, 1984.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos.kernel.sim.calls import NS, Call

WINDOW_NS = 10 * NS
OUTPUT_COST = 2.0

Queue = tuple[int, str, int]


def jain(values: Sequence[float]) -> float:
    """1 when all are equal, 1/n when one has everything. 1 for nothing at all."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


class Fairness:
    """Fed in the order of time."""

    def __init__(self) -> None:
        self._until_ns = 0
        self._waiting: dict[Queue, dict[str, int]] = {}
        self._backlogged: dict[Queue, set[str]] = {}
        self._served: dict[Queue, dict[str, float]] = {}
        self.totals: dict[str, float] = {}
        self.windows: list[tuple[float, float]] = []

    def wait(self, machine: int, call: Call, now_ns: int) -> None:
        """One more request of the call's tenant waits."""
        self._turn(now_ns)
        waiting = self._waiting.setdefault(_queue(machine, call), {})
        waiting[call.tenant] = waiting.get(call.tenant, 0) + 1

    def run(self, machine: int, call: Call, now_ns: int) -> None:
        """One fewer."""
        self._turn(now_ns)
        queue = _queue(machine, call)
        waiting = self._waiting[queue]
        waiting[call.tenant] -= 1
        if not waiting[call.tenant]:
            del waiting[call.tenant]
            self._backlogged.get(queue, set()).discard(call.tenant)

    def serve(self, machine: int, call: Call, num_tokens: float, now_ns: int) -> None:
        """Tokens of an answer; a token of a prompt counts as half of one."""
        self._turn(now_ns)
        tokens = OUTPUT_COST * num_tokens / call.weight
        self.totals[call.tenant] = self.totals.get(call.tenant, 0.0) + tokens
        served = self._served.setdefault(_queue(machine, call), {})
        served[call.tenant] = served.get(call.tenant, 0.0) + tokens

    def close(self, now_ns: int) -> None:
        """The run is over; the last window, which is short, is dropped."""
        self._turn(now_ns)

    @property
    def index(self) -> float:
        """Mean over windows with two or more tenants, by tokens served; 1 if there was none."""
        served = sum(tokens for tokens, _ in self.windows)
        return sum(tokens * index for tokens, index in self.windows) / served if served else 1.0

    def _turn(self, now_ns: int) -> None:
        if now_ns < self._until_ns:
            return
        for queue, tenants in self._backlogged.items():
            if len(tenants) > 1:
                served = self._served.get(queue, {})
                values = [served.get(tenant, 0.0) for tenant in sorted(tenants)]
                self.windows.append((sum(values), jain(values)))
        self._backlogged = {q: set(waiting) for q, waiting in self._waiting.items() if waiting}
        self._served = {}
        self._until_ns = now_ns - now_ns % WINDOW_NS + WINDOW_NS


def _queue(machine: int, call: Call) -> Queue:
    return machine, call.model, call.service_class
