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


SWITCH = (
    Plant(
        "no limit on pre-emptions",
        "sched",
        "if is_lower and has_given and not request.is_on_credit:",
        "if False:",
    ),
    Plant("pre-emptions are not counted", "sched", "victim.num_preempted += 1", "pass"),
    Plant("who was pre-empted is not first", "sched", "victim.comes_first = True", "pass"),
    Plant(
        "who made room is not first",
        "unload",
        "request.comes_first = request.state is not RequestState.STALLED",
        "pass",
    ),
    Plant(
        "keys and values of who runs again stay in the ledger",
        "sched",
        "replica.parked.pop(request.request_id)\n    forget_kv(state, request)\n",
        "replica.parked.pop(request.request_id)\n",
    ),
    Plant(
        "a parked replica is given requests",
        "step",
        "if replica.state in (ReplicaState.READY, ReplicaState.DRAINING):",
        "if replica.state in (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.PARKED):",
    ),
    Plant(
        "who is released is forgotten",
        "suspend",
        """    if may_queue(state, request):
        enqueue(state, request)
    state.dirty[request.model_id] = None


def spilled""",
        """    state.dirty[request.model_id] = None


def spilled""",
    ),
    Plant(
        "who is held runs",
        "queueing",
        "if request.is_held or request.stalled_ns",
        "if request.stalled_ns",
    ),
    Plant("nobody outlives a worker", "suspend", "return on_worker and", "return False and"),
    Plant(
        "a snapshot outlives any number of workers",
        "suspend",
        "and request.num_resumes <= MAX_RESUMES",
        "",
    ),
    Plant(
        "snapshots in memory cost nothing",
        "holdings",
        "state.reserve(request.leaving_owner, {HOST: size})",
        "state.reserve(request.leaving_owner, {HOST: 0})",
    ),
    Plant(
        "a snapshot holds after the next token",
        "lifecycle",
        "if request.snapshot_bytes is not None:",
        "if False:",
    ),
    Plant(
        "a failed suspension is tried at once again",
        "suspend",
        "request.not_before_ns = now_ns + state.limits.suspend_retry_ns\n    state.wake_at",
        "request.not_before_ns = now_ns\n    state.wake_at",
    ),
)

ROOM = (
    Plant(
        "a pinned model that nobody uses makes room",
        "makeroom",
        """    if model_id in state.pinned or model_id == need.owner_id:
        return False
    if replica.state is""",
        """    if model_id == need.owner_id:
        return False
    if replica.state is""",
    ),
    Plant(
        "a pinned model in use makes room",
        "makeroom",
        """    if model_id in state.pinned or model_id == need.owner_id:
        return False
    if _yields""",
        """    if model_id == need.owner_id:
        return False
    if _yields""",
    ),
    Plant(
        "no residency",
        "makeroom",
        "return now_ns - replica.ready_ns >= residency_ns(state, replica)",
        "return True",
    ),
    Plant(
        "a higher class takes a model away any number of times",
        "makeroom",
        "return all(r.num_preempted < most and r",
        "return all(r",
    ),
    Plant(
        "a turn has no end", "unload", "is_over = now_ns >= replica.drain_by_ns", "is_over = False"
    ),
    Plant(
        "a draining model is not looked at",
        "residency",
        "state.dirty[replica.model.model_id] = None  # its time may be over",
        "pass",
    ),
    Plant(
        "what swells is not entered",
        "state",
        "            ledger.swell(owner, size)",
        "            pass",
    ),
    Plant(
        "what is parked keeps its bytes",
        "state",
        "            ledger.shrink(owner, size)",
        "            pass",
    ),
    Plant(
        "what was measured does not count",
        "state",
        "return min(free_bytes, self.headroom.get(device, free_bytes))",
        "return free_bytes",
    ),
    Plant(
        "who waits for room is never told that there is none",
        "residency",
        "return now_ns - since_ns >= state.limits.room_timeout_ns",
        "return False",
    ),
    Plant(
        "nobody says who waits for room",
        "residency",
        "state.out.append(do.LacksRoom(model.model_id, why))",
        "pass",
    ),
    Plant(
        "who has waited longest for room is not first",
        "residency",
        "return state.lacking[model_id] - max",
        "return 0 - max",
    ),
)

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
        "if replica.num_free_slots <= 0 and not",
        "if replica.num_free_slots < 0 and not",
    ),
    Plant(
        "parked requests of a dead worker are forgotten",
        "replica",
        "[*self.running, *self.parked, *self.leaving]",
        "[*self.running]",
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
    Plant(
        "no limit on what is parked",
        "sched",
        "return head.state not in ROWLESS or len(replica.parked) < state.limits.max_parked",
        "return True",
    ),
    Plant(
        "turns take all the room",
        "limits",
        "return -(-self.max_parked // 2)",
        "return self.max_parked",
    ),
    Plant(
        "who gave way is lost",
        "sched",
        "        enqueue(state, victim)\n",
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
        "replicas",
        "    state.dirty[replica.model.model_id] = None  # if all who",
        "    pass  # if all who",
    ),
    Plant(
        "a drained replica's parked requests stay in the queue",
        "unload",
        "dequeue(state, state.requests[request_id])",
        "pass",
    ),
    Plant("no cool-down", "fault", "now_ns + limits.cooldown_ns", "now_ns"),
    Plant(
        "memory is not released",
        "ledger",
        "self._reserved_bytes -= size_bytes",
        "pass",
    ),
    Plant(
        "nothing is learned of speed",
        "cost",
        "self.alone_ns.add(token_ns)",
        "pass",
    ),
    *SWITCH,
    *ROOM,
)
