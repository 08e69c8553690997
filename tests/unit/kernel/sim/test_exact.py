"""Figures that any random world would forgive: each worked out by hand, or by a slower way."""

from __future__ import annotations

import itertools
import random

from llmos.abi.policy import Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.cost import MAX_PRINCIPALS, CostModel, Measured, Prediction
from llmos.kernel.core.policies import fair
from llmos.kernel.core.policies.shares import Shares
from llmos.kernel.core.replica import HOST
from llmos.kernel.core.room import Act, Choice, plan_in_order, plan_room
from tests.unit.kernel.core_world import GIB, World, model, of


def test_room_is_made_by_no_more_than_it_takes() -> None:
    rng = random.Random(7)
    for _ in range(300):
        sizes = [rng.randrange(1, 6) for _ in range(rng.randrange(6))]
        choices = [
            Choice(f"r{i}", Act.STOP, {HOST: size}, float(rng.randrange(4)))
            for i, size in enumerate(sizes)
        ]
        need = rng.randrange(1, 16)
        cheapest, first = plan_room({HOST: need}, [[c] for c in choices]), []
        ordered = plan_in_order({HOST: need}, choices)
        if sum(sizes) < need:
            assert cheapest is ordered is None
            continue
        assert cheapest is not None and ordered is not None
        sets = [s for n in range(len(choices) + 1) for s in itertools.combinations(choices, n)]
        enough = [s for s in sets if sum(c.frees[HOST] for c in s) >= need]
        assert sum(c.cost for c in cheapest) == min(sum(c.cost for c in s) for s in enough)
        for plan in (cheapest, ordered):
            held = sum(c.frees[HOST] for c in plan)
            assert held >= need
            assert all(held - c.frees[HOST] < need for c in plan)
        while sum(c.frees[HOST] for c in first) < need:
            first.append(choices[len(first)])
        assert {c.owner for c in ordered} <= {c.owner for c in first}


def measured(prompt: int, output: int, prefill_ns: int, decode_ns: int, load: int = 1) -> Measured:
    return Measured("p", prompt, output, prefill_ns, decode_ns, load)


def test_what_a_request_costs_is_learned_to_the_nanosecond() -> None:
    cost = CostModel()
    cost.learn(None, measured(2, 3, 5_000_000, 20_000_000))  # short: what any prompt costs
    assert (cost.fixed_ns.value, cost.alone_ns.value, cost.output.value) == (5e6, 10e6, 3.0)
    cost.learn(None, measured(10, 5, 25_000_000, 40_000_000))
    assert cost.prefill_ns.value == 2e6
    cost.learn(None, measured(10, 5, 25_000_000, 56_000_000, load=3))  # 14 ms a token, 10 of it own
    assert cost.per_row_ns.value == 2e6
    predicted = cost.predict("p", 20, 0, 4)
    assert predicted.output_tokens == cost.output.value == 13 / 3
    assert abs(predicted.service_ns - (45e6 + 16e6 * (13 / 3 - 1))) < 1
    assert cost.predict("p", 20, 2, 1) == Prediction(2.0, 45e6 + 10e6)
    cost.learn(Prediction(1.0, 150.0), measured(0, 1, 60, 40))
    assert cost.error.value == 0.5
    assert cost.prefill_ns.num_seen == 2


def test_at_a_prompt_of_eight_tokens_their_own_cost_is_learned() -> None:
    cost = CostModel()
    cost.learn(None, measured(8, 1, 18_000_000, 0))
    assert (cost.fixed_ns.num_seen, cost.prefill_ns.value) == (0, 2e6)
    cost.learn(None, measured(8, 1, 1_000_000, 0))  # less than what is fixed: nothing, not less
    assert cost.prefill_ns.value == 1e6


def test_a_model_never_seen_alone_shares_its_time_out() -> None:
    cost = CostModel()
    cost.learn(None, measured(8, 3, 2_000_000, 40_000_000, load=5))
    assert (cost.alone_ns.value, cost.per_row_ns.value) == (10e6, 2.5e6)
    cost.learn(None, measured(8, 3, 2_000_000, 60_000_000, load=1))
    cost.learn(None, measured(8, 3, 2_000_000, 60_000_000, load=5))
    assert (cost.alone_ns.value, cost.per_row_ns.value) == (30e6, 1.25e6)


