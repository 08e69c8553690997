"""Mutants planted by hand: each a mistake someone could make, as one replacement in one module."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutation.operators import Mutant, read


@dataclass(frozen=True)
class Plant:
    """`old` occurs exactly once in the module, or the plant is out of date."""

    name: str
    module: str
    old: str
    new: str

    def mutant(self) -> Mutant:
        source = read(self.module)
        if source.count(self.old) != 1:
            raise LookupError(
                f"{self.name}: its text is {source.count(self.old)} times in the core"
            )
        return Mutant(self.name, self.module, source.replace(self.old, self.new), self.name)


PLANTS = (
    Plant(
        "an ended request is not forgotten",
        "lifecycle",
        "request = state.requests.pop(request_id)",
        "request = state.requests[request_id]",
    ),
    Plant(
        "an ended request keeps its row",
        "lifecycle",
        "replica.running.pop(request_id, None)",
        "pass",
    ),
    Plant(
        "one row too many",
        "sched",
        "replica.num_free_slots > 0 or",
        "replica.num_free_slots >= 0 or",
    ),
    Plant(
        "parked requests of a dead worker are forgotten",
        "residency",
        "[*replica.running, *replica.parked]",
        "[*replica.running]",
    ),
    Plant("service is not charged", "policies.shares", "member.counter += tokens", "pass  # "),
    Plant(
        "idling saves up",
        "policies.shares",
        "member.counter = max(member.counter, lowest)",
        "member.counter = member.counter * 0.5",
    ),
    Plant("weights are not used", "policies.shares", "tokens / member.weight", "tokens"),
    Plant(
        "lower classes earn nothing",
        "policies.classes",
        "self._earned[lower] += tokens * self._tuning.lowest_share",
        "pass",
    ),
    Plant(
        "waiting does not count",
        "policies.order",
        "due_ns = waiting.ready_ns + waiting.nice * nice_step_ns",
        "due_ns = waiting.nice * nice_step_ns",
    ),
    Plant("last come, first served", "policies.fifo", "(waiting.arrival,)", "(-waiting.arrival,)"),
    Plant("no turns", "policies.round_robin", 'return "its slice', 'return None and "its slice'),
    Plant("no limit on what is parked", "sched", "if is_new and len(replica.parked) >=", "if 0 >"),
    Plant(
        "turns take all the room",
        "limits",
        "return -(-self.max_parked // 2)",
        "return self.max_parked",
    ),
    Plant(
        "who gave way is lost",
        "sched",
        "    enqueue(state, victim)\n",
        "",
    ),
    Plant(
        "classes have no shares of the queue",
        "shed",
        "limits, share = state.limits, state.limits.share(kind)",
        "limits, share = state.limits, 1.0",
    ),
    Plant(
        "deadlines are not looked at",
        "lifecycle",
        "while state.due and state.due[0][0] <= now_ns:",
        "while False:",
    ),
    Plant(
        "an alarm in the past",
        "residency",
        "if retry_ns > now_ns:",
        "if True:",
    ),
    Plant(
        "an unused model has no alarm",
        "residency",
        "    state.dirty[replica.model.model_id] = None  # if all who",
        "    pass  # if all who",
    ),
    Plant(
        "a drained replica's parked requests stay in the queue",
        "residency",
        "dequeue(state, state.requests[request_id])",
        "pass",
    ),
    Plant("no cool-down", "fault", "now_ns + limits.cooldown_ns", "now_ns"),
    Plant(
        "memory is not released",
        "memory",
        "self.reserved_bytes -= self._reserved.pop(replica_id)",
        "self._reserved.pop(replica_id)",
    ),
    Plant(
        "nothing is learned of speed",
        "cost",
        "self.alone_ns.add(token_ns)",
        "pass",
    ),
)
