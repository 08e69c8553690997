"""The simulator itself: determinism, what it counts, and that its watchers see what is wrong."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from llmos.abi.events import Aborted
from llmos.errors import InvalidRequest
from llmos.kernel.core import decisions as do
from llmos.kernel.core.limits import Limits
from llmos.kernel.sim.calls import Call, poisson
from llmos.kernel.sim.fairness import jain
from llmos.kernel.sim.faults import ALL, NAMES, Faults, parse
from llmos.kernel.sim.report import summarize
from llmos.kernel.sim.run import Simulation
from llmos.kernel.sim.setup import Setup
from llmos.kernel.sim.small import world
from llmos.kernel.sim.witness import RULES, Violation, Witness
from llmos.kernel.sim.worker import SimWorker, StepCost

HASH = """
from llmos.kernel.sim.small import world
print(*(world(seed, is_hashed=True).run().hash for seed in (3, 4, 5)))
"""


def test_same_seed_same_hash_in_any_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", HASH],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {" ".join(world(s, is_hashed=True).run().hash for s in (3, 4, 5)) + "\n"}
    assert len(set(found.pop().split())) == 3


def test_small_worlds_break_no_promise_and_lose_nothing() -> None:
    ends: set[str] = set()
    injected: Counter[str] = Counter()
    for seed in range(200):
        ran = world(seed).run()
        injected += ran.injected
        assert all(o.end != "open" for o in ran.outcomes)
        ends |= {o.end for o in ran.outcomes}
    assert {"finished", "aborted", "queue_full", "worker_lost", "load_failed"} <= ends
    assert all(injected[name] > 1 for name in NAMES), injected


@pytest.mark.parametrize("num_machines", [1, 4])
def test_without_faults_everything_finishes(num_machines: int) -> None:
    setup = Setup(num_machines=num_machines, num_slots=4, check_every=10)
    rng = random.Random(1)
    ran = Simulation(setup, rng).run(poisson(rng, 200, 3.0, 50, 20))
    report = summarize(ran)
    assert report.ends == {"finished": 200}
    assert 0 < report.utilisation <= 1
    (kind,) = report.classes
    assert kind.num_finished == 200
    assert kind.ttft_s is not None
    assert kind.e2e_s is not None
    assert kind.ttft_s[0] <= kind.ttft_s[2] <= kind.e2e_s[2]
    assert sum(report.tokens_by_tenant.values()) == sum(o.call.output_tokens for o in ran.outcomes)
    assert len({o.machine for o in ran.outcomes}) == num_machines


def test_a_run_of_nothing() -> None:
    report = summarize(Simulation(Setup(), random.Random(0)).run([]))
    assert (report.num_calls, report.classes, report.jain) == (0, [], 1.0)


def test_a_step_costs_what_its_rows_do() -> None:
    worker = SimWorker(StepCost(100, 10, 1, chunk_tokens=8))
    worker.submit("a", 10, 2)
    worker.submit("b", 3, 1)
    assert worker.begin() == 108  # eight of a's prompt
    assert worker.finish() == ([], [])
    assert worker.begin() == 105  # its last two, and b's three
    assert worker.finish() == ([("a", 1), ("b", 1)], ["b"])
    assert worker.begin() == 110
    worker.pause("a")
    assert worker.finish() == ([("a", 1)], ["a"])  # the step was under way
    assert worker.begin() == 0


def test_faults_are_parsed_or_refused() -> None:
    assert parse("none") == Faults()
    assert parse("all") == ALL
    assert parse("crashed=0.5, late=1") == Faults(crashed=0.5, late=1.0)
    for text in ("crash=1", "late", "late=2", "late=nan", "late=x"):
        with pytest.raises(InvalidRequest):
            parse(text)


def test_jain() -> None:
    assert jain([1, 1, 1, 1]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([]) == jain([0, 0]) == 1


def test_the_witness_sees_a_second_end() -> None:
    witness = Witness(Limits(), RULES["fair"], 0)
    close = do.Close("req_1", Aborted("req_1", "left"))
    with pytest.raises(Violation, match="ended twice"):
        witness.saw([close], 1)


def test_a_core_that_forgets_is_found_out() -> None:
    simulation = Simulation(Setup(num_slots=1, is_hashed=False), random.Random(0))
    machine = simulation.machines[0]
    original = machine.state.make_policy

    class Forgetful:
        """Whoever is pushed is lost."""

        def __init__(self) -> None:
            self._policy = original()

        def __len__(self) -> int:
            return 0

        def push(self, waiting: object) -> None:
            pass

        def __getattr__(self, name: str) -> object:
            return getattr(self._policy, name)

    machine.state.make_policy = Forgetful  # type: ignore[assignment]
    with pytest.raises(Violation, match="nothing will happen"):
        simulation.run([Call(0, 1, 1)])


def test_faults_are_drawn_from_the_seed() -> None:
    first = world(1)
    second = replace(world(1), rng=random.Random(99))
    hashed = replace(first.setup, is_hashed=True, faults=ALL)
    runs = [Simulation(hashed, w.rng).run(w.calls).hash for w in (first, second)]
    assert runs[0] != runs[1]
