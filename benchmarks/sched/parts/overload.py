"""c. Ten times more than the machine can do: what still gets done, and how refusals come."""

from __future__ import annotations

import time
from threading import Thread

from benchmarks.harness import paired, percentile, single
from benchmarks.sched import system
from benchmarks.sched.arrivals import poisson
from benchmarks.sched.client import Group
from benchmarks.sched.records import OK, Record, goodput
from benchmarks.sched.system import Context
from benchmarks.serving import Server

OUTPUT_TOKENS = 32
OVERLOAD = 10.0
SETTLE_S = 4.0
MAX_WAITING = 32
"""A queue that takes about ten seconds to serve: a longer one only makes answers older."""
REFUSED = (429, 503)
MS = 1e3
MIB = 1 << 20


def measure(context: Context) -> None:
    """Peak and overload in turn on one server; memory of all its processes before and after."""
    duration_s = SETTLE_S + context.window_s(16.0, 60.0)
    with system.native(context.model, f"kernel.max_waiting_per_model={MAX_WAITING}") as server:
        capacity = system.calibrate(context, server, OUTPUT_TOKENS)
        peak_records = system.run(server, [_busy(server)], duration_s)
        peak = goodput(peak_records, SETTLE_S, duration_s)
        due_s = poisson(capacity * OVERLOAD, duration_s, 1)
        flood = system.group(server, "flood", output_tokens=OUTPUT_TOKENS, due_s=due_s)
        watch = _Watch(server, duration_s)
        records = system.run(server, [flood], duration_s)
        watch.join()
    _report(context, records, peak, duration_s)
    watch.report(context)


def _busy(server: Server) -> Group:
    return system.group(server, "busy", output_tokens=OUTPUT_TOKENS, closed=2 * system.NUM_SLOTS)


def _report(context: Context, records: list[Record], peak: float, duration_s: float) -> None:
    done = goodput(records, SETTLE_S, duration_s)
    refused = [r.latency_s * MS for r in records if r.status in REFUSED]
    broken = [r for r in records if _is_broken(r)]
    if broken or not refused:
        raise RuntimeError(f"{len(broken)} failed, {len(refused)} refused: {broken[:1]}")
    figure = f"goodput at {OVERLOAD:g} x overload, {context.model}"
    context.result.add(paired(figure, "requests/s", [done], "peak", [peak]))
    context.result.add(single("refusals answered, p50", "ms", [percentile(refused, 0.5)]))
    context.result.add(single("refusals answered, p99", "ms", [percentile(refused, 0.99)]))
    context.result.add(single("refusals answered, slowest", "ms", [max(refused)]))
    late = max(r.late_s for r in records) * MS
    context.result.add(single("the load client's own worst lateness, overload", "ms", [late]))
    context.keep("refusals, ms", "overload", refused)


def _is_broken(record: Record) -> bool:
    if record.status == 0:
        return bool(record.error)
    return record.status not in (OK, *REFUSED)


class _Watch(Thread):
    """Resident memory of the server's processes, before the overload and late in it."""

    def __init__(self, server: Server, duration_s: float) -> None:
        super().__init__()
        self._server, self._duration_s = server, duration_s
        self._before = self._after = system.rss_bytes(server)
        self.start()

    def run(self) -> None:
        time.sleep(self._duration_s)
        self._after = system.rss_bytes(self._server)

    def report(self, context: Context) -> None:
        """All processes together, and the server alone."""
        before, after = sum(self._before.values()), sum(self._after.values())
        pid = self._server.process.pid
        own_before, own_after = self._before[pid], self._after[pid]
        for name, late, early in (
            ("server and workers", after, before),
            ("server alone", own_after, own_before),
        ):
            figure = f"memory at the end of the overload, {name}"
            context.result.add(paired(figure, "MiB", [late / MIB], "before it", [early / MIB]))
