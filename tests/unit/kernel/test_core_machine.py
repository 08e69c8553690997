"""The core against a hostile world: any order of events, and what must hold whatever comes.

What is promised is watched by the simulator's witness (from outside) and its books (from inside).
One machine per policy. The deep run, at least 500 events a history: `make sim-deep`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmos.abi.policy import Tuning
from llmos.abi.principal import ServiceClass
from llmos.errors import DiskFull, LoadFailed, NotFound
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.sim import books
from llmos.kernel.sim.order import RULES
from llmos.kernel.sim.rooms import draining
from llmos.kernel.sim.small import POLICIES
from llmos.kernel.sim.witness import Witness
from tests.unit.kernel.core_world import GIB, World, model

MIB = 1 << 20
MODELS = [
    model("a", GIB, 2, kv_bytes_per_token=MIB, snapshots=True, parks=True, parked_bytes=GIB // 8),
    model("b", 2 * GIB, 1, kv_bytes_per_token=8 * MIB, snapshots=True),
    model("c", GIB // 2, 3, parks=True),
]
WAITS_NS = (1_000_000, 40_000_000, 10**9, 20 * 10**9)
MS = 1_000_000

indexes = st.integers(0, 50)


busy = precondition(lambda machine: machine.on_worker())
hosting = precondition(lambda machine: machine.hosts())
loading = precondition(lambda machine: machine.hosts(up=False))
serving = precondition(lambda machine: machine.hosts(up=True))
leaving = precondition(lambda machine: machine.hosts(stopping=True))
asked_away = precondition(lambda machine: machine.suspending())
on_the_move = precondition(lambda machine: machine.moving())


class Watched(World):
    """A world in which every step is witnessed and its books are checked."""

    def __init__(self, policy: str, tuning: Tuning, **limits: int) -> None:
        super().__init__(POLICIES[policy], tuning, **limits)
        self.rule = RULES[policy]
        self.tuning = tuning
        self.witness = Witness(self.state.limits, self.rule, tuning.nice_step_ns)
        self.now_ns = 10**9
        self.num_events = 0

    def step(self, *events: ev.CoreEvent, after_ns: int = 0) -> list[do.Decision]:
        self.now_ns += after_ns
        while (due_ns := self.state.next_due_ns()) is not None and due_ns <= self.now_ns:
            self._one([ev.Tick()], max(due_ns, self.last_ns))
        self.log.clear()
        self.num_events += len(events)  # not the ticks above
        return self._one(events, self.now_ns)

    last_ns = 0

    def _one(self, events: Sequence[ev.CoreEvent], at_ns: int) -> list[do.Decision]:
        now_ns, self.now_ns, self.last_ns = self.now_ns, at_ns, at_ns
        self.witness.told(events)
        arrived = next((e for e in events if isinstance(e, ev.Arrived)), None)
        expected = arrived and books.expected(self.state, arrived, self.rule, at_ns)
        decisions = super().step(*events)
        if arrived is not None and expected is not None:
            books.check_answer(expected, arrived, decisions[0])
        self.witness.saw(decisions, at_ns, draining(self.state))
        books.check(self.state, self.witness, self.rule, self.tuning, at_ns)
        self.now_ns = now_ns
        return decisions


class CoreMachine(RuleBasedStateMachine):
    """Clients, operators and workers do what they like, in any order."""

    policy = "fair"
    num = 0

    @initialize(
        slice_tokens=st.integers(1, 6),
        nice_step_ms=st.sampled_from([0, 10, 1000]),
        lowest_share=st.sampled_from([0.01, 0.5]),
        max_parked=st.integers(0, 3),
        max_tokens=st.sampled_from([400, 10**6]),
        max_preemptions=st.integers(0, 2),
        snapshot_bytes=st.sampled_from([0, GIB]),
    )
    def begin(
        self,
        slice_tokens: int,
        nice_step_ms: int,
        lowest_share: float,
        max_parked: int,
        max_tokens: int,
        max_preemptions: int,
        snapshot_bytes: int,
    ) -> None:
        self.world = Watched(
            self.policy,
            Tuning(slice_tokens, nice_step_ms * MS, lowest_share),
            max_waiting=12,
            max_waiting_per_model=6,
            max_waiting_tokens=max_tokens,
            max_open_per_tenant=8,
            max_parked=max_parked,
            max_preemptions=max_preemptions,
            max_snapshot_memory_bytes=snapshot_bytes,
            min_residency_ns=10**9,
            turn_ns=10**9,
            suspend_retry_ns=10**9,
            healthy_ns=10**9,
            keep_alive_ns=15 * 10**9,
            max_backoff_ns=4 * 10**9,
        )

    def hosts(self, *, up: bool | None = None, stopping: bool | None = None) -> list[str]:
        return [
            replica_id
            for replica_id, host in self.world.witness.hosts.items()
            if up in (None, host.is_up) and stopping in (None, host.is_stopping)
        ]

    def on_worker(self) -> list[str]:
        hosts = self.world.witness.hosts.values()
        return sorted(r for host in hosts for r in host.requests)

    def suspending(self) -> list[str]:
        return sorted(r for host in self.world.witness.hosts.values() for r in host.leaving)

    def moving(self) -> list[str]:
        """Replicas that are being parked, or come back."""
        hosts = self.world.witness.hosts.items()
        return [r for r, host in hosts if host.is_parking or host.is_unparking]

    def pick(self, pool: Sequence[str], index: int) -> str | None:
        return pool[index % len(pool)] if pool else None

    def anyone(self, index: int) -> str:
        """Open, ended or never seen."""
        return f"r{index % (self.num + 2)}"

    @rule(
        i=st.integers(0, 2),
        service_class=st.sampled_from(ServiceClass),
        tenant=st.integers(0, 2),
        principal=st.integers(0, 1),
        nice=st.sampled_from([0, 0, 5, -20, 19]),
        weight=st.sampled_from([1.0, 3.0]),
        deadline_ms=st.sampled_from([None, None, 30, 1000]),
        prompt=st.integers(1, 50),
        count=st.sampled_from([1, 1, 1, 2, 5]),
    )
    def arrive(
        self,
        i: int,
        service_class: ServiceClass,
        tenant: int,
        principal: int,
        nice: int,
        weight: float,
        deadline_ms: int | None,
        prompt: int,
        count: int,
    ) -> None:
        """One, or several alike one after another."""
        deadline_ns = None if deadline_ms is None else self.world.now_ns + deadline_ms * MS
        for _ in range(count):
            self.num += 1
            self.world.arrive(
                f"r{self.num}",
                MODELS[i],
                service_class,
                nice,
                deadline_ns,
                owner=f"t{tenant}/p{principal}",
                weight=weight,
                prompt=prompt,
                max_tokens=prompt % 3 * 10,
            )

    @rule(i=st.integers(0, 2), service_class=st.sampled_from(ServiceClass), tenant=indexes)
    def arrive_plain(self, i: int, service_class: ServiceClass, tenant: int) -> None:
        """By another name, as hypothesis switches rules off by their names."""
        self.num += 1
        self.world.arrive(f"r{self.num}", MODELS[i], service_class, owner=f"t{tenant % 3}/p")

    @loading
    @rule(index=indexes, fewer=st.booleans())
    def load(self, index: int, fewer: bool) -> None:
        """`fewer`: with one row less than was thought."""
        if replica_id := self.pick(self.hosts(up=False, stopping=False), index):
            num_slots = self.world.witness.hosts[replica_id].num_slots
            self.world.up(replica_id, max(1, num_slots - fewer), GIB // 4)

    @hosting
    @rule(index=indexes)
    def load_again(self, index: int) -> None:
        """A duplicate, or a reply of one that was stopped meanwhile."""
        if replica_id := self.pick(self.hosts(), index):
            host = self.world.witness.hosts[replica_id]
            if host.is_up or host.is_stopping:
                self.world.up(replica_id, host.num_slots, GIB)

    @loading
    @rule(index=indexes)
    def refuse(self, index: int) -> None:
        if replica_id := self.pick(self.hosts(up=False), index):
            self.world.step(ev.ReplicaRefused(replica_id, LoadFailed("no").to_info()))

    @hosting
    @rule(index=indexes, twice=st.booleans())
    def die(self, index: int, twice: bool) -> None:
        if replica_id := self.pick(self.hosts(), index):
            self.world.gone(replica_id)
            if twice:
                self.world.gone(replica_id)

    @leaving
    @rule(index=indexes)
    def stop_as_asked(self, index: int) -> None:
        if replica_id := self.pick(self.hosts(stopping=True), index):
            self.world.gone(replica_id, None)

    @serving
    @rule(
        index=indexes,
        num_tokens=st.integers(1, 5),
        late=st.booleans(),
        count=st.sampled_from([1, 2, 6]),
    )
    def progress(self, index: int, num_tokens: int, late: bool, count: int) -> None:
        """Steps of a worker; `late`: of rows paused meanwhile too, and of one long gone."""
        replica_id = self.pick(self.hosts(up=True), index)
        for _ in range(count):
            host = self.world.witness.hosts.get(replica_id or "")
            if host is None or replica_id is None:
                return
            rows = sorted(host.running | host.parked) if late else sorted(host.running)
            self.world.tokens(replica_id, **dict.fromkeys([*rows, "r0"], num_tokens))

    @busy
    @rule(index=indexes, twice=st.booleans())
    def finish(self, index: int, twice: bool) -> None:
        if request_id := self.pick(self.on_worker(), index):
            self.world.end(request_id)
            if twice:
                self.world.end(request_id)

    @busy
    @rule(index=indexes)
    def abort(self, index: int) -> None:
        if request_id := self.pick(self.on_worker(), index):
            self.world.abort(request_id)

    @rule(index=indexes)
    def cancel(self, index: int) -> None:
        self.world.step(ev.Cancelled(self.anyone(index), "left"))

    @rule(index=indexes, stalled=st.booleans())
    def reader(self, index: int, stalled: bool) -> None:
        kind = ev.ReaderStalled if stalled else ev.ReaderResumed
        pool = self.on_worker()
        self.world.step(kind(self.pick(pool, index) or self.anyone(index)))

    @rule(
        index=indexes,
        nice=st.sampled_from([None, -20, 0, 19]),
        service_class=st.sampled_from([None, *ServiceClass]),
    )
    def renice(self, index: int, nice: int | None, service_class: ServiceClass | None) -> None:
        self.world.step(ev.Reniced(self.anyone(index), nice, service_class))

    @rule(index=indexes, held=st.booleans())
    def hold(self, index: int, held: bool) -> None:
        request_id = self.anyone(index)
        event = ev.RequestHeld(request_id, "x") if held else ev.RequestReleased(request_id)
        self.world.step(event)

    @asked_away
    @rule(index=indexes, how=st.sampled_from(["kept", "kept", "none", "full", "unknown"]))
    def answer(self, index: int, how: str) -> None:
        """A worker that was asked to put a request away."""
        if (request_id := self.pick(self.suspending(), index)) is None:
            return
        if how in ("kept", "none"):
            model = self.world.witness.open[request_id].model
            size = MIB * (index + 1) if how == "kept" and model.snapshots else None
            self.world.step(ev.Suspended(request_id, size))
        else:
            error = DiskFull("no") if how == "full" else NotFound("not here")
            self.world.step(ev.SuspendFailed(request_id, error.to_info()))

    @busy
    @rule(index=indexes)
    def lose(self, index: int) -> None:
        """One that was resumed, and has said nothing since."""
        open_ = self.world.witness.open
        pool = [r for r in self.on_worker() if open_[r].has_snapshot and not open_[r].is_leaving]
        if request_id := self.pick(pool, index):
            self.world.step(ev.SnapshotLost(request_id, "damaged"))

    @rule(index=indexes, fails=st.booleans())
    def move_to_disk(self, index: int, fails: bool) -> None:
        pool = [r.request_id for r in self.world.state.requests.values() if r.is_spilling]
        if request_id := self.pick(pool, index):
            error = DiskFull("no").to_info() if fails else None
            self.world.step(ev.Spilled(request_id, error))

    @on_the_move
    @rule(index=indexes, fails=st.booleans())
    def move(self, index: int, fails: bool) -> None:
        """Parked or back, or neither."""
        if (replica_id := self.pick(self.moving(), index)) is None:
            return
        no = LoadFailed("no").to_info() if fails else None
        if self.world.witness.hosts[replica_id].is_parking:
            self.world.step(ev.ReplicaParked(replica_id, GIB // 16, error=no))
        elif no is not None:
            self.world.step(ev.ReplicaRefused(replica_id, no))
        else:
            self.world.step(ev.ReplicaUnparked(replica_id, GIB // 4))

    @serving
    @rule(index=indexes, used_bytes=st.sampled_from([GIB // 4, GIB, 3 * GIB]))
    def swell(self, index: int, used_bytes: int) -> None:
        if replica_id := self.pick(self.hosts(up=True), index):
            self.world.step(ev.ReplicaMeasured(replica_id, used_bytes))

    @rule(free_bytes=st.sampled_from([-GIB, 0, GIB, 9 * GIB]))
    def measure(self, free_bytes: int) -> None:
        self.world.step(ev.MemoryMeasured({"host": free_bytes}))

    @rule(i=st.integers(0, 2))
    def unpin(self, i: int) -> None:
        self.world.step(ev.ModelUnpinned(MODELS[i].model_id))

    @rule(wait_ns=st.sampled_from(WAITS_NS))
    def wait(self, wait_ns: int) -> None:
        self.world.step(ev.Tick(), after_ns=wait_ns)

    @rule(i=st.integers(0, 2), pin=st.booleans(), keep_s=st.sampled_from([None, None, 0, 3]))
    def want(self, i: int, pin: bool, keep_s: int | None) -> None:
        keep_alive_ns = None if keep_s is None else keep_s * 10**9
        self.world.step(ev.ModelWanted(MODELS[i], pin, keep_alive_ns, is_standing=pin))

    @rule(i=st.integers(0, 2))
    def unwant(self, i: int) -> None:
        self.world.step(ev.ModelUnwanted(MODELS[i].model_id))

    def teardown(self) -> None:
        """With well-behaved workers and time, everything accepted ends; or at once, by closing."""
        if not hasattr(self, "world"):
            return
        if self.num % 4 == 0:
            self.world.step(ev.Closing())
            assert not self.world.state.requests
        elif self.num % 4 == 1:
            self.world.step(ev.Draining())
        if self.num % 4 < 2:  # what comes now is refused, and changes nothing
            assert isinstance(self.world.arrive("late", MODELS[0])[0], do.Refuse)
        for _ in range(200):
            if not self.world.state.requests:
                break
            for replica_id in self.hosts(stopping=True):
                self.world.gone(replica_id, None)
            for replica_id in self.hosts(up=False, stopping=False):
                self.world.up(replica_id, self.world.witness.hosts[replica_id].num_slots, GIB // 4)
            self.settle()
            self.world.step(ev.Tick(), after_ns=10**9)
        witness = self.world.witness
        assert not self.world.state.requests, "starved"
        assert witness.num_accepted == witness.num_closed
        assert self.world.state.num_waiting == 0
        assert not self.world.state.open_of_tenant

    def settle(self) -> None:
        """Everybody is answered, and nobody is held."""
        world = self.world
        if world.state.headroom:
            world.step(ev.MemoryMeasured({"host": world.state.ledger.free_bytes}))
        for request_id, request in list(world.state.requests.items()):
            if request.is_held:
                world.step(ev.RequestReleased(request_id))
        for replica_id in self.moving():
            if world.witness.hosts[replica_id].is_parking:
                world.step(ev.ReplicaParked(replica_id, 0))
            else:
                world.step(ev.ReplicaUnparked(replica_id, GIB // 4))
        for request_id in self.on_worker():
            world.end(request_id)


def profile(max_examples: int, num_steps: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=num_steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class PriorityMachine(CoreMachine):
    policy = "priority"


class TurnsMachine(CoreMachine):
    policy = "round-robin"


class FirstComeMachine(CoreMachine):
    policy = "fifo"


MACHINES = (CoreMachine, PriorityMachine, TurnsMachine, FirstComeMachine)
TestFair, TestPriority, TestTurns, TestFirstCome = (machine.TestCase for machine in MACHINES)
for _case in (TestFair, TestPriority, TestTurns, TestFirstCome):
    _case.settings = profile(8, 50)


def test_every_policy_has_a_machine() -> None:
    assert {machine.policy for machine in MACHINES} == POLICIES.keys()


def deep(machine: type[CoreMachine], num_histories: int, num_steps: int) -> list[int]:
    """How many events the core was told in each history, before the world was made to end.

    Hypothesis ends a history when it has drawn too much for it; a long one may draw more.
    """
    counts: list[int] = []

    class Counted(machine):  # type: ignore[valid-type, misc]
        def teardown(self) -> None:
            if hasattr(self, "world"):
                counts.append(self.world.num_events)
            super().teardown()

    size = 64 * num_steps
    with (
        mock.patch("hypothesis.stateful.BUFFER_SIZE", size),
        mock.patch("hypothesis.internal.conjecture.engine.BUFFER_SIZE", size),
    ):
        run_state_machine_as_test(Counted, settings=profile(num_histories, num_steps))  # type: ignore[no-untyped-call]
    return counts


def main() -> int:
    """Long histories under every policy."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--histories", type=int, default=50, help="per policy")
    parser.add_argument("--events", type=int, default=500, help="in each, at least")
    parser.add_argument(
        "--steps", type=int, default=900, help="of the machine: not all do something"
    )
    arguments = parser.parse_args()
    for machine in MACHINES:
        began = time.monotonic()
        counts = deep(machine, arguments.histories, arguments.steps)
        while sum(count >= arguments.events for count in counts) < arguments.histories:
            counts += deep(machine, 5, arguments.steps)
        long = [count for count in counts if count >= arguments.events]
        print(
            f"{machine.policy}: {len(long)} histories of {min(long, default=0)} to "
            f"{max(long, default=0)} events, {len(counts) - len(long)} shorter ones: nothing found "
            f"in {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
