"""How long an interactive request waits for its first token beside saturating batch work.

The scheduler's own measurement (`benchmarks/sched/parts/interactive.py`), with rows given up by
pausing and by suspension only.
"""

from __future__ import annotations

from benchmarks.harness import Result, paired
from benchmarks.memory.system import Options
from benchmarks.sched import system
from benchmarks.sched.parts import interactive as scheduled
from benchmarks.sched.system import Context
from llmos.kernel.config import KernelConfig

WAYS = {"pausing": "kernel.max_parked=32", "suspension only": "kernel.max_parked=0"}
AIM = 1.5


def rows(result: Result, options: Options) -> None:
    """Both ways of giving up a row; the 0.4 B model in full only."""
    for model in ("60m", "0.4b") if options.full else ("60m",):
        context = Context(result, model, options.full)
        duration_s, times = (240.0, 3) if options.full else (24.0, 2)
        if options.small:
            duration_s, times = 12.0, 1
        for way, setting in WAYS.items():
            with system.native(model, setting) as server:
                loaded_s, alone_s = scheduled.compare(context, server, way, duration_s, times)
            figure = (
                f"{model}, interactive p95 to first token, batch in every row, {way}, "
                f"max_preemptions {_max_preemptions()} (aim {AIM})"
            )
            result.add(paired(figure, "ms", loaded_s, scheduled.PEER, alone_s))


def _max_preemptions() -> int:
    """The default, which these servers run with."""
    return int(KernelConfig().max_preemptions)
