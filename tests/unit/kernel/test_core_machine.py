"""The core against a hostile world: any order of events, and what must hold whatever comes."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmos.abi.principal import ServiceClass
from llmos.errors import LoadFailed
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.replica import ReplicaState
from llmos.kernel.core.request import QUEUED
from tests.unit.kernel.core_world import GIB, World, model

MODELS = [model("a", GIB, 2), model("b", 2 * GIB, 1), model("c", GIB // 2, 3)]


class CoreMachine(RuleBasedStateMachine):
    """Tracks what the core promised, from its decisions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(max_waiting=12, max_waiting_per_model=6)
        self.accepted: set[str] = set()
        self.closed: Counter[str] = Counter()
        self.on_worker: dict[str, str] = {}
        self.workers: dict[str, str] = {}
        self.num = 0

    def take(self, decisions: list[do.Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, do.Accept):
                self.accepted.add(decision.request_id)
            elif isinstance(decision, do.Close):
                assert decision.request_id in self.accepted, "closed before accepted"
                self.closed[decision.request_id] += 1
                self.on_worker.pop(decision.request_id, None)
            elif isinstance(decision, do.Dispatch):
                assert decision.request_id not in self.closed
                assert self.workers[decision.replica_id] == "ready"
                self.on_worker[decision.request_id] = decision.replica_id
            elif isinstance(decision, do.StartReplica):
                self.workers[decision.replica_id] = "starting"
            elif isinstance(decision, do.StopReplica):
                self.workers[decision.replica_id] = "stopping"
            elif isinstance(decision, do.AbortRow | do.PauseRow | do.UnpauseRow):
                assert decision.replica_id in self.workers

    def pick(self, pool: list[str], index: int) -> str | None:
        return pool[index % len(pool)] if pool else None

    @rule(i=st.integers(0, 2), service_class=st.sampled_from(ServiceClass), late=st.booleans())
    def arrive(self, i: int, service_class: ServiceClass, late: bool) -> None:
        self.num += 1
        deadline = self.world.now_ns + 10**9 if late else None
        self.take(self.world.arrive(f"r{self.num}", MODELS[i], service_class, deadline_ns=deadline))

    @rule(index=st.integers(0, 50))
    def load(self, index: int) -> None:
        starting = [r for r, s in self.workers.items() if s == "starting"]
        if replica_id := self.pick(starting, index):
            self.workers[replica_id] = "ready"
            slots = self.world.state.replicas[replica_id].model.num_slots
            self.take(self.world.up(replica_id, slots, GIB // 4))

    @rule(index=st.integers(0, 50))
    def refuse(self, index: int) -> None:
        starting = [r for r, s in self.workers.items() if s == "starting"]
        if replica_id := self.pick(starting, index):
            error = LoadFailed("no").to_info()
            self.take(self.world.step(ev.ReplicaRefused(replica_id, error)))

    @rule(index=st.integers(0, 50), asked=st.booleans())
    def die(self, index: int, asked: bool) -> None:
        if replica_id := self.pick(list(self.workers), index):
            stopping = self.workers.pop(replica_id) == "stopping"
            if asked or stopping:
                self.take(self.world.gone(replica_id, None))
            else:
                self.take(self.world.gone(replica_id))

    @rule(index=st.integers(0, 50), twice=st.booleans())
    def finish(self, index: int, twice: bool) -> None:
        if request_id := self.pick(list(self.on_worker), index):
            self.take(self.world.end(request_id))
            if twice:
                self.take(self.world.end(request_id))

    @rule(index=st.integers(0, 100))
    def cancel(self, index: int) -> None:
        if request_id := self.pick(sorted(self.accepted), index):
            self.take(self.world.step(ev.Cancelled(request_id, "left")))

    @rule(index=st.integers(0, 100), stalled=st.booleans())
    def reader(self, index: int, stalled: bool) -> None:
        if request_id := self.pick(sorted(self.accepted), index):
            kind = ev.ReaderStalled if stalled else ev.ReaderResumed
            self.take(self.world.step(kind(request_id)))

    @rule(seconds=st.integers(0, 400))
    def wait(self, seconds: int) -> None:
        self.take(self.world.step(ev.Tick(), after_ns=seconds * 10**9))

    @rule(i=st.integers(0, 2), pin=st.booleans())
    def want(self, i: int, pin: bool) -> None:
        self.take(self.world.step(ev.ModelWanted(MODELS[i], pin)))

    @rule(i=st.integers(0, 2))
    def unwant(self, i: int) -> None:
        self.take(self.world.step(ev.ModelUnwanted(MODELS[i].model_id)))

    @invariant()
    def nothing_is_lost_and_nothing_ends_twice(self) -> None:
        assert all(count == 1 for count in self.closed.values())
        live = set(self.world.state.requests)
        assert live == self.accepted - set(self.closed)

    @invariant()
    def memory_and_slots_are_never_over_committed(self) -> None:
        state = self.world.state
        assert 0 <= state.ledger.reserved_bytes <= state.ledger.budget_bytes
        assert set(state.ledger._reserved) == set(state.replicas)
        for replica in state.replicas.values():
            assert len(replica.running) <= replica.num_slots

    @invariant()
    def the_books_agree(self) -> None:
        state = self.world.state
        waiting = [r for r in state.requests.values() if r.state in QUEUED]
        assert state.num_waiting == len(waiting) == sum(map(len, state.queues.values()))
        assert all(r.waiting.request_id in state.queue(r.model_id) for r in waiting)
        holders = {
            r for replica in state.replicas.values() for r in (*replica.running, *replica.parked)
        }
        assert holders == set(self.on_worker)
        assert set(state.replicas) == set(self.workers)

    @invariant()
    def a_ready_replica_with_a_free_slot_leaves_nobody_waiting(self) -> None:
        for replica in self.world.state.replicas.values():
            if replica.state is ReplicaState.READY and replica.num_free_slots > 0:
                assert not len(self.world.state.queue(replica.model.model_id))

    def teardown(self) -> None:
        """With well-behaved workers and time, everything accepted ends."""
        for _ in range(200):
            if not self.world.state.requests:
                break
            for replica_id, worker_state in list(self.workers.items()):
                if worker_state == "starting":
                    self.workers[replica_id] = "ready"
                    slots = self.world.state.replicas[replica_id].model.num_slots
                    self.take(self.world.up(replica_id, slots, GIB // 4))
                elif worker_state == "stopping":
                    del self.workers[replica_id]
                    self.take(self.world.gone(replica_id, None))
            for request_id in list(self.on_worker):
                self.take(self.world.end(request_id))
            self.take(self.world.step(ev.Tick(), after_ns=10**9))
        assert not self.world.state.requests, "starved"


TestCore = CoreMachine.TestCase
TestCore.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
