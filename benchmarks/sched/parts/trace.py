"""f. A window of a recorded trace on a real worker, beside what the simulator says of it.

The worker runs echo with a delay per token, so that both sides know the engine's speed exactly and
what differs is the kernel, its wires and its clock. Service classes and tenants are dealt out in a
fixed pattern: the trace has none.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from benchmarks.harness import ROOT, paired, percentile, single
from benchmarks.sched import system
from benchmarks.sched.arrivals import TraceEntry, read_trace, window
from benchmarks.sched.client import Group
from benchmarks.sched.records import OK, Record
from benchmarks.sched.system import ECHO_MAX_TOKENS, NUM_SLOTS, Context
from benchmarks.serving import Server
from llmos.abi.principal import ServiceClass

TRACE = "traces/AzureLLMInferenceTrace_conv.csv"
START_S = 600.0
STRETCH = 1.6
"""Seconds of ours per second of the trace: at 1.4, 16 rows are full at TOKEN_MS."""
TOKEN_MS = 20
PROMPT_SCALE = 8
"""Prompts are so many times shorter: echo does not read them, and the client must send them."""
MAX_PROMPT_TOKENS = 1024
CLASSES = ("interactive", "default", "default", "batch")
TENANTS = ("first", "second", "third")
NS = 1_000_000_000
ALL = "all"


def measure(context: Context) -> None:
    """Percentiles of time to first token and of latency, real / simulated."""
    data = Path(os.environ.get("LLMOS_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (data / TRACE).exists():
        print(f"part f is left out: no {TRACE} in LLMOS_TEST_DATA", flush=True)
        return
    duration_s = context.window_s(30.0, 300.0)
    entries = window(read_trace(data / TRACE), START_S, duration_s / STRETCH, duration_s)
    for policy in ("fair", "fifo") if context.full else ("fair",):
        real = _run(entries, policy, duration_s)
        simulated = _simulate(entries, policy)
        _report(context, policy, real, simulated)


def _kind(index: int) -> tuple[str, str]:
    """Class and tenant of the trace's request of this number."""
    return CLASSES[index % len(CLASSES)], TENANTS[index % len(TENANTS)]


def _prompt_tokens(entry: TraceEntry) -> int:
    return max(1, min(MAX_PROMPT_TOKENS, entry.prompt_tokens // PROMPT_SCALE))


def _run(entries: list[TraceEntry], policy: str, duration_s: float) -> list[Record]:
    """On the server, one worker."""
    settings = (f"kernel.policy={policy}", f"kernel.num_slots={NUM_SLOTS}")
    with system.echo(*settings) as server:
        secrets = system.add_keys(server, dict.fromkeys(TENANTS, 1.0))
        groups = [_group(server, secrets, index, entry) for index, entry in enumerate(entries)]
        records = system.run(server, groups, duration_s, drain_s=120.0)
    if any(record.status != OK for record in records):
        raise RuntimeError("not all of the trace was answered")
    return sorted(records, key=lambda record: record.due_s)


def _group(server: Server, secrets: dict[str, str], index: int, entry: TraceEntry) -> Group:
    service_class, tenant = _kind(index)
    # the simulator's request waits for half a step on average, and takes one for its first token
    script = {
        "tokens": entry.output_tokens,
        "delay_ms": TOKEN_MS,
        "first_delay_ms": 1.5 * TOKEN_MS,
    }
    return system.echo_group(
        server,
        service_class,
        script,
        due_s=[entry.due_s],
        prompt_tokens=_prompt_tokens(entry),
        key=secrets[tenant],
        service_class=service_class,
    )


def _simulate(entries: list[TraceEntry], policy: str) -> list[Record]:
    """The same in `llmos sim`'s machine, its engine as fast as echo is told to be."""
    from llmos.kernel.core.policies import fair, fifo
    from llmos.kernel.sim.calls import Call
    from llmos.kernel.sim.run import Simulation
    from llmos.kernel.sim.setup import Setup
    from llmos.kernel.sim.worker import StepCost

    calls = []
    for index, entry in enumerate(entries):
        service_class, tenant = _kind(index)
        calls.append(
            Call(
                at_ns=round(entry.due_s * NS),
                prompt_tokens=_prompt_tokens(entry),
                output_tokens=entry.output_tokens,
                tenant=tenant,
                max_tokens=ECHO_MAX_TOKENS,
                service_class=ServiceClass[service_class.upper()],
            )
        )
    setup = Setup(
        policy=policy,
        make_policy={"fair": fair.make, "fifo": fifo.make}[policy],
        num_slots=NUM_SLOTS,
        cost=StepCost(TOKEN_MS * 1_000_000, 0, 0, chunk_tokens=1 << 30),
        load_ns=1,
    )
    began_ns = calls[0].at_ns
    ran = Simulation(setup, random.Random(1)).run(
        [*calls],
    )
    records = []
    for outcome in ran.outcomes:
        at_s = outcome.call.at_ns / NS
        first_ns, ended_ns = outcome.first_ns, outcome.ended_ns
        if outcome.end != "finished" or first_ns is None or ended_ns is None:
            raise RuntimeError(f"the simulated request ended as {outcome.end}")
        records.append(
            Record(
                outcome.call.service_class.name.lower(),
                at_s,
                status=OK,
                token_s=[at_s + (first_ns - outcome.arrived_ns) / NS],
                end_s=at_s + (ended_ns - outcome.arrived_ns) / NS,
            )
        )
    assert began_ns >= 0
    return records


def _report(context: Context, policy: str, real: list[Record], simulated: list[Record]) -> None:
    for group in (ALL, *dict.fromkeys(CLASSES)):
        both = [_firsts(records, group) for records in (real, simulated)]
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            ours, theirs = (percentile(values, share) for values in both)
            figure = f"trace, {policy}, {group}: {name} to first token, real"
            context.result.add(paired(figure, "s", [ours], "simulated", [theirs]))
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        ours, theirs = (
            percentile([r.latency_s for r in records], share) for records in (real, simulated)
        )
        figure = f"trace, {policy}, {ALL}: {name} latency, real"
        context.result.add(paired(figure, "s", [ours], "simulated", [theirs]))
    late_s = max(record.late_s for record in real)
    context.result.add(
        single(f"the load client's own worst lateness, trace, {policy}", "s", [late_s])
    )
    context.keep("trace: time to first token, s", f"real, {policy}", _firsts(real, ALL))
    context.keep("trace: time to first token, s", f"simulated, {policy}", _firsts(simulated, ALL))


def _firsts(records: list[Record], group: str) -> list[float]:
    return [r.ttft_s for r in records if r.ttft_s is not None and group in (ALL, r.group)]
