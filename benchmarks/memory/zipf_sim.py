"""Six models on room for two, in virtual time: our rule against LRU and Ollama's.

The room holds two models and what four parked ones keep. Popularity is Zipf's (s = 1), arrivals are
Poisson, costs those of a 0.4 B model on a processor. All rules have the same patience, residency
and turns for models in use; they differ in what becomes of models that nobody uses: ours parks
them, by what their return will cost, the others stop them, the longest unused first (LRU), or the
one with the shortest keep-alive (Ollama; all have the same here, so it is LRU's order again).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks import harness
from llmos.kernel.core.eviction import Eviction
from llmos.kernel.core.limits import NS, Limits
from llmos.kernel.sim.calls import Call, poisson
from llmos.kernel.sim.report import ClassReport, Report, summarize
from llmos.kernel.sim.run import Simulation
from llmos.kernel.sim.setup import GIB, Setup
from llmos.kernel.sim.worker import StepCost

NUM_MODELS = 6
MODEL_BYTES = 2 * GIB
PARKED_BYTES = MODEL_BYTES // 10
ROOM_BYTES = 2 * MODEL_BYTES + 5 * PARKED_BYTES
PROMPT_TOKENS, OUTPUT_TOKENS = 64.0, 48.0
MS = NS // 1000
STEP = StepCost(fixed_ns=40 * MS, per_row_ns=2 * MS, per_prompt_ns=MS // 2)
LOADS = {"quiet, 0.2 a second": 0.2, "busy, 1 a second": 1.0, "saturated, 3 a second": 3.0}
SEEDS = range(5)
NUM_CALLS = 400
LONG_TURN_NS = 10 * NS
TURN_NS = NS


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of models in whose place another is wanted."""

    name: str
    eviction: Eviction
    parks: bool
    turn_ns: int = TURN_NS


OURS = Rule("ours", Eviction.COST, parks=True)
PEERS = (
    Rule("lru", Eviction.LRU, parks=False),
    Rule("keep-alive", Eviction.KEEP_ALIVE, parks=False),
    Rule("ours without parking", Eviction.COST, parks=False),
    Rule(f"ours, turns of {LONG_TURN_NS // NS} s", Eviction.COST, parks=True, turn_ns=LONG_TURN_NS),
)

FIGURES: dict[str, tuple[str, Callable[[Report, ClassReport], float]]] = {
    "first token, p95": ("s", lambda _, kind: _p95(kind.ttft_s)),
    "whole answer, p95": ("s", lambda _, kind: _p95(kind.e2e_s)),
    "answers a second": ("1/s", lambda report, kind: kind.num_finished / report.span_s),
    "time in loads": ("s", lambda report, _: report.loading_s),
}


def _p95(times_s: tuple[float, ...] | None) -> float:
    assert times_s is not None, "nothing finished"
    return times_s[1]


def calls(seed: int, rate_per_s: float) -> list[Call]:
    """The same for every rule."""
    rng = random.Random(seed)
    names = [f"model-{i + 1}" for i in range(NUM_MODELS)]
    shares = [1 / (i + 1) for i in range(NUM_MODELS)]
    drawn = poisson(rng, NUM_CALLS, rate_per_s, PROMPT_TOKENS, OUTPUT_TOKENS)
    return [replace(call, model=rng.choices(names, shares)[0]) for call in drawn]


def simulate(rule: Rule, trace: list[Call]) -> Report:
    """Everything finishes, or it is an error."""
    limits = Limits(
        max_waiting=NUM_CALLS,
        max_waiting_per_model=NUM_CALLS,
        max_open_per_tenant=NUM_CALLS,
        memory_budget_bytes=ROOM_BYTES,
        eviction=rule.eviction,
        parking=rule.parks,
        turn_ns=rule.turn_ns,
    )
    setup = Setup(
        limits=limits,
        cost=STEP,
        load_ns=2 * NS,
        unpark_ns=NS // 10,
        model_bytes={f"model-{i + 1}": MODEL_BYTES for i in range(NUM_MODELS)},
        kv_bytes_per_token=64 << 10,
        snapshots=True,
        parks=rule.parks,
        parked_bytes=PARKED_BYTES,
        is_hashed=False,
    )
    report = summarize(Simulation(setup, random.Random(0)).run(trace))
    assert report.ends == {"finished": NUM_CALLS}, report.ends
    return report


def rows(result: harness.Result) -> None:
    """Ratios of runs of the same trace, by load."""
    for load, rate_per_s in LOADS.items():
        traces = [calls(seed, rate_per_s) for seed in SEEDS]
        ours = [simulate(OURS, trace) for trace in traces]
        for peer in PEERS:
            theirs = [simulate(peer, trace) for trace in traces]
            for figure, (unit, value) in FIGURES.items():
                result.add(
                    harness.paired(
                        f"six models, {load}: {figure}",
                        unit,
                        [value(report, report.classes[0]) for report in ours],
                        peer.name,
                        [value(report, report.classes[0]) for report in theirs],
                    )
                )
        for name in ("num_loads", "num_parks", "num_unparks", "num_suspensions"):
            values = [float(getattr(report, name)) for report in ours]
            result.add(harness.single(f"six models, {load}: {name[4:]}", "times", values))


def main() -> None:
    """Print them."""
    rows(harness.Result("memory-zipf", "python -m benchmarks.memory.zipf_sim"))


if __name__ == "__main__":
    main()
