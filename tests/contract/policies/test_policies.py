"""What each policy is for, on simulated workers: shares, floors, turns, nice, deadlines, room."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from llmos.abi.policy import Tuning
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import events as ev
from llmos.kernel.core.cost import MAX_PRINCIPALS, CostModel, Measured
from llmos.kernel.core.limits import Limits
from llmos.kernel.sim.calls import NS, Call
from llmos.kernel.sim.run import Outcome, Ran, Simulation
from llmos.kernel.sim.setup import GIB, Setup
from llmos.kernel.sim.small import POLICIES
from llmos.kernel.sim.worker import StepCost
from tests.unit.kernel.core_world import World, model

INTERACTIVE, DEFAULT, BATCH = ServiceClass.INTERACTIVE, ServiceClass.DEFAULT, ServiceClass.BATCH
COST = StepCost(fixed_ns=20_000_000, per_row_ns=0, per_prompt_ns=0)
STEP_S = 0.02
SHARING = ("fair", "round-robin")
CLASSED = ("fair", "priority", "round-robin")


def run(policy: str, calls: Iterable[Call], **changes: Any) -> Ran:
    return simulate(policy, calls, **changes).ran


def simulate(policy: str, calls: Iterable[Call], *, slots: int = 1, **changes: Any) -> Simulation:
    limits = Limits(memory_budget_bytes=8 * GIB, max_open_per_tenant=10**6)
    setup = Setup(
        policy=policy,
        make_policy=POLICIES[policy],
        num_slots=slots,
        cost=changes.pop("cost", COST),
        load_ns=NS // 10,
        limits=replace(limits, **changes.pop("limits", {})),
        tuning=Tuning(slice_tokens=8, lowest_share=0.1, nice_step_ns=NS // 2),
        check_every=20,
        **changes,
    )
    simulation = Simulation(setup, random.Random(0))
    simulation.run(sorted(calls, key=lambda call: call.at_ns))
    return simulation


def burst(
    tenant: str, count: int, output: int = 50, at_s: float = 0.0, **fields: Any
) -> list[Call]:
    """All at one moment (a nanosecond apart)."""
    start_ns = round(at_s * NS)
    return [Call(start_ns + i, 8, output, tenant, **fields) for i in range(count)]


def ttft_s(outcome: Outcome) -> float:
    assert outcome.first_ns is not None, outcome.end
    return (outcome.first_ns - outcome.arrived_ns) / NS


def of(ran: Ran, **fields: Any) -> list[Outcome]:
    return [o for o in ran.outcomes if all(getattr(o.call, k) == v for k, v in fields.items())]


def last_end_s(outcomes: list[Outcome]) -> float:
    return max(o.ended_ns or 0 for o in outcomes) / NS


def test_a_flood_of_one_tenant_leaves_the_others_their_share() -> None:
    calls = burst("flood", 100) + [c for t in "abc" for c in burst(t, 10, at_s=0.05)]
    assert run("fair", calls, slots=4).fairness.index > 0.98
    assert run("fifo", calls, slots=4).fairness.index < 0.5


def test_weights_are_shares() -> None:
    calls = [c for t, w in (("a", 1.0), ("b", 2.0), ("c", 4.0)) for c in burst(t, 40, weight=w)]
    ran = run("fair", calls, slots=4)
    assert ran.fairness.index > 0.98
    ends = [last_end_s(of(ran, tenant=t)) for t in "cba"]
    assert ends == sorted(ends)


def test_inside_a_tenant_each_key_gets_its_share() -> None:
    calls = burst("t", 40, principal="many") + burst("t", 4, principal="few")
    ran = run("fair", calls, slots=2)
    assert last_end_s(of(ran, principal="few")) < 0.35 * last_end_s(of(ran, principal="many"))


def test_idling_saves_nothing_up_and_costs_nothing() -> None:
    calls = burst("always", 40) + burst("late", 15, at_s=15.0)
    ran = run("fair", calls, slots=2)
    # level from the start: it takes half of what follows, neither more nor less
    took_s = last_end_s(of(ran, tenant="late")) - 16.0
    alone_s = 15 * 50 * STEP_S / 2
    assert 1.6 * alone_s < took_s < 2.4 * alone_s


@pytest.mark.parametrize("policy", CLASSED)
def test_interactive_requests_pass_batch_work(policy: str) -> None:
    """However often it happens: what is parked does not pile up until nothing can be."""
    calls = burst("b", 60, 100, service_class=BATCH)
    calls += [c for i in range(40) for c in burst("i", 1, 5, 1 + i, service_class=INTERACTIVE)]
    ran = run(policy, calls, slots=2, limits={"max_parked": 8})
    assert max(map(ttft_s, of(ran, service_class=INTERACTIVE))) < 12 * STEP_S
    assert max(o.num_preemptions for o in of(ran, service_class=BATCH)) > 0


def test_short_requests_get_through_beside_a_long_one() -> None:
    """And the long one is done as soon as the row can do all of it."""
    calls = burst("t", 1, 1000)
    calls += [c for i in range(60) for c in burst("t", 1, 6, 1 + i // 2 * 0.5 + i % 2 * 0.04)]
    latencies_s = {}
    for policy in ("fair", "round-robin", "fifo"):
        long, *short = run(policy, calls).outcomes
        latencies_s[policy] = max((o.ended_ns or 0) - o.arrived_ns for o in short) / NS
        assert (long.ended_ns or 0) / NS < (1000 + 60 * 6 + 60) * STEP_S
    # what is left of the short one before it, its own steps, a quarter of a slice of 8
    assert latencies_s["fair"] < (4 + 6 + 2) * STEP_S
    assert 1.5 * latencies_s["fair"] < latencies_s["round-robin"] < latencies_s["fifo"]


def test_a_long_request_is_not_kept_away_by_ever_new_short_ones() -> None:
    """Of its own key, and as many as fill the row: 3 s and what waits then, and it has a slice."""
    ever_new = [c for i in range(1000) for c in burst("t", 1, 6, 1 + i * 6 * STEP_S)]
    long, *short = run("fair", burst("t", 1, 200) + ever_new).outcomes
    longest_wait_s = max((o.ended_ns or 0) - o.arrived_ns for o in short) / NS
    took_s = (long.ended_ns or 0) / NS
    assert took_s < 200 / 8 * (3 + longest_wait_s)
    assert took_s < 0.7 * last_end_s(short)


def test_turns_among_equals_leave_half_of_the_room_to_higher_classes() -> None:
    world = World(tuning=Tuning(slice_tokens=8), max_parked=2)
    world.step(ev.ModelWanted(model(slots=2), pin=False))
    world.up("rep_1", 2)
    for name in "abcd":
        world.arrive(name, model(slots=2), owner=name)
    world.tokens("rep_1", a=8, b=8)  # one of them gives way: that is half of the room
    replica = world.state.replicas["rep_1"]
    assert (list(replica.running), list(replica.parked)) == (["b", "c"], ["a"])
    world.arrive("urgent", model(slots=2), INTERACTIVE)
    assert "urgent" in replica.running
    assert len(replica.parked) == 2


def test_fifo_lets_nobody_pass() -> None:
    calls = burst("b", 10, 100, service_class=BATCH) + burst(
        "i", 1, 5, 1, service_class=INTERACTIVE
    )
    ran = run("fifo", calls)
    firsts = [o.first_ns or 0 for o in ran.outcomes]
    assert firsts == sorted(firsts)
    assert not any(o.num_preemptions for o in ran.outcomes)


@pytest.mark.parametrize("policy", CLASSED)
def test_the_lowest_class_keeps_its_floor(policy: str) -> None:
    calls = burst("i", 40, 100, service_class=INTERACTIVE)
    calls += burst("b", 1, 100, service_class=BATCH)
    ran = run(policy, calls)
    (low,) = of(ran, service_class=BATCH)
    rest = last_end_s(of(ran, service_class=INTERACTIVE))
    assert 0.1 * rest < last_end_s([low]) < 0.5 * rest


def test_turns_rotate_by_slices() -> None:
    calls = burst("t", 5, 400)
    for policy in SHARING:
        worst_s = max(map(ttft_s, run(policy, calls).outcomes))
        assert worst_s < 0.1 + 5 * 9 * STEP_S * 1.5, policy
    for policy in ("priority", "fifo"):
        assert max(map(ttft_s, run(policy, calls).outcomes)) > 4 * 400 * STEP_S, policy


@pytest.mark.parametrize("policy", ["fair", "priority"])
def test_nice_requests_wait_as_long_as_is_said(policy: str) -> None:
    calls = burst("t", 1, 100) + burst("t", 1, 10, 0.01, nice=10)
    calls += [c for i in range(40) for c in burst("t", 1, 10, 0.02 + 0.25 * i)]
    ran = run(policy, calls, limits={"max_parked": 0})
    (nice,) = of(ran, nice=10)
    passed = [o for o in of(ran, nice=0) if (o.first_ns or 0) < (nice.first_ns or 0)]
    assert len(passed) == 21  # the first, and those of the 5 s that ten points are


def test_the_nearer_deadline_first_and_hopeless_ones_are_told_at_once() -> None:
    learn = [Call(i * 2 * NS, 8, 50, max_tokens=50) for i in range(10)]
    at_s = 30.0
    busy = burst("t", 3, 50, at_s, max_tokens=50)
    soon = burst("t", 1, 50, at_s + 0.1, max_tokens=50, deadline_ns=round(5.0 * NS))
    never = burst("t", 1, 50, at_s + 0.1, max_tokens=50, deadline_ns=NS // 10)
    ran = run("priority", learn + busy + soon + never)
    assert [o.end for o in ran.outcomes[-2:]] == ["finished", "deadline_exceeded"]
    assert (ran.outcomes[-1].ended_ns or 0) == ran.outcomes[-1].arrived_ns
    late = run(
        "priority",
        learn
        + burst("t", 3, 50, at_s)
        + burst("t", 1, 50, at_s + 0.1, max_tokens=50, deadline_ns=round(2.5 * NS)),
    )
    assert (late.outcomes[-1].first_ns or 0) < (late.outcomes[-2].first_ns or 0)


SLOWER = StepCost(33_000_000, 0, 1_000_000)


def test_predictions_follow_the_workers() -> None:
    calls = [c for i in range(30) for c in burst("t", 2, 20, 4.0 * i, max_tokens=20)]
    simulation = simulate("priority", calls, cost=SLOWER)
    ran = simulation.ran
    for first, second in zip(ran.outcomes[40::2], ran.outcomes[41::2], strict=True):
        for outcome in (first, second):
            spent_ns = (outcome.ended_ns or 0) - (outcome.dispatched_ns or 0)
            assert outcome.predicted_ns == pytest.approx(spent_ns, rel=0.03)
        waited_ns = (second.dispatched_ns or 0) - second.arrived_ns
        assert first.predicted_wait_ns == 0
        assert waited_ns / 3 < second.predicted_wait_ns < waited_ns * 3
    assert 0 < simulation.machines[0].state.costs["mdl_model"].error.value < 0.2


def test_predictions_know_what_a_shared_batch_costs() -> None:
    cost = StepCost(10_000_000, 10_000_000, 0)
    calls = [c for i in range(20) for c in burst("t", 1, 20, 8.0 * i, max_tokens=20)]
    calls += [c for i in range(20) for c in burst("t", 4, 20, 8.0 * i + 3, max_tokens=20)]
    ran = run("priority", calls, slots=4, cost=cost)
    last = ran.outcomes[-1]
    spent_ns = (last.ended_ns or 0) - (last.dispatched_ns or 0)
    assert last.predicted_ns == pytest.approx(spent_ns, rel=0.15)


def test_time_without_a_row_is_not_taken_for_slowness() -> None:
    calls = [c for i in range(20) for c in burst("t", 1, 20, 9.0 * i, service_class=BATCH)]
    calls += [
        c for i in range(20) for c in burst("t", 1, 60, 9 * i + 0.2, service_class=INTERACTIVE)
    ]
    ran = run("priority", calls, cost=SLOWER)
    assert all(o.num_preemptions for o in of(ran, service_class=BATCH))
    last = of(ran, service_class=BATCH)[-1]
    assert last.predicted_ns < 60 * 40_000_000


def test_answers_are_expected_as_long_as_the_key_is_used_to() -> None:
    calls = [c for i in range(20) for c in burst("t", 1, 5, 4.0 * i, principal="short")]
    calls += [c for i in range(20) for c in burst("t", 1, 80, 4.0 * i + 0.5, principal="long")]
    ran = run("priority", calls)
    short, long = (of(ran, principal=name)[-1].predicted_ns for name in ("short", "long"))
    assert 8 < long / short < 20


def test_the_keys_seen_last_are_remembered() -> None:
    costs = CostModel()
    for i in range(MAX_PRINCIPALS + 10):
        costs.learn(None, Measured(f"key-{i}", 100, 500 if i < 10 else 5, 1, 1, 1))
    last = costs.predict(f"key-{MAX_PRINCIPALS + 9}", 100, 0, 1)
    assert last.output_tokens == pytest.approx(5, abs=3)
    assert costs.predict("key-0", 100, 0, 1).output_tokens == costs.output.value


def test_two_models_that_do_not_fit_together_take_turns() -> None:
    sizes = {"a": 5 * GIB, "b": 5 * GIB}
    calls = [c for i in range(30) for name in "ab" for c in burst(name, 1, 20, i * 0.3, model=name)]
    ran = run("fair", calls, slots=2, model_bytes=sizes, limits={"patience_ns": NS})
    assert {o.end for o in ran.outcomes} == {"finished"}
    assert 2 <= ran.num_moves["StartReplica"] <= 40
    assert max(map(ttft_s, ran.outcomes)) < 8.0


def test_an_idle_model_is_unloaded_and_comes_back() -> None:
    calls = burst("t", 1, 5) + burst("t", 1, 5, 1.0) + burst("t", 1, 5, 20.0)
    ran = run("fair", calls, limits={"keep_alive_ns": 3 * NS})
    assert ran.num_moves["StartReplica"] == 2
    assert ttft_s(ran.outcomes[1]) < 2.5 * STEP_S
