"""What a decision costs with 1,000 to 1,000,000 requests in the fair queue.

Measured with garbage collection off: the policy alone (push, pop, charge), and whole steps of the
core, divided by the decisions they make: an arrival, a token of a running batch, an end with the
dispatch that follows, a cancellation from the middle, a tick. Requests come from 1,000 tenants of
two principals each, of three classes; one in ten has a deadline. The bar is for the steps.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks import harness
from llmos.abi.events import Aborted, Finished, FinishReason
from llmos.abi.inference import Usage
from llmos.abi.policy import Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import NS, Limits
from llmos.kernel.core.policies import fair
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.state import State, initial
from llmos.kernel.core.step import step

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BAR_US = 50.0
NUM_TENANTS = 1000
NUM_SLOTS = 16
MODEL = ModelFacts("mdl_m", "m:1", 1 << 30, NUM_SLOTS)
HOUR_NS = 3600 * NS


def waiting(number: int, rng: random.Random) -> Waiting:
    return Waiting(
        request_id=f"req_{number}",
        arrival=number,
        ready_ns=number * 1000,
        service_class=rng.choice(
            (ServiceClass.BATCH, ServiceClass.DEFAULT, ServiceClass.INTERACTIVE)
        ),
        nice=rng.choice((0, 0, 5, -5)),
        tenant_id=f"tenant-{rng.randrange(NUM_TENANTS)}",
        principal_id=f"key-{rng.randrange(2)}",
        weight=rng.choice((1.0, 2.0, 4.0)),
        prompt_tokens=rng.randrange(1, 1000),
        expected_tokens=128,
    )


class Timer:
    """Mean µs of one call, over many: the processor's time, as others work on this machine too."""

    def __init__(self) -> None:
        self.us: dict[str, list[float]] = {}

    def time(self, what: str, calls: list[Callable[[], int | None]]) -> None:
        """A call's value is how many decisions it made; at least one."""
        began = time.process_time()
        num_decisions = sum(max(1, call() or 1) for call in calls)
        spent_us = (time.process_time() - began) * 1e6
        self.us.setdefault(what, []).append(spent_us / num_decisions)


def measure_policy(size: int, count: int, timer: Timer, rng: random.Random) -> None:
    """Push and pop with `size` queued; charge for one that runs."""
    policy = fair.make(Tuning())
    for number in range(size):
        one = waiting(number, rng)
        policy.join(one)
        policy.push(one)
    new = [waiting(size + i, rng) for i in range(count)]
    for one in new:
        policy.join(one)
    gc.collect()
    timer.time("push", [lambda w=w: policy.push(w) for w in new])  # type: ignore[misc]
    popped: list[Waiting] = []
    timer.time("pop", [lambda: popped.append(policy.pop())] * count)  # type: ignore[func-returns-value]
    timer.time("charge", [lambda w=w: policy.charge(w, 2.0) for w in popped])  # type: ignore[misc]


class Core:
    """A core with `size` requests queued behind a full replica."""

    def __init__(self, size: int, rng: random.Random) -> None:
        most = size * 4
        limits = Limits(
            max_waiting=most,
            max_waiting_per_model=most,
            max_waiting_tokens=most * 10_000,
            max_open_per_tenant=most,
        )
        self.rng = rng
        self.now_ns = NS
        self.state: State = initial(limits, lambda: fair.make(Tuning()))
        self.num = 0
        self.step(ev.ModelWanted(MODEL, pin=True))
        self.step(ev.ReplicaUp("rep_1", NUM_SLOTS, 1 << 30))
        for _ in range(size):
            self.arrive()

    def step(self, *events: ev.CoreEvent) -> int:
        """How many decisions it took."""
        self.now_ns += 1000
        return len(step(self.state, events, self.now_ns))

    def arrival(self) -> ev.Arrived:
        self.num += 1
        deadline_ns = self.now_ns + HOUR_NS if self.num % 10 == 0 else None
        return ev.Arrived(waiting(self.num, self.rng), MODEL, 256, deadline_ns)

    def arrive(self) -> None:
        self.step(self.arrival())

    @property
    def running(self) -> list[str]:
        return list(self.state.replicas["rep_1"].running)

    def end(self) -> int:
        """A running one ends, and the next gets its row."""
        request_id = self.running[0]
        return self.step(
            ev.Ended(request_id, Finished(request_id, FinishReason.STOP, Usage(10, 100)))
        )

    def token(self) -> int:
        """One engine step of all rows."""
        return self.step(ev.Progressed("rep_1", [(request_id, 1) for request_id in self.running]))


def measure_core(size: int, count: int, timer: Timer, rng: random.Random) -> None:
    core = Core(size, rng)
    arrivals = [core.arrival() for _ in range(count)]
    gc.collect()
    timer.time("step: arrival", [lambda e=e: core.step(e) for e in arrivals])  # type: ignore[misc]
    timer.time("step: end and dispatch", [core.end] * count)
    timer.time("step: a token of 16 rows", [core.token] * count)
    queued = [r for r, request in core.state.requests.items() if request.replica_id is None]
    gone = rng.sample(queued, min(count, len(queued) // 2))
    timer.time(
        "step: cancellation",
        [lambda r=r: core.step(ev.Cancelled(r, "left")) for r in gone],  # type: ignore[misc]
    )
    timer.time("step: tick", [lambda: tick(core)] * min(count, 50))
    core.step(*(ev.Ended(r, Aborted(r, "over")) for r in core.running))


def tick(core: Core) -> int:
    """A due alarm, as one comes at least every 50 ms while anyone has a deadline."""
    core.state.wake_at(core.now_ns + 1)
    core.now_ns += NS // 10
    return core.step(ev.Tick())


def report(result: harness.Result, timers: dict[int, Timer]) -> bool:
    """A row for each figure and size, and the growth against log n. True if both bars hold."""
    holds = True
    small, large = min(timers), max(timers)
    for what in timers[small].us:
        for size, timer in timers.items():
            unit = "µs" + (" a decision" if "step" in what else "")
            row = harness.single(f"{what}, {size:,} queued", unit, timer.us[what])
            result.add(row)
            holds &= row.value <= BAR_US or "step" not in what
        first = statistics.median(timers[small].us[what])
        last = statistics.median(timers[large].us[what])
        growth, bound = last / first, math.log2(large) / math.log2(small)
        result.add(
            harness.Row(
                f"{what}: growth, {small:,} to {large:,}",
                harness.round4(growth),
                "times",
                "log n",
                harness.round4(bound),
                harness.round4(growth / bound),
            )
        )
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000, help="operations per figure")
    parser.add_argument("--max-queued", type=int, default=SIZES[-1])
    arguments = parser.parse_args()
    result = harness.Result("queue", harness.command("queue"))
    timers = {size: Timer() for size in SIZES if size <= arguments.max_queued}
    gc.disable()
    for size, timer in timers.items():
        for repetition in range(arguments.repetitions):
            rng = random.Random(repetition)
            measure_policy(size, arguments.count, timer, rng)
            measure_core(size, arguments.count, timer, rng)
            gc.collect()
    holds = report(result, timers)
    print(result.write().relative_to(harness.ROOT))
    print("every decision within the bar" if holds else f"NOT every decision within {BAR_US} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
