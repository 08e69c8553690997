"""Who may go before whom: the bounds of each policy, and what comes before any policy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from llmos.abi.policy import Waiting
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.seen import Seen

NICE_STEPS = 39
RETURN_STEPS = 6


@dataclass(frozen=True, slots=True)
class Rule:
    """Among requests of one `flow`, none first runs before one that came more than `slack` earlier.

    `slack`: in steps of nice, which a deadline cannot exceed either.
    Who comes back from a row counts as having come then, or up to `back` steps later.
    `is_in_turn`: who is reniced goes to the end, so his own turn is not judged.
    """

    flow: Callable[[str, Waiting], Hashable]
    slack: int
    back: int = 0
    is_by_class: bool = True
    is_in_turn: bool = False


RULES: dict[str, Rule] = {
    "fair": Rule(
        lambda m, w: (m, w.service_class, w.tenant_id, w.principal_id),
        NICE_STEPS,
        RETURN_STEPS,
    ),
    "priority": Rule(lambda m, w: (m, w.service_class), NICE_STEPS, RETURN_STEPS),
    "round-robin": Rule(lambda m, w: (m, w.service_class), 0, is_in_turn=True),
    "fifo": Rule(lambda m, w: m, 0, is_by_class=False),
}


class Order:
    """`rule` None: an unknown policy, which is not judged. `open`: all accepted requests."""

    def __init__(
        self,
        rule: Rule | None,
        nice_step_ns: int,
        open_: Mapping[str, Seen],
        is_queued: Callable[[Seen], bool],
    ) -> None:
        self._rule = rule
        self._nice_step_ns = nice_step_ns
        self._open = open_
        self._is_queued = is_queued
        self._waiting: dict[Hashable, dict[str, int]] = {}

    def join(self, seen: Seen) -> None:
        """It waits for a row."""
        is_moved = seen.is_reniced and self._rule is not None and self._rule.is_in_turn
        if self._rule is not None and not is_moved:
            flow = self._waiting.setdefault(self._rule.flow(seen.model_id, seen.waiting), {})
            flow[seen.request_id] = seen.since_ns

    def back(self, seen: Seen, now_ns: int) -> None:
        """From a row, if it may have another."""
        if self._rule is not None and not seen.is_stalled and not seen.is_held:
            if self._rule.is_by_class:  # else who came first stays first
                seen.since_ns = now_ns + self._rule.back * self._nice_step_ns
            self.join(seen)

    def rejoin(self, seen: Seen, now_ns: int) -> None:
        """Released before its first row: where it stood, or at the end where turns count."""
        if self._rule is not None and self._rule.is_in_turn:
            seen.since_ns = now_ns
        self.join(seen)

    def leave(self, seen: Seen) -> bool:
        """Whether it waited."""
        if self._rule is None:
            return False
        key = self._rule.flow(seen.model_id, seen.waiting)
        flow = self._waiting.get(key, {})
        was_in = flow.pop(seen.request_id, None) is not None
        if was_in and not flow:
            del self._waiting[key]
        return was_in

    def judge(self, seen: Seen, replica_id: str) -> None:
        """It runs there. Who is parked on another replica can run nowhere else, so nobody overtakes
        it; who lost its row to others goes before those that did not."""
        if self._rule is None:
            return
        key = self._rule.flow(seen.model_id, seen.waiting)
        self.leave(seen)
        if seen.may_come_first or (seen.is_reniced and self._rule.is_in_turn):
            return
        others = self._waiting.get(key, {}).items()
        here = (at for r, at in others if self._open[r].replica_id in (None, replica_id))
        earliest = min(here, default=seen.since_ns)
        slack_ns = self._rule.slack * self._nice_step_ns
        demand(seen.since_ns - earliest <= slack_ns, "overtaken by more than the bound")

    def judge_first(self, seen: Seen, replica_id: str) -> None:
        """Who lost its row to a higher class has the next one of its class, the oldest before the
        others; unless its class has only what it has earned."""
        mates = [
            s for s in self._open.values()
            if s.model_id == seen.model_id and self._is_queued(s) and s is not seen
        ]  # fmt: skip
        mine = seen.waiting.service_class
        seen.is_on_credit = any(s.waiting.service_class > mine for s in mates)
        if not seen.is_on_credit:
            for other in mates:
                is_next = (
                    other.comes_first
                    and other.waiting.service_class == mine
                    and other.replica_id in (None, replica_id)
                    and not (seen.may_come_first and seen.waiting.arrival < other.waiting.arrival)
                )
                demand(not is_next, "one whose row was taken waits behind others of its class")
        seen.comes_first = seen.may_come_first = False
