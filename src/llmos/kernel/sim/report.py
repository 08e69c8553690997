"""What a run comes to: latency by class, fairness, use, refusals. Times in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llmos.kernel.sim.calls import NS
from llmos.kernel.sim.fairness import jain
from llmos.kernel.sim.run import Outcome, Ran

SHARES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Of one service class. Percentiles p50, p95, p99 of finished requests; None without any."""

    service_class: str
    num_calls: int
    num_finished: int
    num_refused: int
    num_failed: int
    num_preemptions: int
    ttft_s: tuple[float, ...] | None
    e2e_s: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Report:
    """`jain`: over tenants that compete, see `fairness`; `jain_total`: over what each got in all.

    `utilisation`: rows held by requests, of all rows from the first arrival to the last end.
    `injected`: faults that came true, by name. `num_evictions`: models stopped to make room.
    `loading_s`: of all replicas together, until they were up or back.
    """

    policy: str
    num_machines: int
    num_slots: int
    num_calls: int
    num_preemptions: int
    num_suspensions: int
    num_loads: int
    num_parks: int
    num_unparks: int
    num_evictions: int
    loading_s: float
    span_s: float
    tokens_per_s: float
    utilisation: float
    jain: float
    jain_total: float
    num_windows: int
    ends: dict[str, int]
    classes: list[ClassReport]
    tokens_by_tenant: dict[str, int]
    injected: dict[str, int]
    hash: str


def summarize(ran: Ran) -> Report:
    """O(n log n) in the calls."""
    setup, outcomes = ran.setup, ran.outcomes
    span_ns = max(1, ran.ended_ns - ran.began_ns)
    kinds = sorted({o.call.service_class for o in outcomes}, reverse=True)
    tokens: Counter[str] = Counter()
    for outcome in outcomes:
        tokens[outcome.call.tenant] += outcome.num_tokens
    return Report(
        policy=setup.policy,
        num_machines=setup.num_machines,
        num_slots=setup.num_slots,
        num_calls=len(outcomes),
        num_preemptions=sum(o.num_preemptions for o in outcomes),
        num_suspensions=ran.num_moves["SuspendRow"],
        num_loads=ran.num_moves["StartReplica"],
        num_parks=ran.num_moves["ParkReplica"],
        num_unparks=ran.num_moves["UnparkReplica"],
        num_evictions=ran.num_moves["Evicted"],
        loading_s=ran.loading_ns / NS,
        span_s=span_ns / NS,
        tokens_per_s=tokens.total() / span_ns * NS,
        utilisation=ran.row_ns / (span_ns * setup.num_slots * setup.num_machines),
        jain=ran.fairness.index,
        jain_total=jain(list(ran.fairness.totals.values())),
        num_windows=len(ran.fairness.windows),
        ends=dict(sorted(Counter(o.end for o in outcomes).items())),
        classes=[
            _of_class(kind.name.lower(), [o for o in outcomes if o.call.service_class == kind])
            for kind in kinds
        ],
        tokens_by_tenant=dict(sorted(tokens.items())),
        injected={name: count for name, count in sorted(ran.injected.items()) if count},
        hash=ran.hash,
    )


def _of_class(name: str, outcomes: list[Outcome]) -> ClassReport:
    finished = [o for o in outcomes if o.end == "finished"]
    num_refused = sum(o.dispatched_ns is None and o.end not in _OURS for o in outcomes)
    return ClassReport(
        name,
        len(outcomes),
        len(finished),
        num_refused,
        len(outcomes) - len(finished) - num_refused,
        sum(o.num_preemptions for o in outcomes),
        ttft_s=_percentiles([(o.first_ns or 0) - o.arrived_ns for o in finished]),
        e2e_s=_percentiles([(o.ended_ns or 0) - o.arrived_ns for o in finished]),
    )


_OURS = ("finished", "aborted", "open")


def _percentiles(values_ns: Sequence[int]) -> tuple[float, ...] | None:
    """The smallest value with at least the share of the values at or below it."""
    if not values_ns:
        return None
    ordered = sorted(values_ns)
    return tuple(ordered[max(0, -int(-share * len(ordered) // 1) - 1)] / NS for share in SHARES)
