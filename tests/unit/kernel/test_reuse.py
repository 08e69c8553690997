"""How likely a model is wanted again: figures worked out by hand."""

from __future__ import annotations

import math
import random

from pytest import approx

from llmos.kernel.core import reuse
from llmos.kernel.core.reuse import Demand

S = 10**9
LN2 = math.log(2)


def test_an_arrival_counts_half_after_each_half_life() -> None:
    demand = Demand(120 * S)
    assert demand.rate_per_s("a", 0) == 0.0
    demand.arrived("a", 5 * S)
    assert demand.rate_per_s("a", 5 * S) == LN2 / 120
    assert demand.rate_per_s("a", 125 * S) == LN2 / 240
    assert demand.rate_per_s("a", 245 * S) == LN2 / 480
    demand.arrived("a", 245 * S)
    assert demand.rate_per_s("a", 245 * S) == approx(1.25 * LN2 / 120)
    assert demand.rate_per_s("b", 245 * S) == 0.0


def test_the_probability_is_that_of_the_next_arrival_of_a_poisson_process() -> None:
    demand = Demand(120 * S)
    demand.arrived("a", 0)
    assert demand.probability("a", 120 * S, 0) == approx(0.5)  # one arrival, one half-life
    assert demand.probability("a", 120 * S, 120 * S) == approx(1 - 2**-0.5)
    assert demand.probability("a", 0, 0) == 0.0
    assert demand.probability("a", -5, 0) == 0.0
    assert demand.probability("a", 10**30, 0) == 1.0
    assert demand.probability("b", 120 * S, 0) == 0.0
    assert demand.probability("a", 1, 0) == approx(LN2 / 120 * 1e-9)  # small ones are not 0


def test_steady_arrivals_are_measured_as_they_are_for_days() -> None:
    demand = Demand(60 * S)
    now_ns = 0
    for _ in range(3 * 24 * 3600 // 4):  # three days, one every 4 s
        now_ns += 4 * S
        demand.arrived("a", now_ns)
    count = 1 / (1 - 2 ** (-4 / 60))  # the sum of the weights, just after one
    assert demand.rate_per_s("a", now_ns) == approx(count * LN2 / 60, rel=1e-12)
    assert demand.rate_per_s("a", now_ns) == approx(0.25, rel=0.03)


def test_an_earlier_time_is_taken_for_now() -> None:
    demand = Demand(60 * S)
    demand.arrived("a", 100 * S)
    demand.arrived("a", 40 * S)
    assert demand.rate_per_s("a", 40 * S) == 2 * LN2 / 60
    assert demand.rate_per_s("a", 160 * S) == LN2 / 60


def test_models_that_are_as_good_as_never_wanted_are_forgotten() -> None:
    demand = Demand(10 * S)
    demand.arrived("old", 0)
    demand.arrived("new", 199 * S)
    assert len(demand) == 2
    assert demand.rate_per_s("old", 200 * S) == approx(2**-20 * LN2 / 10)
    assert demand.rate_per_s("old", 201 * S) == 0.0  # also before anyone sweeps
    demand.arrived("new", 211 * S)
    assert len(demand) == 1
    assert demand.rate_per_s("old", 211 * S) == 0.0


def test_of_too_many_models_those_least_wanted_are_forgotten() -> None:
    demand = Demand()
    for i in range(10):
        demand.arrived("often", i)
    for i in range(3 * reuse.MAX_MODELS):
        demand.arrived(f"m{i}", 1000 + i * S // 100)
        assert len(demand) <= reuse.MAX_MODELS
    now_ns = 1000 + 3 * reuse.MAX_MODELS * S // 100
    assert demand.rate_per_s("often", now_ns) > demand.rate_per_s("m0", now_ns) == 0.0


def test_it_finds_the_rate_of_real_poisson_arrivals() -> None:
    rng, demand, now_ns, rates = random.Random(1), Demand(120 * S), 0, []
    for _ in range(20_000):
        now_ns += int(rng.expovariate(0.5) * S)
        rates.append(demand.rate_per_s("a", now_ns))
        demand.arrived("a", now_ns)
    settled = rates[1000:]
    assert sum(settled) / len(settled) == approx(0.5, rel=0.03)
