"""Small random worlds, all drawn from one seed: where the core's bugs are looked for.

Bounds, slots, slices and memory are so tight that each of them is hit within a few dozen requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmos.abi.policy import MakePolicy, Tuning
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.eviction import Eviction
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.policies import fair, fifo, priority, round_robin
from llmos.kernel.core.replica import HOST
from llmos.kernel.sim.calls import Call
from llmos.kernel.sim.faults import ALL, HEAVY, Faults
from llmos.kernel.sim.run import Ran, Simulation
from llmos.kernel.sim.setup import GIB, Setup
from llmos.kernel.sim.worker import StepCost

POLICIES: dict[str, MakePolicy] = {
    "fair": fair.make,
    "priority": priority.make,
    "round-robin": round_robin.make,
    "fifo": fifo.make,
}
MS = 1_000_000
MIB = 1 << 20
DEVICE = "gpu"
MODEL_BYTES = {"a": GIB, "b": 2 * GIB, "c": GIB // 2}


@dataclass(frozen=True, slots=True)
class World:
    """A setup, the calls that come, and the rest of the seed's chance for the run itself."""

    setup: Setup
    calls: list[Call]
    rng: random.Random

    def run(self) -> Ran:
        """Raises Violation."""
        return Simulation(self.setup, self.rng).run(self.calls)


def world(seed: int, *, check_every: int = 1, is_hashed: bool = False) -> World:
    """The world of a seed: the same in every process."""
    rng = random.Random(seed)
    policy = rng.choice(list(POLICIES))
    setup = Setup(
        policy=policy,
        make_policy=POLICIES[policy],
        num_machines=rng.choice([1, 1, 2]),
        num_slots=rng.choice([1, 2, 3]),
        limits=_limits(rng.choice),
        tuning=Tuning(
            rng.choice([1, 3, 8]), rng.choice([0, 5, 50]) * MS, rng.choice([0.01, 0.1, 0.5])
        ),
        cost=StepCost(2 * MS, MS // 2, MS // 20, rng.choice([16, 64])),
        faults=rng.choice([Faults(), Faults(), Faults(), ALL, ALL, ALL, ALL, ALL, ALL, HEAVY]),
        **_memory(rng.choice),
        load_ns=50 * MS,
        park_ns=5 * MS,
        unpark_ns=10 * MS,
        spill_ns=rng.choice([5, 50]) * MS,
        measure_ns=50 * MS,
        stop_ns=10 * MS,
        probe_timeout_ns=300 * MS,
        fault_span_ns=500 * MS,
        model_bytes=MODEL_BYTES,
        check_every=check_every,
        is_hashed=is_hashed,
    )
    return World(setup, _calls(rng), rng)


def _limits(choice: Callable[[list[Any]], Any]) -> Limits:
    return Limits(
        max_waiting=choice([8, 20, 100]),
        max_waiting_per_model=choice([6, 12, 50]),
        max_waiting_tokens=choice([300, 2000, 10**6]),
        max_open_per_tenant=choice([4, 8, 50]),
        max_parked=choice([0, 1, 2, 4]),
        memory_budget_bytes=choice([2, 3, 4]) * GIB,
        keep_alive_ns=choice([100, 1000, 5000]) * MS,
        stall_timeout_ns=choice([100, 1000]) * MS,
        patience_ns=choice([50, 300]) * MS,
        min_backoff_ns=50 * MS,
        max_backoff_ns=400 * MS,
        cooldown_ns=500 * MS,
        max_preemptions=choice([0, 1, 3]),
        min_residency_ns=choice([20, 100]) * MS,
        turn_ns=choice([20, 100]) * MS,
        room_timeout_ns=choice([200, 2000, 60_000]) * MS,
        suspend_retry_ns=choice([50, 400]) * MS,
        max_snapshot_memory_bytes=choice([0, GIB // 4, GIB]),
        parking=choice([True, True, False]),
        eviction=choice([Eviction.COST, Eviction.COST, Eviction.LRU, Eviction.KEEP_ALIVE]),
        device_budgets=((DEVICE, choice([1, 2]) * GIB),),
    )


def _memory(choice: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """What its models' drivers can do, down to nothing."""
    return {
        "device": choice([HOST, HOST, HOST, DEVICE]),
        "kv_bytes_per_token": choice([0, MIB, 8 * MIB]),
        "snapshots": choice([True, True, False]),
        "parks": choice([True, True, False]),
        "parked_bytes": choice([0, GIB // 8]),
    }


def _calls(rng: random.Random) -> list[Call]:
    models = rng.choice(["a", "b", "ab", "abc"])
    gap_ns = rng.choice([2, 8]) * MS
    calls, at_ns = [], 0
    for _ in range(rng.choice([10, 20, 30])):
        at_ns += int(rng.expovariate(1 / gap_ns))
        calls.append(
            Call(
                at_ns,
                prompt_tokens=rng.randrange(1, 40),
                output_tokens=1 + int(rng.expovariate(1 / 8)),
                tenant=f"t{rng.randrange(3)}",
                principal=f"p{rng.randrange(4)}",
                service_class=rng.choice(list(ServiceClass)),
                model=rng.choice(models),
                nice=rng.choice([0, 0, 0, -20, 19, 5]),
                weight=rng.choice([1.0, 1.0, 2.0]),
                max_tokens=rng.choice([0, 0, 5]),
                deadline_ns=rng.choice([None, None, None, None, 20 * MS, 200 * MS]),
            )
        )
    return calls