def test_of_too_many_principals_the_one_seen_longest_ago_is_forgotten() -> None:
    cost = CostModel()

    def seen(name: str, output: int) -> None:
        cost.learn(None, Measured(name, 1, output, 1, 1, 1))

    seen("first", 1)
    seen("second", 1)
    seen("first", 3)
    for i in range(MAX_PRINCIPALS - 1):
        seen(f"p{i}", 9)
    assert cost.predict("first", 1, 0, 1).output_tokens == 2.0
    assert cost.predict("second", 1, 0, 1).output_tokens == cost.output.value


class Slow:
    """`Shares` without a heap: everyone is looked at each time."""

    def __init__(self) -> None:
        self.members: dict[str, list[float]] = {}  # counter, weight, open, active, since
        self.floor = 0.0
        self.tick = itertools.count(1)

    def lowest(self) -> float:
        active = [m[0] for m in self.members.values() if m[3]]
        self.floor = max(self.floor, min(active, default=self.floor))
        return self.floor

    def enter(self, name: str, weight: float) -> None:
        lowest = self.lowest()
        member = self.members.setdefault(name, [0.0, 1.0, 0, 0, 0])
        if not member[2]:
            member[0], member[1] = max(member[0], lowest), weight
        member[1] = max(member[1], weight)
        member[2] += 1


def test_shares_are_those_of_a_slower_way() -> None:
    for seed in range(60):
        rng, shares, slow = random.Random(seed), Shares(), Slow()
        for _ in range(150):
            name, what = f"m{rng.randrange(4)}", rng.randrange(5)
            member = slow.members.get(name)
            is_open = member is not None and member[2] > 0
            if what == 0:
                weight = rng.choice([1.0, 2.0, 4.0])
                shares.enter(name, weight)
                slow.enter(name, weight)
            elif member is None or not is_open:
                continue
            elif what == 1:
                shares.activate(name)
                member[3] = 1
            elif what == 2:
                shares.charge(name, tokens := rng.randrange(1, 30))
                member[0] += tokens / member[1]
            elif what == 3 and (member[2] > 1 or not member[3]):
                shares.exit(name)
                member[2] -= 1
            elif what == 4:
                shares.deactivate(name)
                member[3] = 0
            active = {n: m for n, m in slow.members.items() if m[3]}
            if active:
                least = min(m[0] for m in active.values())
                assert active[shares.first()][0] == least
                slow.lowest()
            for other, (counter, _, num_open, *_) in slow.members.items():
                if num_open:
                    assert shares.counter(other) == counter, (seed, other)


def test_who_never_waited_is_forgotten_when_nothing_is_open() -> None:
    shares = Shares()
    shares.enter("a", 1.0)
    shares.exit("a")
    assert len(shares) == 0
    shares.enter("a", 1.0)
    shares.charge("a", 5)
    shares.exit("a")  # had more than anyone: still known, or it would start anew
    assert len(shares) == 1


def running(slots: int, *names: str, tuning: Tuning | None = None, **changes: int) -> World:
    world, facts = World(tuning=tuning or Tuning(slice_tokens=10), **changes), model(slots=slots)
    world.step(ev.ModelWanted(facts, pin=False), after_ns=10**9)
    world.up("rep_1", slots)
    for name in names:
        world.arrive(name, facts, ServiceClass.BATCH)
    return world


def test_of_equals_the_one_that_came_first_gives_way() -> None:
    world = running(3, "a", "b", "c")
    (paused,) = of(do.PauseRow, world.arrive("high", model(slots=3), ServiceClass.INTERACTIVE))
    assert paused.request_id == "a"


def test_a_class_that_has_earned_a_whole_slice_gets_it_then_and_not_before() -> None:
    tuning = Tuning(slice_tokens=10, lowest_share=0.5)
    world, facts = running(1, tuning=tuning), model(slots=1)
    world.arrive("high", facts, ServiceClass.INTERACTIVE, prompt=4)
    world.arrive("low", facts, ServiceClass.BATCH)
    assert not of(do.PauseRow, world.tokens("rep_1", high=9))  # 18 of an answer: 9 earned
    (paused,) = of(do.PauseRow, world.tokens("rep_1", high=1))
    assert paused.request_id == "high"


def test_a_prompt_counts_one_a_token_and_an_answer_two() -> None:
    world, facts = running(1, tuning=Tuning(slice_tokens=1000)), model(slots=1)
    world.arrive("hold", facts, owner="x/x", prompt=1)
    for name, prompt in (("long", 41), ("short", 1)):
        world.arrive(f"{name}-1", facts, owner=f"{name}/k", prompt=prompt)
        world.arrive(f"{name}-2", facts, owner=f"{name}/k", prompt=1)
    order, now = [], "hold"
    for tokens in (1, 1, 19, 1):
        world.tokens("rep_1", **{now: tokens})
        (given,) = of(do.Dispatch, world.end(now))
        order.append(now := given.request_id)
    assert order == ["long-1", "short-1", "short-2", "long-2"]


