"""a. How long an interactive request waits for its first token beside saturating batch work."""

from __future__ import annotations

from benchmarks.harness import Row, paired, single
from benchmarks.sched import system
from benchmarks.sched.arrivals import poisson
from benchmarks.sched.barrier import BarrierPlan, Kind, run_barrier
from benchmarks.sched.records import Record, of_group, tokens_per_s, ttft_s
from benchmarks.sched.system import NUM_SLOTS, PROMPT_TOKENS, Context
from benchmarks.serving import Server

RATES = {"60m": 0.6, "0.4b": 0.1}
"""Interactive requests per second, by model: well below what one thread can read."""
INTERACTIVE_TOKENS = 4
BATCH_TOKENS = 128
NUM_BATCH = 24
"""Batch clients that ask again at once: every row is taken and eight more wait."""
PEER = "unloaded"
MS = 1e3


def measure(context: Context) -> None:
    """p95 under `fair` and `fifo`, each beside the same server unloaded; the barrier beside it."""
    duration_s = context.window_s(18.0, 240.0)
    repetitions = 3 if context.full else 2
    unloaded_s: list[float] = []
    for policy, times in (("fair", repetitions), ("fifo", 1)):
        with system.native(context.model, f"kernel.policy={policy}") as server:
            loaded_s, alone_s = compare(context, server, policy, duration_s, times)
        unloaded_s = unloaded_s or alone_s
        context.result.add(_row(context, policy, loaded_s, alone_s))
    records = run_barrier(_barrier(context, duration_s))
    found = [ttft_s(of_group(records, "interactive"), duration_s, 0.95) * MS]
    _keep(context, "barrier", records)
    context.result.add(_row(context, "barrier batch", found, unloaded_s[:1]))


def compare(
    context: Context, server: Server, policy: str, duration_s: float, times: int
) -> tuple[list[float], list[float]]:
    """p95s in ms beside batch work and alone, of runs made in turn."""
    loaded, alone, rates = [], [], []
    for repetition in range(times):
        due_s = poisson(_rate(context), duration_s, repetition + 1)
        own = system.group(
            server,
            "interactive",
            output_tokens=INTERACTIVE_TOKENS,
            due_s=due_s,
            service_class="interactive",
        )
        batch = system.group(
            server,
            "batch",
            output_tokens=BATCH_TOKENS,
            closed=NUM_BATCH,
            service_class="batch",
        )
        records = system.run(server, [own], duration_s, drain_s=5.0)
        alone.append(ttft_s(records, duration_s, 0.95) * MS)
        _keep(context, f"unloaded, {policy}", records)
        records = system.run(server, [batch, own], duration_s)
        loaded.append(ttft_s(of_group(records, "interactive"), duration_s, 0.95) * MS)
        rates.append(tokens_per_s(of_group(records, "batch"), 0.0, duration_s))
        _keep(context, policy, records)
    context.result.add(single(f"batch tokens beside interactive, {policy}", "tokens/s", rates))
    return loaded, alone


def _rate(context: Context) -> float:
    return RATES[context.model.removesuffix("-fp32")]


def _row(context: Context, what: str, loaded: list[float], alone: list[float]) -> Row:
    figure = f"interactive p95 to first token, batch in every row, {what}, {context.model}"
    return paired(figure, "ms", loaded, PEER, alone)


def _barrier(context: Context, duration_s: float) -> BarrierPlan:
    due_s = poisson(_rate(context), duration_s, 1)
    kinds = [
        Kind("interactive", PROMPT_TOKENS, INTERACTIVE_TOKENS, due_s),
        Kind("batch", PROMPT_TOKENS, BATCH_TOKENS, closed=NUM_BATCH),
    ]
    return BarrierPlan(context.model, kinds, duration_s, NUM_SLOTS)


def _keep(context: Context, name: str, records: list[Record]) -> None:
    own = of_group(records, "interactive")
    context.keep(
        "time to first token, s", name, sorted(r.ttft_s for r in own if r.ttft_s is not None)
    )
