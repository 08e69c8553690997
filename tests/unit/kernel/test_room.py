"""The plan that makes room: beside every subset on small cases, by its properties on larger."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.kernel.core.room import Act, Choice, plan_in_order, plan_room

Candidates = list[list[Choice]]
GIB = 2**30
ACTS = list(Act)


def frees(chosen: Iterable[Choice], device: str) -> int:
    return sum(choice.frees.get(device, 0) for choice in chosen)


def covers(chosen: Iterable[Choice], missing: Mapping[str, int]) -> bool:
    chosen = list(chosen)
    return all(frees(chosen, device) >= size for device, size in missing.items())


def value(chosen: Sequence[Choice]) -> tuple[object, ...]:
    """As the rule says it: cost, number, bytes, names, the milder acts."""
    num_bytes = sum(sum(choice.frees.values()) for choice in chosen)
    names = sorted((choice.owner, ACTS.index(choice.act)) for choice in chosen)
    return sum(choice.cost for choice in chosen), len(chosen), num_bytes, names


def by_trying_all(missing: Mapping[str, int], candidates: Candidates) -> list[Choice] | None:
    sets = (
        [choice for choice in picked if choice is not None]
        for picked in itertools.product(*[[None, *choices] for choices in candidates])
    )
    best = min((s for s in sets if covers(s, missing)), key=value, default=None)
    return None if best is None else sorted(best, key=lambda choice: choice.owner)


def small_case(rng: random.Random) -> tuple[dict[str, int], Candidates]:
    """Ties abound: sizes and costs are small whole numbers."""
    devices = ["host", "cuda:0"][: rng.choice((1, 2))]
    top = rng.choice((2, 4, 9))
    candidates = [
        [
            Choice(
                f"rep_{i}",
                act,
                {device: rng.randrange(top) for device in devices},
                float(rng.randrange(top)),
            )
            for act in rng.sample(ACTS, rng.randrange(1, 4))
        ]
        for i in range(rng.randrange(1, 8 if top < 9 else 6))
    ]
    return {device: rng.randrange(-1, 3 * top) for device in devices}, candidates


def test_no_subset_is_better_than_the_plan() -> None:
    rng = random.Random(4)
    num_met = 0
    for _ in range(600):
        missing, candidates = small_case(rng)
        plan = plan_room(missing, candidates)
        assert plan == by_trying_all(missing, candidates), (missing, candidates)
        num_met += bool(plan)
    assert 200 < num_met < 560


sizes = st.integers(0, 6)
choices = st.builds(
    lambda act, host, device, cost: ("", act, {"host": host, "cuda:0": device}, cost),
    st.sampled_from(ACTS), sizes, sizes, st.sampled_from([0.0, 0.1, 0.2, 0.25, 1.0, 3.0]),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.lists(choices, min_size=1, max_size=3, unique_by=lambda c: c[1]), max_size=5),
    st.integers(0, 14),
    st.integers(0, 14),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_candidates_does_not_matter(
    drawn: list[list[tuple[str, Act, dict[str, int], float]]],
    host: int,
    device: int,
    rng: random.Random,
) -> None:
    candidates = [
        [Choice(f"rep_{i}", act, freed, cost) for _, act, freed, cost in alternatives]
        for i, alternatives in enumerate(drawn)
    ]
    missing = {"host": host, "cuda:0": device}
    plan = plan_room(missing, candidates)
    shuffled = [rng.sample(alternatives, len(alternatives)) for alternatives in candidates]
    rng.shuffle(shuffled)
    assert plan_room(missing, shuffled) == plan
    found = by_trying_all(missing, candidates)
    assert (plan is None) == (found is None)
    if plan is not None and found is not None:  # decimal costs: equal, or better by a last bit
        assert abs(value(plan)[0] - value(found)[0]) < 1e-9  # type: ignore[operator]


def large_case(rng: random.Random, num: int) -> tuple[dict[str, int], Candidates]:
    """Models of many sizes, each to be parked or stopped, some with a part on a device."""
    candidates = []
    for i in range(num):
        size, wanted = rng.randrange(GIB // 4, 8 * GIB), rng.choice((0.0, rng.random()))
        device = rng.choice((0, 0, size))
        parked = {"host": size * 7 // 10, "cuda:0": device}
        stopped = {"host": size, "cuda:0": device}
        candidates.append(
            [
                Choice(f"rep_{i:02}", Act.PARK, parked, 0.4 * size * wanted),
                Choice(f"rep_{i:02}", Act.STOP, stopped, size * wanted),
            ]
        )
    most = {d: sum(frees([stop], d) for _, stop in candidates) for d in ("host", "cuda:0")}
    return {d: int(size * rng.uniform(0, 1.02)) for d, size in most.items()}, candidates


def greedy(missing: Mapping[str, int], candidates: Candidates) -> list[Choice]:
    """Stop the cheapest for what it frees, again and again, and spare whom one can."""
    total = [(stop.cost / sum(stop.frees.values()), stop) for _, stop in candidates]
    plan = plan_in_order(missing, [stop for _, stop in sorted(total, key=lambda pair: pair[0])])
    assert plan is not None
    return plan


def check_plan(missing: Mapping[str, int], candidates: Candidates, plan: list[Choice]) -> None:
    assert covers(plan, missing)
    owners = [choice.owner for choice in plan]
    assert owners == sorted(set(owners))
    assert all(any(choice in alternatives for alternatives in candidates) for choice in plan)
    for choice in plan:
        assert not covers([other for other in plan if other is not choice], missing)


def test_larger_plans_hold_what_they_promise() -> None:
    rng = random.Random(11)
    for _ in range(25):
        missing, candidates = large_case(rng, rng.randrange(8, 41))
        everything = [stop for _, stop in candidates]
        plan = plan_room(missing, candidates)
        assert (plan is not None) == covers(everything, missing)
        if plan is not None:
            check_plan(missing, candidates, plan)
            cost = sum(choice.cost for choice in plan)
            assert cost <= sum(c.cost for c in greedy(missing, candidates)) * (1 + 1e-12)
            rng.shuffle(candidates)
            assert plan_room(missing, candidates) == plan


def one(owner: str, size: int, cost: float = 0.0, act: Act = Act.STOP) -> Choice:
    return Choice(owner, act, {"host": size}, cost)


def test_nothing_missing_costs_nothing() -> None:
    assert plan_room({}, []) == []
    assert plan_room({"host": 0, "cuda:0": -5}, [[one("a", 3)]]) == []
    assert plan_room({"host": 1}, []) is None
    assert plan_room({"host": 4}, [[one("a", 3)]]) is None


def test_a_milder_act_is_enough_when_it_is() -> None:
    alternatives = [one("a", 7, 3.0, Act.PARK), one("a", 10, 9.0)]
    assert plan_room({"host": 7}, [alternatives]) == alternatives[:1]
    assert plan_room({"host": 8}, [alternatives]) == alternatives[1:]
    assert plan_room({"host": 8}, [alternatives, [one("b", 1, 5.0)]]) == [
        alternatives[0],
        one("b", 1, 5.0),
    ]


def test_equal_costs_are_settled_by_number_bytes_and_name() -> None:
    assert plan_room({"host": 2}, [[one("a", 1)], [one("b", 1)], [one("c", 9)]]) == [one("c", 9)]
    assert plan_room({"host": 2}, [[one("a", 9)], [one("b", 2)]]) == [one("b", 2)]
    assert plan_room({"host": 2}, [[one("b", 2)], [one("a", 2)]]) == [one("a", 2)]
    mild = one("a", 2, 0.0, Act.SPARE)
    assert plan_room({"host": 2}, [[one("a", 2), mild]]) == [mild]


def test_costs_of_any_magnitude_are_compared() -> None:
    """A tiny chance of being wanted makes a tiny cost, which once overflowed as a ratio."""
    a, b, c = one("a", GIB, 1e-300), one("b", GIB, 1e30), one("c", GIB, 1e300)
    assert plan_room({"host": GIB}, [[c], [b], [a]]) == [a]
    assert plan_room({"host": 2 * GIB}, [[c], [b], [a]]) == [a, b]
    assert plan_room({"host": 1, "cuda:0": -1}, [[c]]) == [c]
    with pytest.raises(AssertionError, match="finite"):
        plan_room({"host": 1}, [[one("a", 1, float("inf"))]])
    with pytest.raises(AssertionError, match="finite"):
        plan_room({"host": 1}, [[one("a", 1, -1.0)]])


def test_devices_may_be_freed_by_alternatives_of_one_owner_only() -> None:
    host, device = Choice("a", Act.SPILL, {"host": 5}, 1.0), Choice("a", Act.PARK, {"cuda:0": 5}, 1)
    other = Choice("b", Act.PARK, {"cuda:0": 5}, 10.0)
    missing = {"host": 5, "cuda:0": 5}
    assert plan_room(missing, [[host, device]]) is None
    assert plan_room(missing, [[host, device], [other]]) == [host, other]


def test_in_order_the_longest_idle_go_and_the_last_superfluous_are_spared() -> None:
    a, b, c, d = one("a", 2), one("b", 1), one("c", 5), one("d", 9)
    assert plan_in_order({"host": 3}, [a, b, c, d]) == [a, b]
    assert plan_in_order({"host": 5}, [a, b, c, d]) == [c]
    assert plan_in_order({"host": 7}, [a, b, c, d]) == [a, c]
    assert plan_in_order({"host": 6}, [a, b, c, d]) == [a, c]
    assert plan_in_order({"host": 17}, [a, b, c, d]) == [a, b, c, d]
    assert plan_in_order({"host": 18}, [a, b, c, d]) is None
    assert plan_in_order({"host": 0}, [a]) == []


def test_in_order_who_frees_nothing_of_use_is_passed_over() -> None:
    device = Choice("x", Act.STOP, {"cuda:0": 4}, 0.0)
    both = Choice("y", Act.STOP, {"host": 4, "cuda:0": 4}, 0.0)
    assert plan_in_order({"host": 2}, [device, both]) == [both]
    assert plan_in_order({"host": 2, "cuda:0": 2}, [one("a", 2), device, both]) == [
        one("a", 2),
        device,
    ]


def test_in_order_no_member_of_a_plan_is_superfluous() -> None:
    rng = random.Random(5)
    for _ in range(250):
        missing, candidates = small_case(rng)
        ordered = [alternatives[0] for alternatives in candidates]
        plan = plan_in_order(missing, ordered)
        assert (plan is not None) == covers(ordered, missing)
        if plan is not None:
            assert [c for c in ordered if c in plan] == plan
            assert all(not covers([c for c in plan if c is not out], missing) for out in plan)