def test_a_busy_model_makes_room_when_patience_is_over_and_not_before() -> None:
    world = World(patience_ns=10**9, min_residency_ns=1)
    world.step(ev.ModelWanted(model("a", 2 * GIB), pin=False), after_ns=10**9)
    world.up("rep_1", used=2 * GIB)
    world.arrive("busy", model("a", 2 * GIB))
    world.arrive("other", model("b", 2 * GIB))
    world.step(ev.Tick(), after_ns=10**9 - 1)
    assert world.state.replicas["rep_1"].state == "ready"
    world.step(ev.ModelWanted(model("b", 2 * GIB), pin=False), after_ns=1)
    assert world.state.replicas["rep_1"].state == "draining"


def test_a_model_that_took_long_to_load_is_left_in_peace_for_twice_that() -> None:
    world = World(patience_ns=10**9)
    world.step(ev.ModelWanted(model("a", 2 * GIB), pin=False), after_ns=10**9)
    world.arrive("busy", model("a", 2 * GIB))
    world.arrive("other", model("b", 2 * GIB))
    world.now_ns += 5 * 10**9
    world.up("rep_1", used=2 * GIB)
    world.step(ev.Tick(), after_ns=10 * 10**9 - 1)
    assert world.state.replicas["rep_1"].state == "ready"
    world.step(ev.ModelWanted(model("b", 2 * GIB), pin=False), after_ns=1)
    assert world.state.replicas["rep_1"].state == "draining"


def test_a_replica_is_kept_as_long_as_its_last_request_asked() -> None:
    world = running(1)
    world.arrive("r", model(slots=1), keep_alive_ns=7 * 10**9)
    world.end("r")
    assert not of(do.StopReplica, world.step(ev.Tick(), after_ns=7 * 10**9 - 10**8))
    assert of(do.StopReplica, world.step(ev.Tick(), after_ns=2 * 10**8))


def reason_to_yield(owner: str, had: float) -> str | None:
    """Of one of ann's key, after a slice and 30 tokens, to one of `owner`, who `had` so much."""
    policy = fair.make(Tuning(slice_tokens=10))
    owners = (("ann", "key"), tuple(owner.split("/")))
    now, then = (
        Waiting(name, i, i, ServiceClass.DEFAULT, 0, tenant, principal, 1.0, 10, 10)
        for i, (name, (tenant, principal)) in enumerate(zip("rw", owners, strict=True))
    )
    for one, tokens in ((now, 30), (then, had)):
        policy.join(one)
        policy.charge(one, tokens)
    policy.push(then)
    return policy.yields(now, 10)


def test_a_row_that_is_given_up_says_for_whom() -> None:
    for owner, had, whose in (
        ("ann/key", 0, "of the same principal"),
        ("ann/other", 20, "of a principal served less"),
        ("ann/other", 30, "of a principal served as much"),
        ("bob/key", 20, "of a tenant served less"),
        ("bob/key", 30, "of a tenant served as much"),
    ):
        reason = reason_to_yield(owner, had)
        assert reason == f"its slice is over, and a request {whose} waits", owner
    assert reason_to_yield("ann/other", 31) is reason_to_yield("bob/key", 31) is None


def test_a_row_given_up_because_nobody_reads_was_taken_by_nobody() -> None:
    world = running(1, "a")
    (paused,) = of(do.PauseRow, world.step(ev.ReaderStalled("a")))
    assert paused.kind is do.Pause.STALLED
    world.step(ev.ReaderResumed("a"))
    (taken,) = of(do.PauseRow, world.arrive("high", model(slots=1), ServiceClass.INTERACTIVE))
    assert taken.kind is do.Pause.PREEMPTED


def test_an_account_speaks_of_one_slice_and_of_several() -> None:
    world = running(1, "a", "b")
    world.now_ns += 10**9
    world.tokens("rep_1", a=10)
    world.end("b")
    world.end("a")
    said = [close.reason.partition(", ")[0] for close in of(do.Close, world.log)]
    assert said == ["ran 0.00 s in 1 slice", "ran 1.00 s in 2 slices"]
